"""CMA-ES by replay: the genome of a slot is the same whoever asks, and whatever came in first."""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from optmerge.errors import UsageError
from optmerge.space import Gene, Value
from optmerge.study.evolution import Full, Mixed, Separable
from optmerge.study.samplers.cmaes import SUPERSEDED, CmaEsSampler, Options, build, ranked
from optmerge.study.slots import DIED, ERROR, SLOT, Ledger, Plan, Slot, counted, slot_of
from optmerge.study.trial_scores import ESTIMATE
from optmerge.study.worker import Evaluate, Outcome, Report
from study.studies import begin, connected, genomes, opened_anew, proposer, scored, search

Genome = Mapping[str, Value]

GENES = [Gene(f"g{i}") for i in range(6)]
MIXED = [*GENES[:3], Gene("layers", "int", 2, 9), Gene("on", "switch"), Gene("c", "choice", choices=("a", "b", "c"))]


def made(genes: Sequence[Gene] = GENES, seed: int = 0, **options: Any) -> CmaEsSampler:
    found = build(Options(**options), genes, seed)
    assert isinstance(found, CmaEsSampler)
    return found


def loss(genome: Genome) -> float:
    numbers = [value for value in genome.values() if isinstance(value, float)]
    x = np.array(numbers) - 0.4
    return float((x**2).sum() + x.sum() ** 2) + 0.01 * (genome.get("c") == "b")


def end_of(genome: Genome) -> dict[str, Any]:
    """How a trial ends: as complete, stopped or failed; its genome decides."""
    value = -loss(genome)
    if genome["g0"] < 0.3:
        return {"state": TrialState.FAIL, "user_attrs": {ERROR: "NaN"}}
    if value < -0.6:
        return {"state": TrialState.PRUNED, "user_attrs": {ESTIMATE: value}}
    return {"state": TrialState.COMPLETE, "value": value, "user_attrs": {}}


def trial(number: int, slot: Slot, genes: Sequence[Gene], genome: Genome, **facts: Any) -> FrozenTrial:
    now = datetime.now()
    given: dict[str, Any] = {"state": TrialState.RUNNING, "value": None, "user_attrs": {}, **facts}
    return FrozenTrial(
        number=number,
        trial_id=number,
        datetime_start=now,
        datetime_complete=now if given["state"].is_finished() else None,
        params=dict(genome),
        distributions={gene.name: gene.distribution() for gene in genes},
        system_attrs={SLOT: list(slot)},
        intermediate_values={},
        **given,
    )


class Shop:
    """Workers whose trials take as long as chance will have it, in time that does not pass.

    They take the vacant slots in any order; now and then one dies with its trial, and a new one comes that remembers
    nothing. Each has a sampler and a ledger of its own; all they share is the list of trials.
    """

    def __init__(self, genes: Sequence[Gene], workers: int, seed: int, lag: int = 0, **options: Any) -> None:
        self.genes, self.random = genes, random.Random(seed)
        self._new = lambda: made(genes, seed=7, pipeline=lag, **options)
        self.plan = Plan(self._new().population, lag, max_retries=99)  # however often chance lets a slot's worker die
        self.trials: list[FrozenTrial] = []
        self._memories = {worker: (self._new(), Ledger(self.plan)) for worker in range(workers)}

    def run(self, budget: int) -> dict[Slot, Genome]:
        """The genomes of the first slots, when so many trials are finished."""
        clock: list[tuple[float, int, int | None]] = [(0.0, worker, None) for worker in self._memories]
        while clock:
            now, worker, number = heapq.heappop(clock)
            if number is not None:
                self._end(worker, number)
            sampler, ledger = self._memories[worker]
            vacancies = list(ledger.update(self.trials).vacancies(budget))
            if vacancies:
                vacancy = self.random.choice(vacancies)
                heir = vacancy.heir_of
                genome = heir.params if heir is not None else sampler.genome(vacancy.slot, ledger)
                number = len(self.trials)
                self.trials.append(trial(number, vacancy.slot, self.genes, genome))
                heapq.heappush(clock, (now + self.random.expovariate(1.0), worker, number))
            elif not ledger.is_done(budget):
                heapq.heappush(clock, (now + 0.3, worker, None))
        return {slot_of(one): one.params for one in Ledger(self.plan).update(self.trials).results()}

    def _end(self, worker: int, number: int) -> None:
        one = self.trials[number]
        facts = end_of(one.params)
        if self.random.random() < 0.1:
            facts = {"state": TrialState.FAIL, "user_attrs": {ERROR: DIED}}
            self._memories[worker] = (self._new(), Ledger(self.plan))
        self.trials[number] = trial(number, slot_of(one), self.genes, one.params, **facts)


