"""What is known of a search from its folder."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from end_to_end.studies import DATABASE, trials
from optuna.trial import TrialState

from optmerge.study.slots import ERROR, WORKER, slot_of

Found = TypeVar("Found")
NAME = "mine"
_LONG = 120.0  # seconds that something may take which takes ten on an idle machine


def wait_for(what: Callable[[], Found]) -> Found:
    """Look again and again until something is found, or true."""
    until = time.monotonic() + _LONG
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited for {_LONG:.0f} seconds in vain")


def workers_at_work(cwd: Path) -> set[int]:
    """Process numbers of the workers that are running a trial now."""
    query = "SELECT value_json FROM trials JOIN trial_system_attributes USING (trial_id) WHERE state = ? AND key = ?"
    return {json.loads(text)["pid"] for (text,) in _ask(cwd, query, "RUNNING", WORKER)}


def finished(cwd: Path) -> int:
    """How many trials are complete or pruned."""
    return len(_ask(cwd, "SELECT 1 FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"))


def _ask(cwd: Path, query: str, *values: str) -> list[tuple[str]]:
    """Ask the database of a search, which may not be there yet, without writing to it."""
    try:
        with closing(sqlite3.connect(f"file:{cwd / DATABASE}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError:
        return []


def errors(cwd: Path) -> set[str]:
    """Why trials failed."""
    return {str(trial.user_attrs.get(ERROR)) for trial in trials(cwd, NAME) if trial.state == TrialState.FAIL}


def assert_done_once(cwd: Path, budget: int) -> None:
    """All trials of a search are done, each once, and a worker has written the result."""
    found = trials(cwd, NAME)
    done = [trial for trial in found if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(done) == len({slot_of(trial) for trial in done}) == budget
    assert not [trial for trial in found if not trial.state.is_finished()]
    folder = cwd / "studies" / NAME
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["trials"]["complete"] + result["trials"]["pruned"] == budget
    assert "scoring test: winner" in (folder / "workers" / "worker-0.log").read_text(encoding="utf-8")
