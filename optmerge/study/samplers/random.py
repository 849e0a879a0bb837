"""Uniformly random genomes: what every other sampler must beat."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.samplers import BaseSampler, RandomSampler

from optmerge.space import Gene

ACCEPTS = frozenset({"float", "int", "switch", "choice"})
SEVERAL_OBJECTIVES = True


@dataclass
class Options:
    """It has no settings."""


def build(options: Options, genes: Sequence[Gene], seed: int) -> BaseSampler:
    """The sampler with these settings."""
    return RandomSampler(seed=seed)
