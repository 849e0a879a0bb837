"""Tree-structured Parzen estimator (Bergstra et al., 2011) by Optuna's sampler."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.samplers import BaseSampler, TPESampler

from optmerge.errors import UsageError
from optmerge.space import Gene

ACCEPTS = frozenset({"float", "int", "switch", "choice"})
SEVERAL_OBJECTIVES = True


@dataclass
class Options:
    """Settings of the sampler.

    Attributes:
        startup_trials: Random trials before the first model of the fitness.
    """

    startup_trials: int = 10


def build(options: Options, genes: Sequence[Gene], seed: int) -> BaseSampler:
    """The sampler with these settings."""
    if options.startup_trials < 1:
        raise UsageError(f"sampler.startup_trials must be at least 1, got {options.startup_trials}")
    return TPESampler(n_startup_trials=options.startup_trials, seed=seed)
