"""A search that is killed or interrupted goes on with the same command, and loses at most the running trial."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from end_to_end.studies import DATABASE, Search, is_at_work, trials, values
from optmerge.__main__ import run
from optmerge.study.slots import counted

BUDGET = 5


@dataclass(frozen=True)
class Stopped:
    """A search that a signal stopped, and what became of it after the same command was given again.

    Attributes:
        status: Exit status of the stopped process.
        message: Its standard error.
        trials: The study's trials when it had stopped.
        resumed: Exit status of the second run.
        search: The search as the second run left it.
    """

    status: int
    message: str
    trials: list[FrozenTrial]
    resumed: int
    search: Search

    def winner(self) -> int:
        """The winner's number, which others than the winner's slot decide."""
        return int(self.search.result()["winner"]["trial"])


@pytest.fixture(scope="module")
def stop(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[signal.Signals], Stopped]:
    """Stops a search in the middle of a trial by a signal, and resumes it."""

    def stop(sent: signal.Signals) -> Stopped:
        cwd = tmp_path_factory.mktemp("stopped")
        # One problem at a time, so that a trial takes long enough to be met in its middle.
        overrides = (*small, f"study.trials={BUDGET}", "engine.batch_size=1", "pruner=none")
        process = subprocess.Popen(
            [sys.executable, "-m", "optmerge", *overrides],
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background ignores ctrl-C, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_for_third_trial(process, cwd / DATABASE)
            process.send_signal(sent)
            _, message = process.communicate(timeout=60)
        finally:
            process.kill()
        left = trials(cwd)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            resumed = run(overrides)
        return Stopped(process.returncode, message, left, resumed, Search(cwd, overrides, ""))

    return stop


def wait_for_third_trial(process: subprocess.Popen[str], database: Path) -> None:
    """Return when two trials are finished and the third is at work."""
    deadline = time.monotonic() + 120
    while not is_at_work(database, number=2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Search:
    """The same search, which nobody stopped."""
    cwd = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run([*small, f"study.trials={BUDGET}", "engine.batch_size=1", "pruner=none"]) == 0
    return Search(cwd, (), "")


@pytest.fixture(scope="module")
def killed(stop: Callable[[signal.Signals], Stopped]) -> Stopped:
    return stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def interrupted(stop: Callable[[signal.Signals], Stopped]) -> Stopped:
    return stop(signal.SIGINT)


def names(trials: list[FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def test_killed_search_is_resumed_by_the_same_command(killed: Stopped) -> None:
    assert (killed.status, killed.resumed) == (-signal.SIGKILL, 0)


def test_trial_that_ran_when_the_search_was_killed_is_marked_failed(killed: Stopped) -> None:
    assert names(killed.trials) == ["COMPLETE", "COMPLETE", "RUNNING"]
    lost = killed.search.trials()[2]
    assert (lost.state.name, lost.user_attrs["error"]) == ("FAIL", "its worker died")


def test_genome_that_ran_when_the_search_was_killed_is_run_again(killed: Stopped) -> None:
    lost, again = killed.search.trials()[2:4]
    assert again.params == lost.params
    assert again.system_attrs["optmerge:slot"] == lost.system_attrs["optmerge:slot"]


@pytest.mark.parametrize("sent", ["killed", "interrupted"])
def test_search_that_was_stopped_finds_what_it_would_have_found_otherwise(
    request: pytest.FixtureRequest, sent: str, whole: Search
) -> None:
    stopped: Stopped = request.getfixturevalue(sent)
    assert values(counted(stopped.search.trials())) == values(whole.trials())
    assert stopped.search.result()["winner"] == {**whole.result()["winner"], "trial": stopped.winner()}


def test_trials_before_the_kill_are_kept_as_they_were(killed: Stopped) -> None:
    assert killed.search.trials()[:2] == killed.trials[:2]


def test_budget_is_met_exactly_after_a_kill(killed: Stopped) -> None:
    assert names(killed.search.trials()) == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * (BUDGET - 2)
    assert killed.search.result()["trials"] == {"complete": BUDGET, "pruned": 0, "failed": 0}


def test_interrupted_search_ends_with_one_line_that_says_how_to_go_on(interrupted: Stopped) -> None:
    assert interrupted.status == 1
    assert interrupted.message.count("\n") == 1, interrupted.message
    assert interrupted.message.startswith("optmerge: interrupted")
    assert "run the same command again" in interrupted.message


def test_trial_that_ran_when_the_search_was_interrupted_is_not_left_running(interrupted: Stopped) -> None:
    assert names(interrupted.trials) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert interrupted.trials[2].user_attrs["error"] == "its worker was told to stop"


def test_interrupted_search_is_resumed_by_the_same_command(interrupted: Stopped) -> None:
    assert interrupted.resumed == 0
    assert interrupted.search.trials()[:3] == interrupted.trials
    assert interrupted.search.trials()[3].params == interrupted.trials[2].params
    assert interrupted.search.result()["trials"] == {"complete": BUDGET, "pruned": 0, "failed": 0}