FORMS: dict[str, Any] = {
    "full": {"genes": GENES},
    "separable": {"genes": GENES, "variant": "separable"},
    "mixed": {"genes": MIXED},
}


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_however_many_workers_in_whatever_order_give_the_same_genomes(form: dict[str, Any], lag: int) -> None:
    alone = Shop(workers=1, seed=0, lag=lag, **form).run(50)
    assert len(alone) >= 50 and len({str(genome) for genome in alone.values()}) == len(alone)
    for workers in range(1, 9):
        together = Shop(workers=workers, seed=workers, lag=lag, **form).run(50)
        assert together == alone, workers


@settings(max_examples=15, deadline=None)
@given(workers=st.integers(1, 8), seed=st.integers(1, 10**6), lag=st.integers(0, 3))
def test_no_chance_changes_the_genomes(workers: int, seed: int, lag: int) -> None:
    alone = Shop(GENES, workers=1, seed=0, lag=lag).run(30)
    assert Shop(GENES, workers=workers, seed=seed, lag=lag).run(30) == alone


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_slot_of_any_earlier_generation_may_be_filled_anew(lag: int) -> None:
    shop = Shop(GENES, workers=1, seed=0, lag=lag)
    known = shop.run(90)
    ledger, sampler = Ledger(shop.plan).update(shop.trials), made(seed=7, pipeline=lag)
    for number in (9, 3, 1, 8, 0, 9, 4, 5):
        assert generation(sampler, ledger, number) == [
            known[Slot(number, member)] for member in range(shop.plan.population)
        ]


def test_a_pipelined_search_is_another_than_one_that_waits() -> None:
    waiting, pipelined = (Shop(GENES, workers=1, seed=0, lag=lag).run(30) for lag in (0, 1))
    population = made().population
    first = [Slot(0, member) for member in range(population)]
    assert [waiting[slot] for slot in first] == [pipelined[slot] for slot in first]
    assert all(waiting[Slot(1, member)] != pipelined[Slot(1, member)] for member in range(population))


