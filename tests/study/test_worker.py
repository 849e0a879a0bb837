"""The search on a real space: its trials, how it goes on, and what it does with failures."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optmerge.config import options_of
from optmerge.errors import OptmergeError
from optmerge.space import Gene
from optmerge.study.objective import Objective
from optmerge.study.search import Sampler, fail_trials_of_dead_workers, finished, search
from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import ERROR, PROBLEMS, RECIPE, SCORES, SECONDS, decode


def sampler(name: str, **settings: Any) -> Sampler:
    return Sampler(*options_of("sampler", {"name": name, **settings}, "optmerge.study.samplers"))


def open_study(folder: Path) -> optuna.Study:
    """The study as another process would open it."""
    storage = open_storage(f"sqlite:///{folder / 'studies.db'}")
    return optuna.create_study(study_name="mine", storage=storage, direction="maximize", load_if_exists=True)


def genomes(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in study.trials]


def test_a_trial_leaves_everything_behind(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    (trial,) = search(study, objective, sampler("random"), 1)
    facts = trial.user_attrs
    scores = decode(facts[SCORES]["near"])
    assert facts[RECIPE] == objective.space.decode(trial.params).sha256
    assert facts[PROBLEMS] == len(scores) == 3
    assert trial.value == pytest.approx(scores.mean())
    assert set(facts[SECONDS]) == {"merge", "generate", "score"}


def test_scores_are_those_of_the_candidate(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    *_, trial = search(study, objective, sampler("random"), 3)
    candidate = objective.workbench.candidate(objective.space.decode(trial.params))
    size = sum(float(tensor.square().sum()) for _, tensor in candidate.tensors()) ** 0.5
    expected = [1 / (1 + abs(size - wanted)) for wanted in (10.0, 12.0, 14.0)]
    np.testing.assert_allclose(decode(trial.user_attrs[SCORES]["near"]), expected)


@pytest.mark.parametrize(("name", "settings"), [("random", {}), ("tpe", {"startup_trials": 2}), ("cmaes", {})])
def test_a_resumed_search_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, objective: Objective, name: str, settings: dict[str, Any]
) -> None:
    whole = optuna.create_study(direction="maximize")
    list(search(whole, objective, sampler(name, **settings), 14))
    for budget in (3, 9, 14):
        list(search(open_study(tmp_path), objective, sampler(name, **settings), budget))
    assert genomes(open_study(tmp_path)) == genomes(whole)


def test_a_spent_budget_runs_nothing(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    list(search(study, objective, sampler("random"), 2))
    assert list(search(study, objective, sampler("random"), 2)) == []


@dataclass(frozen=True)
class Stumbling(Objective):
    """Fails at some trials, each time for a reason of its own or always the same."""

    at: tuple[int, ...] = ()
    alike: bool = False

    def __call__(self, trial: optuna.Trial, genome_index: int) -> float:
        if trial.number in self.at:
            raise OptmergeError("no memory" if self.alike else f"bad luck {trial.number}")
        return super().__call__(trial, genome_index)


def stumbling(objective: Objective, **changes: Any) -> Stumbling:
    parts = {name: getattr(objective, name) for name in Objective.__dataclass_fields__}
    return Stumbling(**parts, **changes)


def test_a_trial_that_fails_is_kept_with_its_reason_and_does_not_count(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    list(search(study, stumbling(objective, at=(1,)), sampler("random"), 3))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].user_attrs[ERROR] == "bad luck 1"


def test_a_search_goes_on_through_failures_of_several_kinds(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    list(search(study, stumbling(objective, at=(0, 1, 2, 3)), sampler("random"), 2))
    assert len(finished(study)) == 2


def test_failures_that_are_all_alike_stop_the_search(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    with pytest.raises(OptmergeError, match="3 trials in a row failed alike: no memory"):
        list(search(study, stumbling(objective, at=tuple(range(9)), alike=True), sampler("random"), 9))
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3


@dataclass(frozen=True)
class BeatsAfterOne:
    """Stops every trial but the first after a batch of one problem."""

    def batch_sizes(self, problems: int) -> list[int]:
        return [1] * problems

    def is_beaten(self, scores: Any, finished: Any, look: int) -> bool:
        return bool(finished)


def test_a_beaten_trial_is_pruned_and_keeps_what_it_saw(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    list(search(study, replace(objective, pruner=BeatsAfterOne()), sampler("random"), 2))
    pruned = study.trials[1]
    assert pruned.state == TrialState.PRUNED and pruned.user_attrs[PROBLEMS] == 1
    assert int(np.isnan(decode(pruned.user_attrs[SCORES]["near"])).sum()) == 2


def test_problems_come_in_an_order_of_the_trials_own(objective: Objective) -> None:
    orders = {tuple(i for batch in objective._batches(30, index) for i in batch) for index in range(5)}
    assert len(orders) == 5 and all(sorted(order) == list(range(30)) for order in orders)


WORKER = """
import sys, time
import optuna
from optmerge.config import options_of
from optmerge.space import Gene
from optmerge.study.search import Sampler, search
from optmerge.study.storage import open_storage

