"""The worker on a real space: its trials, how a search goes on, and what becomes of failures and of the dead."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import OptmergeError
from optmerge.space import Gene, Value
from optmerge.study.charter import OpenStudy
from optmerge.study.database import Database, StorageError, TrialLostError
from optmerge.study.objective import Objective
from optmerge.study.sampler import Proposer
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, SLOT, Ledger, Plan, Slot, counted, slot_of
from optmerge.study.trial_scores import (
    ESTIMATE,
    PEAK_MEMORY,
    PROBLEMS,
    RECIPE,
    SCORES,
    SECONDS,
    TOKENS,
    FinishedTrial,
    decode,
)
from optmerge.study.worker import Outcome, Report, StoppedError, is_dead, reap, this_worker, work
from study.studies import begin, connected, genomes, opened_anew, proposer, scored, search

Genome = Mapping[str, Value]
SAMPLERS: list[tuple[str, dict[str, Any]]] = [
    ("random", {}),
    ("tpe", {"startup_trials": 2}),
    ("nsgaii", {"population": 4}),
    ("cmaes", {}),
    ("optuna_cmaes", {}),
]
ONE = [Gene("weight")]


def begun(
    database: Database, objective: Objective, name: str = "random", **settings: Any
) -> tuple[OpenStudy, Proposer]:
    proposing = proposer(name, list(objective.space.genes), seed=objective.seed, **settings)
    return begin(database, proposing), proposing


def states(trials: Sequence[FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def near(genome: Genome) -> float:
    return -sum((float(value) - 0.3) ** 2 for value in genome.values())


# What a trial leaves behind


def test_a_trial_leaves_everything_behind(database: Database, objective: Objective) -> None:
    (trial,) = search(*begun(database, objective), objective, 1)
    facts = trial.user_attrs
    scores = decode(facts[SCORES]["near"])
    assert facts[RECIPE] == objective.space.decode(trial.params).sha256
    assert facts[PROBLEMS] == len(scores) == 3
    assert trial.value == pytest.approx(scores.mean(), rel=1e-3)  # scores are kept in 16 bits
    assert set(facts[SECONDS]) == {"merge", "generate", "score"}
    assert facts[TOKENS] == 3  # its engine answers in one
    assert 10**7 < facts[PEAK_MEMORY] <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert trial.intermediate_values == {3: pytest.approx(trial.value)}


def test_scores_are_those_of_the_candidate(database: Database, objective: Objective) -> None:
    *_, trial = search(*begun(database, objective), objective, 3)
    candidate = objective.workbench.candidate(objective.space.decode(trial.params))
    size = sum(float(tensor.square().sum()) for _, tensor in candidate.tensors()) ** 0.5
    expected = [1 / (1 + abs(size - wanted)) for wanted in (10.0, 12.0, 14.0)]
    np.testing.assert_allclose(decode(trial.user_attrs[SCORES]["near"]), expected, rtol=1e-3)


def test_genes_reach_the_recipe(database: Database, objective: Objective) -> None:
    (trial,) = search(*begun(database, objective), objective, 1)
    assert trial.params == {gene.name: gene.start() for gene in objective.space.genes}


def test_problems_come_in_an_order_of_the_generations_own(objective: Objective) -> None:
    slots = [Slot(generation, member) for generation in range(2) for member in range(3)]
    orders = [tuple(i for batch in objective._batches(30, slot) for i in batch) for slot in slots]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len(set(orders[:3])) == len(set(orders[3:])) == 1
    assert orders[0] != orders[3]


def test_a_generation_answers_problems_of_its_own_where_there_are_many(objective: Objective) -> None:
    few = replace(objective, sample=5)

    def asked(slot: Slot) -> frozenset[int]:
        return frozenset(i for batch in few._batches(30, slot) for i in batch)

    found = [{asked(Slot(generation, member)) for member in range(4)} for generation in range(3)]
    assert [len(of_one) for of_one in found] == [1, 1, 1]
    assert len(set.union(*found)) == 3 and all(len(problems) == 5 for problems in set.union(*found))


# Going on


@pytest.mark.parametrize(("name", "settings"), SAMPLERS, ids=[name for name, _ in SAMPLERS])
def test_a_resumed_search_goes_on_as_if_it_had_never_stopped(
    database: Database, tmp_path: Path, objective: Objective, name: str, settings: dict[str, Any]
) -> None:
    opened, proposing = begun(database, objective, name, **settings)
    whole = search(opened, proposing, objective, 26)
    url = f"sqlite:///{tmp_path / 'parts.db'}"
    with connected(url) as other:
        begun(other, objective, name, **settings)
    for budget in (3, 17, 26):
        with opened_anew(url) as parts:
            own = proposer(name, list(objective.space.genes), seed=objective.seed, **settings)
            search(parts, own, objective, budget)
            trials = parts.study.trials
    assert [(trial.params, trial.value, slot_of(trial)) for trial in trials] == [
        (trial.params, trial.value, slot_of(trial)) for trial in whole
    ]


def test_a_spent_budget_runs_nothing(database: Database, objective: Objective) -> None:
    opened, proposing = begun(database, objective)
    search(opened, proposing, objective, 2)
    assert search(opened, proposing, objective, 2) == []


def test_a_search_that_finds_nothing_better_ends_before_its_budget(database: Database) -> None:
    proposing = proposer("cmaes", ONE)
    opened = begin(database, proposing)
    stagnant = replace(opened, plan=replace(opened.plan, stagnation=2))
    trials = search(stagnant, proposing, scored(lambda genome: 0.5), 100)
    assert len(trials) == 3 * proposing.population


def test_a_search_begins_with_the_genomes_that_it_is_given(database: Database, objective: Objective) -> None:
    wanted = [{gene.name: share for gene in objective.space.genes} for share in (0.25, 0.125)]
    proposing = proposer("random", list(objective.space.genes), starts=wanted)
    trials = search(begin(database, proposing, starts=wanted), proposing, objective, 3)
    assert genomes(trials[:2]) == wanted


# Failures


@dataclass(frozen=True)
class Stumbling(Objective):
    """Fails at some slots, each time for a reason of its own or always the same."""

    at: tuple[int, ...] = ()
    alike: bool = False

    def __call__(self, slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        place = ledger.plan.position(slot)
        if place in self.at:
            raise OptmergeError("no memory" if self.alike else f"bad luck {place}")
        return super().__call__(slot, genome, ledger, report)


def stumbling(objective: Objective, **changes: Any) -> Stumbling:
    parts = {name: getattr(objective, name) for name in Objective.__dataclass_fields__}
    return Stumbling(**parts, **changes)


def test_a_trial_that_fails_is_kept_with_its_reason_and_does_not_count(
    database: Database, objective: Objective
) -> None:
    trials = search(*begun(database, objective), stumbling(objective, at=(1,)), 3)
    assert states(trials) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs[ERROR] == "bad luck 1"


def test_a_search_goes_on_through_failures_of_several_kinds(database: Database, objective: Objective) -> None:
    trials = search(*begun(database, objective), stumbling(objective, at=(0, 1, 2, 3)), 2)
    assert states(trials) == ["FAIL"] * 4 + ["COMPLETE"] * 2


def test_failures_that_are_all_alike_stop_the_search(database: Database, objective: Objective) -> None:
    opened, proposing = begun(database, objective)
    with pytest.raises(OptmergeError, match="3 trials in a row failed alike: no memory"):
        search(opened, proposing, stumbling(objective, at=tuple(range(9)), alike=True), 9)
    assert states(opened.study.trials) == ["FAIL"] * 3


def test_a_search_that_failures_stopped_goes_on_once_their_cause_is_mended(
    database: Database, objective: Objective
) -> None:
    opened, proposing = begun(database, objective)
    with pytest.raises(OptmergeError, match="failed alike"):
        search(opened, proposing, stumbling(objective, at=tuple(range(9)), alike=True), 9)
    assert states(search(opened, proposing, objective, 2)) == ["COMPLETE"] * 2
    with pytest.raises(OptmergeError, match="20 trials in a row failed alike"):
        search(opened, proposing, stumbling(objective, at=tuple(range(99)), alike=True), 50)


def test_a_candidate_that_cannot_be_run_leaves_what_is_known_of_it(database: Database, objective: Objective) -> None:
    class Mute:
        needs, device = "weights", "cpu"

        def mount(self, candidate: Any) -> None:
            pass

        def run(self, requests: Any) -> Any:
            raise OptmergeError("it says nothing")

    mute: Any = Mute()
    opened, proposing = begun(database, objective)
    with pytest.raises(OptmergeError, match="it says nothing"):
        search(opened, proposing, replace(objective, engine=mute), 1)
    facts = opened.study.trials[0].user_attrs
    assert facts[ERROR] == "it says nothing" and facts[PROBLEMS] == 0 and set(facts[SECONDS]) == {"merge"}
    assert facts[RECIPE] == objective.space.decode(opened.study.trials[0].params).sha256


@dataclass(frozen=True)
class Picky(Objective):
    """Cannot run genomes whose first gene is low, for a reason that is none of ours."""

    error: type[BaseException] = RuntimeError

    def __call__(self, slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        if float(next(iter(genome.values()))) < 0.9 and slot != (0, 0):
            raise self.error("out of memory")
        return super().__call__(slot, genome, ledger, report)


def picky(objective: Objective, error: type[BaseException]) -> Picky:
    parts = {name: getattr(objective, name) for name in Objective.__dataclass_fields__}
    return Picky(**parts, error=error)


@pytest.mark.parametrize("name", [name for name, _ in SAMPLERS])
def test_a_genome_that_fails_is_not_tried_again(database: Database, objective: Objective, name: str) -> None:
    trials = search(*begun(database, objective, name), picky(objective, RuntimeError), 8)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(counted(trials)) == 8
    assert failed
    assert {trial.user_attrs[ERROR] for trial in failed} == {"RuntimeError: out of memory"}
    assert len({str(trial.params) for trial in trials}) == len(trials)


# Interruptions


@pytest.mark.parametrize(("name", "settings"), SAMPLERS, ids=[name for name, _ in SAMPLERS])
def test_a_genome_that_was_interrupted_is_handed_back_and_tried_again(
    database: Database, objective: Objective, name: str, settings: dict[str, Any]
) -> None:
    opened, proposing = begun(database, objective, name, **settings)
    with pytest.raises(KeyboardInterrupt):
        search(opened, proposing, picky(objective, KeyboardInterrupt), 20)
    stopped = opened.study.trials[-1]
    assert (stopped.state, stopped.user_attrs) == (TrialState.FAIL, {ERROR: HANDED_BACK})
    again, *_ = search(opened, proposing, objective, len(opened.study.trials))
    assert (again.params, slot_of(again)) == (stopped.params, slot_of(stopped))


def test_an_interruption_is_heeded_though_the_trial_was_given_away(database: Database) -> None:
    proposing = proposer("random", ONE)
    opened = begin(database, proposing)

    def interrupted(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        database.reap(opened.study_id, lambda worker: True, DIED)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(opened, proposing, interrupted, 1)
    assert [trial.user_attrs[ERROR] for trial in opened.study.trials] == [DIED]


def test_a_worker_that_is_told_to_stop_finishes_its_trial_and_leaves(database: Database) -> None:
    proposing = proposer("random", ONE)
    opened = begin(database, proposing)

    def told(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        if slot.member == 2:
            database.set_control(opened.study_id, stop=True)
        return Outcome(TrialState.COMPLETE, 0.5, {})

    with pytest.raises(StoppedError, match="study mine was told to stop; run the search command again to go on"):
        search(opened, proposing, told, 9)
    assert states(opened.study.trials) == ["COMPLETE"] * 3
    assert states(search(opened, proposing, scored(near), 5)) == ["COMPLETE"] * 2


def test_a_larger_budget_is_heeded_at_once(database: Database) -> None:
    proposing = proposer("random", ONE)
    opened = begin(database, proposing)

    def growing(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        database.set_control(opened.study_id, trials=4)
        return Outcome(TrialState.COMPLETE, 0.5, {})

    assert len(search(opened, proposing, growing, 2)) == 4


def test_a_database_that_fails_ends_the_worker_and_blames_no_genome(database: Database) -> None:
    proposing = proposer("random", ONE)
    opened = begin(database, proposing)

    def failing(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        raise StorageError("the study database failed: database or disk is full")

    with pytest.raises(StorageError, match="disk is full"):
        search(opened, proposing, failing, 1)
    (trial,) = opened.study.trials
    assert trial.state == TrialState.RUNNING  # it is run again when its worker is known to be dead
    assert ERROR not in trial.user_attrs


# Racing


@dataclass(frozen=True)
class BeatsAfterOne:
    """Stops every trial that has a reference after a batch of one problem."""

    def batch_sizes(self, problems: int) -> list[int]:
        return [1] * problems

    def reference(self, survivors: Sequence[FinishedTrial], population: int) -> FinishedTrial | None:
        return survivors[0] if survivors else None

    def is_beaten(self, scores: Any, reference: Any, look: int) -> bool:
        return True

    def estimate(self, scores: Any, reference: Any) -> tuple[float, float]:
        return float(np.nanmean(scores)) - 1.0, 0.25


def test_a_beaten_trial_is_pruned_and_keeps_what_it_saw(database: Database, objective: Objective) -> None:
    proposing = proposer("cmaes", list(objective.space.genes))
    opened = begin(database, proposing, population=3)
    trials = search(opened, proposing, replace(objective, pruner=BeatsAfterOne()), 4)
    assert states(trials) == ["COMPLETE"] * 3 + ["PRUNED"]
    pruned = trials[3]
    scores = decode(pruned.user_attrs[SCORES]["near"])
    assert pruned.user_attrs[PROBLEMS] == 1 and int(np.isnan(scores).sum()) == 2
    assert pruned.user_attrs[ESTIMATE] == pytest.approx(np.nanmean(scores) - 1.0)
    assert list(pruned.intermediate_values) == [1]


@dataclass
class Watching:
    """Stops nobody, and remembers whom each trial raced."""

    raced: list[Any]

    def batch_sizes(self, problems: int) -> list[int]:
        return [problems - 1, 1]

    def reference(self, survivors: Sequence[FinishedTrial], population: int) -> FinishedTrial | None:
        return survivors[-1]

    def is_beaten(self, scores: Any, reference: Any, look: int) -> bool:
        if look == 1:
            self.raced.append(reference.tolist())
        return False

    def estimate(self, scores: Any, reference: Any) -> tuple[float, float]:
        raise AssertionError


@pytest.mark.parametrize(("lag", "raced"), [(0, [None] * 3 + [2] * 3 + [5] * 3), (1, [None] * 6 + [2] * 3)])
def test_a_trial_races_one_of_the_last_generation_that_all_of_its_own_know(
    database: Database, objective: Objective, lag: int, raced: list[int | None]
) -> None:
    proposing = proposer("cmaes", list(objective.space.genes))
    opened = begin(database, proposing, population=3, lag=lag)
    watching = Watching([])
    trials = search(opened, proposing, replace(objective, pruner=watching), 9)
    expected = [decode(trials[i].user_attrs[SCORES]["near"]).tolist() for i in raced if i is not None]
    assert watching.raced == expected


def test_where_nothing_need_be_waited_for_a_trial_races_one_of_the_last_generation_that_is_closed(
    database: Database, objective: Objective
) -> None:
    proposing = proposer("random", list(objective.space.genes))
    opened = begin(database, proposing, population=2)
    watching = Watching([])
    trials = search(opened, proposing, replace(objective, pruner=watching), 5)
    expected = [decode(trials[i].user_attrs[SCORES]["near"]).tolist() for i in (1, 1, 3)]
    assert watching.raced == expected


# Many workers


@pytest.mark.parametrize("name", ["cmaes", "random", "tpe"])
def test_workers_share_a_study_and_run_each_slot_once(url: str, name: str) -> None:
    inside = [replace(ONE[0], sigma=0.02)]  # no two genomes on the bound
    with connected(url) as database:
        begin(database, proposer(name, inside))

    def take_part() -> None:
        with opened_anew(url) as opened:
            search(opened, proposer(name, inside), scored(near), 24)

    threads = [threading.Thread(target=take_part) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened_anew(url) as opened:
        trials = opened.study.trials
        plan = opened.plan
    assert states(trials) == ["COMPLETE"] * 24
    assert sorted(map(slot_of, trials)) == [plan.slot(position) for position in range(24)]
    assert [trial.number for trial in trials] == list(range(24))


def test_the_late_result_of_a_worker_that_was_not_heard_of_does_not_count(file_url: str) -> None:
    """It hangs, its trial is given to another, and then it comes back with a result."""
    with connected(file_url) as database:
        begin(database, proposer("cmaes", ONE))
    hanging, over = threading.Event(), threading.Event()
    ran: dict[str, list[FrozenTrial]] = {}

    def hang(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        if not over.is_set():
            hanging.set()
            assert over.wait(30)
        return Outcome(TrialState.COMPLETE, 99.0, {})

    def slow() -> None:
        with opened_anew(file_url, beat=3600) as opened:  # as if its network were cut
            ran["slow"] = search(opened, proposer("cmaes", ONE), hang, 3)

    thread = threading.Thread(target=slow)
    thread.start()
    assert hanging.wait(30)
    with opened_anew(file_url, grace=0.5) as opened:
        time.sleep(1.5)  # SQLite's clock goes by the second
        ran["quick"] = search(opened, proposer("cmaes", ONE), scored(lambda genome: 0.5), 3)
        over.set()
        thread.join()
        trials = opened.study.trials
    assert ran["slow"] == []
    assert [(trial.number, trial.value) for trial in counted(trials)] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert (trials[0].state, trials[0].user_attrs[ERROR]) == (TrialState.FAIL, DIED)
    assert (trials[1].params, slot_of(trials[1])) == (trials[0].params, slot_of(trials[0]))


# Workers that died

WORKER = """
import sys, time
from optmerge.config import options_of
from optmerge.space.gene import Gene
from optmerge.study.charter import open_study
from optmerge.study.sampler import Sampler
from optmerge.study.storage import open_storage
from optmerge.study.worker import work

