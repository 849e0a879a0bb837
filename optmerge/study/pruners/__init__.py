"""The pruners, one module each, found by name.

Each declares `Options` and `build(options)`, which gives a `Pruner`: asked after every batch of problems whether a
trial is beaten, it compares the trial with others on the very problems that the trial has seen.
"""
