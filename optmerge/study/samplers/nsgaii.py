"""NSGA-II (Deb et al., 2002) by Optuna's sampler; with one objective, a genetic algorithm."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.samplers import BaseSampler, NSGAIISampler

from optmerge.errors import UsageError
from optmerge.space import Gene

ACCEPTS = frozenset({"float", "int", "switch", "choice"})
SEVERAL_OBJECTIVES = True


@dataclass
class Options:
    """Settings of the sampler.

    Attributes:
        population: Candidates a generation.
    """

    population: int = 50


def build(options: Options, genes: Sequence[Gene], seed: int) -> BaseSampler:
    """The sampler with these settings."""
    if options.population < 2:
        raise UsageError(f"sampler.population must be at least 2, got {options.population}")
    return NSGAIISampler(population_size=options.population, seed=seed)