def hang(slot, genome, ledger, report):
    print("running", flush=True)
    time.sleep(600)

opened = open_study(open_storage(sys.argv[1]), "mine")
sampler = Sampler(*options_of("sampler", {"name": sys.argv[2]}, "optmerge.study.samplers"))
list(work(opened.study, opened.database, opened.plan, sampler.proposer([Gene("weight")], 0), hang))
"""


@pytest.fixture(params=["random", "cmaes"])
def sampler_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def worker(file_url: str, database: Database, sampler_name: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a trial."""
    opened = begin(database, proposer(sampler_name, ONE))
    search(opened, proposer(sampler_name, ONE), scored(near), 1)
    database.set_control(opened.study_id, trials=9)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, file_url, sampler_name], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_trial_of_a_killed_worker_ends_and_is_run_again_with_its_genome(
    file_url: str, worker: subprocess.Popen[str], sampler_name: str
) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    with opened_anew(file_url) as opened:
        assert reap(opened.study_id, opened.database) == 1
        lost = opened.study.trials[1]
        assert (lost.state, lost.user_attrs[ERROR]) == (TrialState.FAIL, DIED)
        again, *_ = search(opened, proposer(sampler_name, ONE), scored(near), 3)
        assert (again.params, slot_of(again)) == (lost.params, slot_of(lost))
        assert len(counted(opened.study.trials)) == 3


