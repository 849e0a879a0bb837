"""CMA-ES that any number of workers share, and that learns from every one of their trials.

Optuna's own learns from few of the trials of many workers, knows nothing of generations, and keeps its state in the
database. This one keeps nothing: whoever needs the distribution of a generation has it by replaying the generations
before, from the genomes and scores in the database. What a genome is depends on the study's seed, its slot, and the
scores of those generations alone, whoever asks and whatever came in first.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import UsageError
from optmerge.space.gene import Gene, Value
from optmerge.study.conditional import Conditional
from optmerge.study.evolution import STEP, Coordinates, Distribution, Full, Mixed, Separable, default_population
from optmerge.study.mirrored import Floats, deviates
from optmerge.study.response_surface import best_point, trials_for
from optmerge.study.slots import SLOT, Ledger, Plan, Slot, counted, violation
from optmerge.study.trial_scores import ESTIMATE

ACCEPTS = frozenset({"float", "int", "switch", "choice"})
SUPERSEDED = "superseded"  # user attribute of a trial that finished for a slot that had a result already

_MANY = 100  # genes; from here on only variances are learnt, unless the variant is given
_VARIANTS = ("auto", "full", "separable", "mixed", "conditional")


@dataclass
class Options:
    """Settings of the sampler.

    Attributes:
        population: Genomes a generation; `4 + floor(3 ln(genes))` by default, as in the paper, and more where the
            launcher has more workers (`optmerge.study.sampler.Proposer.arrangement`).
        sigma: First step size in units of the range; the paper's 1/6 by default.
        variant: `full` learns all covariances, `separable` variances alone, `mixed` also whole numbers, switches and
            choices, `conditional` switches, and variances of numbers, from those genomes alone in which a number
            matters; `auto` takes `conditional` where there are numbers that depend on switches, `mixed` where there is
            anything else but numbers, `separable` from 100 genes on, else `full`.
        pipeline: A generation need not wait for the last trials of so many before it: it is taught by those before
            these. Workers hardly wait, at the price of more trials to the same fitness. By default 0, and more where
            there are more workers than half the genomes of a generation.
        surrogate: The last genome of every generation is where a quadratic model of the fitness, a regression over the
            trials so far, is highest. Of use where all genes are numbers; else nothing is done.
    """

    population: int | None = None
    sigma: float | None = None
    variant: str = "auto"
    pipeline: int | None = None
    surrogate: bool = True


class CmaEsSampler(BaseSampler):
    """CMA-ES that fills slots.

    Args:
        options: Settings.
        genes: The genes, in order.
        seed: The study's seed.
    """

    def __init__(self, options: Options, genes: Sequence[Gene], seed: int) -> None:
        self.population = options.population or default_population(len(genes))
        self.lag: int | None = options.pipeline or 0
        self._options = options
        self._genes = genes
        self._seed = seed
        self._taught: dict[int, Distribution] = {}  # number of generations learnt from, to what was learnt
        self._random = RandomSampler(seed)

    def _first(self, population: int) -> Distribution:
        step = STEP if self._options.sigma is None else self._options.sigma
        start = {gene.name: gene.start() for gene in self._genes}
        variant = self._options.variant
        if variant == "auto":
            variant = _suiting(self._genes)
        if variant == "mixed":
            return Mixed(self._genes, step, start, population)
        if variant == "conditional":
            return Conditional(self._genes, step, start, population)
        coordinates = Coordinates(self._genes, step)
        # One gene has no covariances, and the package no separable form of it.
        return (Full if variant == "full" or len(self._genes) == 1 else Separable)(coordinates, start, population)

    def genome(self, slot: Slot, ledger: Ledger) -> dict[str, Value]:
        """The genome of a slot.

        Args:
            slot: A slot whose generation may begin.
            ledger: Knows the results of the generations that teach it.
        """
        lessons = ledger.plan.taught_by(slot.generation)
        distribution = self._after(lessons, ledger)
        z = None
        if self._options.surrogate and slot.member == ledger.plan.population - 1:
            z = _best_known(distribution, lessons, ledger)
        if z is None:
            z = deviates(self._seed, slot, distribution.dimensions)
        return distribution.sample(z, np.random.default_rng([self._seed, *slot]))

    def _after(self, lessons: int, ledger: Ledger) -> Distribution:
        """The distribution after so many generations."""
        if not self._taught:
            with np.errstate(divide="ignore"):  # the package divides by zero, to no harm, where one of three teaches
                self._taught[0] = self._first(ledger.plan.population)
        known = max(count for count in self._taught if count <= lessons)
        distribution = self._taught[known]
        for generation in range(known, lessons):
            distribution = copy.deepcopy(distribution)
            parent = self._taught[ledger.plan.taught_by(generation)]
            order = ranked(ledger.generation(generation), ledger.plan)
            distribution.tell([trial.params for trial in order], parent)
            self._taught[generation + 1] = distribution
            # Slots of the generation before may still have to be filled anew, and parents are asked for.
            oldest = generation - 1 - (ledger.plan.lag or 0)
            self._taught = {count: one for count, one in self._taught.items() if count == 0 or count >= oldest}
        return distribution

    # As any Optuna sampler, for `study.optimize`.

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {gene.name: gene.distribution() for gene in self._genes}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        maximize = study.direction == StudyDirection.MAXIMIZE
        ledger = Ledger(Plan(self.population, self.lag, (maximize,)))
        while True:
            trials = study.get_trials(deepcopy=False)
            ledger.update(trials)
            # A generation cannot be waited for here: where all of its slots have workers, the last is shared.
            vacancy = next(ledger.vacancies(len(trials) + self.population), None)
            slot = vacancy.slot if vacancy else Slot(ledger.closed(), self.population - 1)
            study._storage.set_trial_system_attr(trial._trial_id, SLOT, list(slot))
            others = (other for other in study.get_trials(deepcopy=False) if other.number < trial.number)
            if vacancy is None or not any(_holds(other, slot) for other in others):
                return dict(self.genome(slot, ledger))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        slot = trial.system_attrs.get(SLOT)
        earlier = (t for t in counted(study.get_trials(deepcopy=False)) if t.number < trial.number)
        if slot is not None and any(other.system_attrs[SLOT] == slot for other in earlier):
            study._storage.set_trial_user_attr(trial._trial_id, SUPERSEDED, True)


def ranked(generation: Sequence[FrozenTrial], plan: Plan) -> list[FrozenTrial]:
    """The members of a generation, best first.

    Survivors by value, those that break a guard by how far they do, the beaten by estimate, then those that failed.

    Args:
        generation: Its results, by index, which decides between equals.
        plan: Says which values are better.
    """
    sign = -1.0 if plan.maximize[0] else 1.0

    def place(trial: FrozenTrial) -> tuple[int, float]:
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            broken = violation(trial)
            return (1, broken) if broken else (0, sign * trial.value)
        if trial.state == TrialState.PRUNED:
            return 2, sign * float(trial.user_attrs.get(ESTIMATE, 0.0))
        return 3, 0.0

    return sorted(generation, key=place)


def _best_known(distribution: Distribution, lessons: int, ledger: Ledger) -> Floats | None:
    """The deviates of the genome that a model of what so many generations taught has for the best, if it has one."""
    sign = 1.0 if ledger.plan.maximize[0] else -1.0
    genomes: list[Mapping[str, Value]] = []
    fitness: list[float] = []
    for generation in range(lessons):
        for trial in ledger.generation(generation):
            value = trial.value if trial.state == TrialState.COMPLETE else trial.user_attrs.get(ESTIMATE)
            if value is not None:
                genomes.append(trial.params)
                fitness.append(float("nan") if violation(trial) else sign * float(value))
    first = len(genomes) - trials_for(distribution.dimensions, len(genomes))
    points = distribution.deviates_of(genomes[first:]) if genomes[first:] else None
    if points is None:
        return None
    values = np.array(fitness[first:])
    if np.isnan(values).all():
        return None
    return best_point(points, np.nan_to_num(values, nan=np.nanmin(values)))  # to break a guard is as bad as the worst


def _holds(trial: FrozenTrial, slot: Slot) -> bool:
    return trial.system_attrs.get(SLOT) == list(slot) and trial.state != TrialState.FAIL


def _suiting(genes: Sequence[Gene]) -> str:
    """The variant for some genes."""
    kinds = {gene.kind for gene in genes}
    switches = {gene.name for gene in genes if gene.kind == "switch"}
    if kinds <= {"float", "switch"} and any(gene.active_if in switches for gene in genes):
        return "conditional"
    if kinds != {"float"}:
        return "mixed"
    return "separable" if len(genes) >= _MANY else "full"


def build(options: Options, genes: Sequence[Gene], seed: int) -> BaseSampler:
    """The sampler; its first mean is each gene's initial value, the middle of its range unless declared otherwise."""
    least = 3
    if options.population is not None and options.population < least:
        raise UsageError(f"sampler.population must be at least {least}, got {options.population}")
    if options.sigma is not None and not 0 < options.sigma <= 1:
        raise UsageError(f"sampler.sigma must be in (0, 1], got {options.sigma}")
    if options.pipeline is not None and options.pipeline < 0:
        raise UsageError(f"sampler.pipeline must be at least 0, got {options.pipeline}")
    if options.variant not in _VARIANTS:
        raise UsageError(f"sampler.variant={options.variant}: unknown; known are {', '.join(_VARIANTS)}")
    odd = [gene for gene in genes if gene.kind in ("switch", "choice")]
    if odd and options.variant in ("full", "separable"):
        raise UsageError(
            f"sampler.variant={options.variant} cannot search {odd[0].name}, a gene of kind {odd[0].kind}; "
            "use sampler.variant=mixed"
        )
    other = [gene for gene in genes if gene.kind == "choice"]
    if other and options.variant == "conditional":
        raise UsageError(f"sampler.variant=conditional cannot search {other[0].name}, a gene of kind choice; use mixed")
    return CmaEsSampler(options, genes, seed)