@pytest.mark.parametrize("workers", [3, 8])
def test_workers_of_one_database_give_the_genomes_of_one_alone(file_url: str, workers: int) -> None:
    """Real workers, each with a connection of its own."""

    def outcome(genome: Genome) -> Outcome:
        facts = end_of(genome)
        return Outcome(facts["state"], facts.get("value"), facts["user_attrs"])

    def evaluate(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        time.sleep(random.random() * 0.02)
        return outcome(genome)

    with connected(file_url) as database:
        proposing = proposer("cmaes", GENES, seed=3)
        begin(database, proposing)
        alone = search(begin(database, proposing, name="alone"), proposing, evaluate_at_once(outcome), 40)

    def take_part() -> None:
        with opened_anew(file_url) as opened:
            own = proposer("cmaes", GENES, seed=3)
            search(opened, own, evaluate, 40)

    threads = [threading.Thread(target=take_part) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened_anew(file_url) as opened:
        together = opened.study.get_trials(deepcopy=False)
        assert by_slot(counted(together)) == by_slot(counted(alone))
        assert len(together) == len({slot_of(one) for one in together}) == len(alone)
        assert len({one.system_attrs["optmerge:worker"]["pid"] for one in together}) == 1


def evaluate_at_once(outcome: Callable[[Genome], Outcome]) -> Evaluate:
    return lambda slot, genome, ledger, report: outcome(genome)


def by_slot(trials: Sequence[FrozenTrial]) -> dict[Slot, Genome]:
    return {slot_of(one): one.params for one in trials}


# Through Optuna alone


def optimized(study: optuna.Study, trials: int, jobs: int = 1) -> optuna.Study:
    def objective(asked: optuna.Trial) -> float:
        genome = {gene.name: asked.suggest_float(gene.name, gene.low, gene.high) for gene in GENES}
        time.sleep(0.001 * (asked.number % 3))
        return -loss(genome)

    study.optimize(objective, n_trials=trials, n_jobs=jobs)
    return study


def test_optuna_alone_fills_slot_after_slot_with_the_genomes_that_any_worker_would(file_url: str) -> None:
    study = optuna.create_study(storage=file_url, direction="maximize", sampler=made(seed=3))
    trials = optimized(study, 35).get_trials(deepcopy=False)
    population = made().population
    assert [slot_of(one) for one in trials] == [Slot(*divmod(number, population)) for number in range(35)]
    ledger, worker = Ledger(Plan(population)).update(trials), made(seed=3)
    assert genomes(trials) == [worker.genome(slot_of(one), ledger) for one in trials]


def test_optuna_goes_on_where_it_stopped(file_url: str) -> None:
    whole = optimized(optuna.create_study(direction="maximize", sampler=made(seed=3)), 30)
    for trials in (5, 16, 9):
        study = optuna.create_study(
            storage=file_url, study_name="parts", direction="maximize", sampler=made(seed=3), load_if_exists=True
        )
        optimized(study, trials)
    assert genomes(study.trials) == genomes(whole.trials)


def test_threads_of_optuna_fill_every_slot_without_a_gap(file_url: str) -> None:
    study = optuna.create_study(storage=file_url, direction="maximize", sampler=made(seed=3))
    optimized(study, 30, jobs=4)
    population = made().population
    trials = study.get_trials(deepcopy=False)
    counting = counted(trials)
    assert len(trials) == 30
    assert sorted(by_slot(counting)) == [Slot(*divmod(position, population)) for position in range(len(counting))]
    # A generation cannot be waited for: at its end a slot may be shared, and one of its trials counts.
    superfluous = [one for one in trials if one not in counting]
    assert all(one.number in {other.number for other in superfluous} for one in trials if SUPERSEDED in one.user_attrs)
    assert all(slot_of(one) in by_slot(counting) for one in superfluous)


def test_a_study_to_be_minimized_is() -> None:
    study = optuna.create_study(direction="minimize", sampler=made(seed=3))
    study.optimize(lambda asked: loss({g.name: asked.suggest_float(g.name, 0, 1) for g in GENES}), n_trials=200)
    values = [one.value for one in study.trials]
    assert np.mean(values[-30:]) < 0.05 * np.mean(values[:10])  # type: ignore[arg-type]


# What is learnt


def generation(sampler: CmaEsSampler, ledger: Ledger, number: int) -> list[Genome]:
    return [sampler.genome(Slot(number, member), ledger) for member in range(ledger.plan.population)]


def first_generation() -> list[FrozenTrial]:
    """The first generation of a search: two were stopped, one failed, the others ran to the end.

    Its size is even: of an odd one the member in the middle has no weight.
    """
    sampler = made(population=8)
    plan = Plan(sampler.population)
    drawn = generation(sampler, Ledger(plan), 0)
    ends: list[dict[str, Any]] = [
        {"state": TrialState.COMPLETE, "value": -loss(genome), "user_attrs": {}} for genome in drawn
    ]
    ends[1] = {"state": TrialState.PRUNED, "user_attrs": {ESTIMATE: 0.2}}
    ends[3] = {"state": TrialState.FAIL, "user_attrs": {ERROR: "NaN"}}
    ends[4] = {"state": TrialState.PRUNED, "user_attrs": {ESTIMATE: 0.9}}
    return [trial(i, Slot(0, i), GENES, genome, **end) for i, (genome, end) in enumerate(zip(drawn, ends, strict=True))]


def second_generation(trials: Sequence[FrozenTrial]) -> list[Genome]:
    sampler = made(population=8)
    return generation(sampler, Ledger(Plan(sampler.population)).update(trials), 1)


def test_members_are_ranked_by_value_then_the_beaten_by_estimate_then_failures() -> None:
    trials = first_generation()
    complete = sorted((one for one in trials if one.value is not None), key=lambda one: -float(one.value or 0))
    expected = [*(one.number for one in complete), 4, 1, 3]
    assert [one.number for one in ranked(trials, Plan(len(trials)))] == expected


def test_where_less_is_better_the_least_comes_first() -> None:
    trials = first_generation()
    complete = sorted((one for one in trials if one.value is not None), key=lambda one: float(one.value or 0))
    plan = Plan(len(trials), maximize=(False,))
    assert [one.number for one in ranked(trials, plan)] == [*(one.number for one in complete), 1, 4, 3]


def test_of_equals_the_first_slot_comes_first() -> None:
    equals = [trial(9 - i, Slot(0, i), GENES, {}, state=TrialState.COMPLETE, value=0.5) for i in range(5)]
    assert [slot_of(one).member for one in ranked(equals, Plan(5))] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("member", range(8))
def test_every_trial_is_learnt_from_whatever_became_of_it(member: int) -> None:
    """Stopped and failed ones too: had its genome been another, so were the next generation."""
    trials = first_generation()
    other = list(trials)
    moved = {name: float(value) * 0.9 for name, value in trials[member].params.items()}
    other[member] = trial(
        member,
        Slot(0, member),
        GENES,
        moved,
        state=trials[member].state,
        value=trials[member].value,
        user_attrs=trials[member].user_attrs,
    )
    before, after = second_generation(trials), second_generation(other)
    assert all(one != another for one, another in zip(before, after, strict=True))


def test_estimates_of_the_beaten_matter_by_their_order_alone() -> None:
    trials = first_generation()
    nearer = [replaced(one, {ESTIMATE: 0.89}) if one.number == 1 else one for one in trials]
    beyond = [replaced(one, {ESTIMATE: 0.91}) if one.number == 1 else one for one in trials]
    assert second_generation(nearer) == second_generation(trials) != second_generation(beyond)


def replaced(one: FrozenTrial, attributes: dict[str, Any]) -> FrozenTrial:
    return trial(one.number, slot_of(one), GENES, one.params, state=one.state, value=one.value, user_attrs=attributes)


def test_numbers_of_trials_mean_nothing() -> None:
    trials = first_generation()
    other = [
        trial(
            100 - one.number,
            slot_of(one),
            GENES,
            one.params,
            state=one.state,
            value=one.value,
            user_attrs=one.user_attrs,
        )
        for one in trials
    ]
    assert second_generation(other[::-1]) == second_generation(trials)


# How it begins


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_seed_decides(form: dict[str, Any]) -> None:
    def begun(seed: int) -> list[Genome]:
        sampler = made(form["genes"], seed, variant=form.get("variant", "auto"))
        return generation(sampler, Ledger(Plan(sampler.population)), 0)

    assert begun(1) == begun(1) != begun(2)
    assert not any(one in begun(2) for one in begun(1))


@pytest.mark.parametrize(
    ("high", "options", "sigma"), [(1.0, {}, 1 / 6), (4.0, {}, 4 / 6), (2.0, {"sigma": 0.05}, 0.1)]
)
def test_it_begins_in_the_middle_with_the_step_of_the_paper(
    high: float, options: dict[str, float], sigma: float
) -> None:
    genes, seeds = [Gene(f"g{i}", high=high) for i in range(20)], 30
    drawn = np.array(
        [list(made(genes, seed, **options).genome(Slot(0, 0), Ledger(Plan(12))).values()) for seed in range(seeds)],
        dtype=float,
    )
    # What falls out of the range is set on its bound, 3 steps away or more: that narrows it a little.
    edge = high / 2 / sigma
    x = np.linspace(-edge, edge, 10_001)
    inner = np.trapezoid(x**2 * norm.pdf(x), x)
    expected = sigma * float(inner + 2 * edge**2 * norm.sf(edge)) ** 0.5
    assert abs(drawn.mean() - high / 2) < 5 * expected / drawn.size**0.5
    assert drawn.std() == pytest.approx(expected, rel=5 / (2 * drawn.size) ** 0.5)


def test_it_begins_where_a_gene_says_with_the_step_that_it_says() -> None:
    genes = [Gene("near", initial=0.1, sigma=0.001), Gene("far", initial=0.9, sigma=0.02), Gene("middle")]
    sampler = made(genes, sigma=0.005)
    drawn = [sampler.genome(Slot(0, member), Ledger(Plan(400))) for member in range(400)]
    for name, mean, sigma in (("near", 0.1, 0.001), ("far", 0.9, 0.02), ("middle", 0.5, 0.005)):
        values = [float(genome[name]) for genome in drawn]
        assert np.mean(values) == pytest.approx(mean, abs=5 * sigma / 20)
        assert np.std(values) == pytest.approx(sigma, rel=0.2)


def test_it_begins_with_the_genomes_that_it_is_given_around_the_first_of_them(database: Any) -> None:
    starts = [{gene.name: 0.2 for gene in GENES}, {gene.name: 0.9 for gene in GENES}]
    proposing = proposer("cmaes", GENES, starts=starts, sigma=0.01)
    opened = begin(database, proposing, starts=starts)
    trials = search(opened, proposing, scored(lambda genome: -loss(genome)), 9)
    assert genomes(trials[:2]) == starts
    others = np.array([list(genome.values()) for genome in genomes(trials[2:])], dtype=float)
    assert abs(others - 0.2).max() < 0.06


@pytest.mark.parametrize(
    ("genes", "options", "form"),
    [
        ([Gene("only")], {}, Full),
        ([Gene("only")], {"variant": "separable"}, Full),
        ([Gene(f"g{i}") for i in range(99)], {}, Full),
        ([Gene(f"g{i}") for i in range(100)], {}, Separable),
        ([Gene(f"g{i}") for i in range(120)], {"variant": "full"}, Full),
        (GENES, {"variant": "separable"}, Separable),
        (GENES, {"variant": "mixed"}, Mixed),
        ([*GENES, Gene("on", "switch")], {}, Mixed),
        ([*GENES, Gene("layers", "int", 1, 9)], {}, Mixed),
        ([*GENES, Gene("layers", "int", 1, 9)], {"variant": "full"}, Full),
        ([Gene("c", "choice", choices=("a", "b"))], {}, Mixed),
    ],
)
def test_the_variant_follows_from_the_genes_unless_it_is_given(
    genes: list[Gene], options: dict[str, Any], form: type
) -> None:
    sampler = made(genes, **options)
    assert type(sampler._first(sampler.population)) is form
    assert set(sampler.genome(Slot(0, 0), Ledger(Plan(sampler.population)))) == {gene.name for gene in genes}


@pytest.mark.parametrize("kind", ["switch", "choice"])
@pytest.mark.parametrize("variant", ["full", "separable"])
def test_a_variant_for_numbers_refuses_what_is_none(variant: str, kind: Any) -> None:
    genes = [*GENES, Gene("odd", kind, choices=("a", "b"))]
    with pytest.raises(UsageError, match=f"sampler.variant={variant} cannot search odd, a gene of kind {kind}"):
        made(genes, variant=variant)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 2}, "sampler.population must be at least 3, got 2"),
        ({"sigma": 0.0}, r"sampler.sigma must be in \(0, 1\]"),
        ({"sigma": 1.5}, r"sampler.sigma must be in \(0, 1\]"),
        ({"variant": "best"}, "sampler.variant=best: unknown; known are auto, full, separable, mixed"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**options)


