"""The samplers, one module each, found by name.

Each declares `Options`, the kinds of gene it `ACCEPTS`, and `build(options, genes, seed)`. A sampler is built anew
for every trial, with a seed that follows from the study's and the number of genomes before it: all it knows it reads
from the study, so that a resumed study goes on as if it had never stopped. (Optuna's CMA-ES also counts trials that
were killed in its seed: it goes on as well, with other genomes.)
"""
