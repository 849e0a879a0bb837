"""The samplers, one module each, found by name.

Each declares `Options`, the kinds of gene it `ACCEPTS`, and `build(options, genes, seed)`, which gives an Optuna
sampler. One that is also an `optmerge.study.sampler.SlotSampler` serves any number of workers without loss: what it
proposes for a slot follows from the seed, the slot and the results of closed generations. The others are built anew for
every trial, with a seed that follows from the study's and the slot; they know of a study what has come in when they are
asked.
"""