@pytest.mark.parametrize(("genes", "population"), [(3, 7), (6, 9), (20, 12)])
def test_generations_have_the_population_of_the_rule(database: Any, genes: int, population: int) -> None:
    assert population == 4 + int(3 * np.log(genes))
    proposing = proposer("cmaes", [Gene(f"g{i}") for i in range(genes)])
    trials = search(begin(database, proposing), proposing, scored(lambda genome: 0.0), population + 2)
    assert [tuple(slot_of(one)) for one in trials] == [(0, i) for i in range(population)] + [(1, 0), (1, 1)]


def test_a_search_of_every_variant_finds_its_way() -> None:
    for options, genes in (({}, GENES), ({"variant": "separable"}, GENES), ({}, MIXED), ({"pipeline": 2}, GENES)):
        sampler = made(genes, **options)
        plan = Plan(sampler.population, sampler.lag)
        ledger, trials = Ledger(plan), list[FrozenTrial]()
        for position in itertools.count():
            slot = plan.slot(position)
            if slot.generation == 30:
                break
            genome = sampler.genome(slot, ledger.update(trials))
            trials.append(trial(position, slot, genes, genome, state=TrialState.COMPLETE, value=-loss(genome)))
        losses = [loss(one.params) for one in trials]
        assert np.mean(losses[-20:]) < 0.05 * np.mean(losses[:20]), options


def test_a_larger_generation_of_the_plan_is_heeded() -> None:
    """A study of many workers has larger generations than the rule says."""
    sampler = made()
    plan = Plan(20)
    trials = []
    for member, genome in enumerate(generation(sampler, Ledger(plan), 0)):
        trials.append(trial(member, Slot(0, member), GENES, genome, state=TrialState.COMPLETE, value=-loss(genome)))
    drawn = generation(made(), Ledger(replace(plan)).update(trials), 1)
    assert len(drawn) == 20 and np.mean([loss(genome) for genome in drawn]) < np.mean(
        [loss(one.params) for one in trials]
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_smallest_generations_work_without_a_warning(form: dict[str, Any]) -> None:
    genes = form["genes"]
    sampler = made(genes, population=3, variant=form.get("variant", "auto"))
    plan, trials = Plan(3), list[FrozenTrial]()
    for position in range(30):
        slot = plan.slot(position)
        genome = sampler.genome(slot, Ledger(plan).update(trials))
        trials.append(trial(position, slot, genes, genome, state=TrialState.COMPLETE, value=-loss(genome)))
    assert len({str(one.params) for one in trials}) == 30
