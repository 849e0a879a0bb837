"""CMA-ES (Hansen, 2016) by Optuna's sampler. Of many workers' trials it learns from few; stopped ones it never sees."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.samplers import BaseSampler, CmaEsSampler

from optmerge.errors import UsageError
from optmerge.space import Gene

ACCEPTS = frozenset({"float", "int"})


@dataclass
class Options:
    """Settings of the sampler.

    Attributes:
        population: Candidates a generation; `4 + floor(3 ln(genes))` by default, as in the paper.
        sigma: First step size in units of the range; the paper's 1/6 by default.
        separable: Learn variances only: faster for hundreds of genes.
    """

    population: int | None = None
    sigma: float | None = None
    separable: bool = False


def build(options: Options, genes: Sequence[Gene], seed: int) -> BaseSampler:
    """The sampler; its first mean is each gene's initial value, the middle of its range unless declared otherwise."""
    if options.population is not None and options.population < 3:
        raise UsageError(f"sampler.population must be at least 3, got {options.population}")
    if options.sigma is not None and not 0 < options.sigma <= 1:
        raise UsageError(f"sampler.sigma must be in (0, 1], got {options.sigma}")
    starts = {gene.name: gene.start() for gene in genes} if any(gene.initial is not None for gene in genes) else None
    with warnings.catch_warnings():
        # x0 and sigma0 are deprecated but work, and use_separable_cma is marked experimental.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*use_separable_cma.*")
        return CmaEsSampler(
            seed=seed,
            popsize=options.population,
            use_separable_cma=options.separable,
            x0=starts,
            sigma0=options.sigma,
            warn_independent_sampling=False,
        )