class Hanging:
    seed = 0
    class space:
        genes = [Gene("weight")]
    def __call__(self, trial, index):
        print("running", flush=True)
        time.sleep(600)

study = optuna.create_study(study_name="mine", storage=open_storage(sys.argv[1]), direction="maximize")
list(search(study, Hanging(), Sampler(*options_of("sampler", {"name": "random"}, "optmerge.study.samplers")), 1))
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a trial."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    process = subprocess.Popen([sys.executable, "-c", WORKER, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    yield process
    process.kill()
    process.communicate()


def test_the_trial_of_a_killed_worker_ends(tmp_path: Path, worker: subprocess.Popen[str]) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    fail_trials_of_dead_workers(open_study(tmp_path))
    (trial,) = open_study(tmp_path).trials
    assert (trial.state, trial.user_attrs[ERROR]) == (TrialState.FAIL, "its process died")


def test_the_trial_of_a_living_worker_goes_on(tmp_path: Path, worker: subprocess.Popen[str]) -> None:
    fail_trials_of_dead_workers(open_study(tmp_path))
    (trial,) = open_study(tmp_path).trials
    assert worker.poll() is None and trial.state == TrialState.RUNNING


def test_genes_reach_the_recipe(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    (trial,) = search(study, objective, sampler("random"), 1)
    genes: list[Gene] = list(objective.space.genes)
    assert trial.params == {gene.name: gene.start() for gene in genes}


@dataclass(frozen=True)
class Picky(Objective):
    """Cannot run genomes whose first gene is low, for a reason that is none of ours."""

    error: type[BaseException] = RuntimeError

    def __call__(self, trial: optuna.Trial, genome_index: int) -> float:
        if next(iter(trial.params.values())) < 0.5 and genome_index > 0:
            raise self.error("out of memory")
        return super().__call__(trial, genome_index)


def picky(objective: Objective, error: type[BaseException]) -> Picky:
    parts = {name: getattr(objective, name) for name in Objective.__dataclass_fields__}
    return Picky(**parts, error=error)


@pytest.mark.parametrize("name", ["random", "tpe", "nsgaii", "cmaes"])
def test_a_genome_that_fails_is_not_tried_again(objective: Objective, name: str) -> None:
    study = optuna.create_study(direction="maximize")
    list(search(study, picky(objective, RuntimeError), sampler(name), 8))
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert len(finished(study)) == 8
    assert failed
    assert {trial.user_attrs[ERROR] for trial in failed} == {"RuntimeError: out of memory"}
    assert len({str(trial.params) for trial in study.trials}) == len(study.trials)


def test_a_genome_that_was_interrupted_is_tried_again(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    with pytest.raises(KeyboardInterrupt):
        list(search(study, picky(objective, KeyboardInterrupt), sampler("random"), 20))
    stopped = study.trials[-1]
    assert (stopped.state, stopped.user_attrs[ERROR]) == (TrialState.FAIL, "interrupted")
    list(search(study, objective, sampler("random"), len(finished(study)) + 1))
    assert study.trials[-1].params == stopped.params


def test_a_genome_that_the_user_enqueued_is_tried(objective: Objective) -> None:
    study = optuna.create_study(direction="maximize")
    wanted = {gene.name: 0.25 for gene in objective.space.genes}
    study.enqueue_trial(wanted)
    list(search(study, objective, sampler("random"), 1))
    assert study.trials[0].params == wanted
