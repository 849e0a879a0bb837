"""Registered samplers, and how any of them gives the genome of a slot."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from optmerge.errors import UsageError
from optmerge.registered import find, names
from optmerge.space.gene import Gene, Value
from optmerge.study.database import Claim, Database
from optmerge.study.slots import Ledger, Slot

_BLOCK = 12  # slots of a generation where the sampler knows of none; pruning compares with closed generations


@runtime_checkable
class SlotSampler(Protocol):
    """A sampler whose genomes follow from the seed, the slot, and the results of closed generations.

    Attributes:
        population: Slots of a generation, unless the plan has another number.
        lag: As in `optmerge.study.slots.Plan`.
    """

    population: int
    lag: int | None

    def genome(self, slot: Slot, ledger: Ledger) -> Mapping[str, Value]:
        """The genome of a slot whose generation may begin."""


@dataclass(frozen=True)
class Sampler:
    """A registered sampler with its options."""

    module: ModuleType
    options: Any

    def check(self, genes: Sequence[Gene], objectives: int = 1) -> None:
        """Refuse genes or a number of objectives that the sampler cannot handle, and options that have no meaning.

        Raises:
            UsageError: Naming the first such gene and its kind, or the option.
        """
        package, _, name = self.module.__name__.rpartition(".")
        if objectives > 1 and not _searches_several(self.module):
            able = [other for other in names(package) if _searches_several(find(package, other, "sampler"))]
            raise UsageError(
                f"sampler={name} searches for one objective, and the task has {objectives}; these search for several: "
                f"{', '.join(able)}"
            )
        kinds = {gene.kind for gene in genes}
        for gene in genes:
            if gene.kind not in self.module.ACCEPTS:
                able = [other for other in names(package) if kinds <= find(package, other, "sampler").ACCEPTS]
                raise UsageError(
                    f"sampler={name} cannot search {gene.name}, a gene of kind {gene.kind}; these can: "
                    f"{', '.join(able) or 'none'}"
                )
        self.module.build(self.options, genes, 0)

    def proposer(self, genes: Sequence[Gene], seed: int, starts: Sequence[Mapping[str, Value]] = ()) -> "Proposer":
        """What gives the genomes of a study."""
        return Proposer(self, genes, seed, starts)


def _searches_several(module: ModuleType) -> bool:
    """Whether a sampler can search for several objectives at once: it declares that."""
    return bool(getattr(module, "SEVERAL_OBJECTIVES", False))


class Proposer:
    """Gives the genomes of a study's slots.

    Args:
        sampler: The sampler.
        genes: The genes, in order.
        seed: The study's seed.
        starts: Genomes to begin with, before any of the sampler's; the first of them is where it starts.
    """

    def __init__(
        self, sampler: Sampler, genes: Sequence[Gene], seed: int, starts: Sequence[Mapping[str, Value]]
    ) -> None:
        first = starts[0] if starts else {}
        self.genes = [replace(gene, initial=first[gene.name]) if gene.name in first else gene for gene in genes]
        self.distributions: dict[str, BaseDistribution] = {gene.name: gene.distribution() for gene in genes}
        self.seed = seed
        self._sampler = sampler
        self._starts = starts
        built = sampler.module.build(sampler.options, self.genes, seed)
        self._of_slots = built if isinstance(built, SlotSampler) else None
        own = self._of_slots.population if self._of_slots else getattr(sampler.options, "population", None)
        self.population: int = own or _BLOCK
        self.lag: int | None = self._of_slots.lag if self._of_slots else None

    def arrangement(self, workers: int) -> tuple[int, int | None]:
        """Population and lag of a study with so many workers, where the sampler's options leave them open.

        A generation that waits for the one before has a genome for every worker. Where there are fewer than two for
        each, it does not wait: a generation has at least a genome for every second worker, and one or two more may be
        under way, as many as there must be for three genomes or more to two workers. With fewer, workers wait; with
        more, genomes are sampled from what was known long before. Measured on an ellipsoid of 12 genes with trials of
        uneven length (`benchmarks/workers.py`).
        """
        if self._of_slots is None:
            return self.population, self.lag
        options = self._sampler.options
        lag = getattr(options, "pipeline", 0)
        waits = lag == 0 if lag is not None else self.population >= 2 * workers
        population = self.population
        if getattr(options, "population", 0) is None:
            population = max(population, workers if waits else math.ceil(workers / 2))
        if lag is None:
            lag = 0 if waits else 1 if 2 * population >= 1.5 * workers else 2
        return population, lag

    def genome(self, slot: Slot, ledger: Ledger) -> Mapping[str, Value] | None:
        """The genome of a slot; None where the sampler wants to know its trial first, see `complete`."""
        position = ledger.plan.position(slot)
        if position < len(self._starts):
            return self._starts[position]
        if position == 0:
            return {gene.name: gene.start() for gene in self.genes}
        return self._of_slots.genome(slot, ledger) if self._of_slots is not None else None

    def complete(self, study: optuna.Study, database: Database, claim: Claim, position: int) -> Mapping[str, Value]:
        """Let one of Optuna's samplers give the genome of a trial, and write it in one transaction.

        Its seed follows from the study's and the slot's place alone. What it knows of the study is what has come in.
        """
        digest = hashlib.sha256(f"{self.seed}\0{position}".encode()).digest()
        seed = int.from_bytes(digest[:4], "little") % (2**31 - 1)
        sampler = self._sampler.module.build(self._sampler.options, self.genes, seed)
        assert isinstance(sampler, BaseSampler)
        study._thread_local.cached_all_trials = None  # as `ask` does: what came in since the last trial is to be seen
        trial = study._storage.get_trial(claim.trial_id)
        sampler.before_trial(study, trial)
        space = sampler.infer_relative_search_space(study, trial)
        genome = dict(sampler.sample_relative(study, trial, space))
        for name, distribution in self.distributions.items():
            if name not in genome:
                genome[name] = sampler.sample_independent(study, trial, name, distribution)
        database.set_genome(claim.trial_id, genome, self.distributions)
        return genome