def test_a_killed_worker_that_nobody_has_waited_for_is_dead_too(file_url: str, worker: subprocess.Popen[str]) -> None:
    os.kill(worker.pid, signal.SIGKILL)  # it is a zombie now
    with opened_anew(file_url) as opened:
        deadline = time.monotonic() + 10
        while not reap(opened.study_id, opened.database):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_trial_of_a_living_worker_goes_on(file_url: str, worker: subprocess.Popen[str], sampler_name: str) -> None:
    with opened_anew(file_url) as opened:
        assert reap(opened.study_id, opened.database) == 0
        assert worker.poll() is None and opened.study.trials[1].state == TrialState.RUNNING
        other = next(work(opened.study, opened.database, opened.plan, proposer(sampler_name, ONE), scored(near)))
        assert slot_of(other) == (0, 2)


@pytest.mark.parametrize(
    ("changed", "dead"),
    [
        ({}, False),
        ({"started": 0.0}, True),  # its number was given to this process
        ({"pid": 2**22 + 1}, True),  # beyond the greatest number
        ({"pid": 2**22 + 1, "host": "elsewhere"}, False),  # of whom nothing is known
        ({"pid": 2**22 + 1, "numbers": "another container"}, False),
    ],
)
def test_only_workers_whose_numbers_mean_something_here_are_known_to_be_dead(
    changed: dict[str, Any], dead: bool
) -> None:
    assert is_dead({**this_worker(), **changed}) == dead


def test_a_worker_says_where_it_runs() -> None:
    me = this_worker()
    assert (me["host"], me["pid"]) == (socket.gethostname(), os.getpid())


def test_a_slot_whose_workers_always_die_is_given_up(database: Database) -> None:
    """A genome that kills its worker, such as by exhausted memory, must not kill them all."""
    proposing = proposer("cmaes", ONE)
    opened = begin(database, proposing, max_retries=2)
    study_id, died = opened.study_id, 0
    database.set_control(study_id, trials=4)

    def deadly(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        nonlocal died
        if slot == (0, 1):
            died += 1
            database.reap(study_id, lambda worker: True, DIED)
            raise TrialLostError  # as if this worker were gone
        return Outcome(TrialState.COMPLETE, near(genome), {})

    trials = list(work(opened.study, database, opened.plan, proposing, deadly))
    assert died == 3
    assert [tuple(slot_of(trial)) for trial in trials] == [(0, 0), (0, 2), (0, 3), (1, 0)]
    deaths = [trial for trial in opened.study.trials if trial.user_attrs.get(ERROR) == DIED]
    assert len({str(trial.params) for trial in deaths}) == 1


def test_trials_of_other_tools_are_left_alone(database: Database) -> None:
    proposing = proposer("random", ONE)
    opened = begin(database, proposing)
    opened.study.enqueue_trial({"weight": 0.5})
    opened.study.add_trial(optuna.trial.create_trial(value=9.0))
    trials = search(opened, proposing, scored(near), 3)
    assert [trial.number for trial in trials] == [2, 3, 4]
    assert states(opened.study.trials) == ["WAITING", "COMPLETE"] + ["COMPLETE"] * 3
    assert all(SLOT in trial.system_attrs for trial in trials)


def test_a_plan_outlives_its_search(file_url: str, database: Database) -> None:
    begin(database, proposer("cmaes", ONE), population=7, lag=1, max_retries=5, maximize=(False,))
    with opened_anew(file_url) as opened:
        assert opened.plan == Plan(population=7, lag=1, maximize=(False,), max_retries=5)
