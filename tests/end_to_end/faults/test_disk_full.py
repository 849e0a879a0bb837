"""A disk that is full: the search stops and says so, nothing is corrupt, and it goes on when there is room."""

import json
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from end_to_end.conftest import assert_one_message
from end_to_end.faults.conftest import Founder
from end_to_end.faults.crew import wait_until
from end_to_end.faults.proof import is_finished
from end_to_end.studies import DATABASE, mounted_disk, trials
from optmerge.__main__ import run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 MB: so much has to be free where a search writes its results."""
    with mounted_disk(tmp_path / "disk", "160m") as disk:
        yield disk


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte; gives the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return filler
    raise AssertionError("a disk that is never full")


def test_full_disk_under_the_database_stops_the_workers_and_corrupts_nothing(disk: Path, founder: Founder) -> None:
    study = founder(f"sqlite:///{disk / 'studies.db'}", 60)
    workers = study.crew.start_many(3)
    wait_until(lambda: study.watch.finished() >= 12, "some trials")
    filler = fill(disk)
    study.crew.wait()
    for worker in workers:
        assert worker.status() == 1, worker.says()
        assert "optmerge: the study database failed: database or disk is full" in worker.says()
        assert "Traceback" not in worker.says()
    filler.unlink()
    with closing(sqlite3.connect(disk / "studies.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    study.crew.start_many(3)
    study.crew.wait()
    study.check()


@pytest.mark.parametrize(
    ("tracking", "reason"),
    [
        ("none", "writing needs .* are free"),
        ("mlflow", "MLflow failed: (database or disk is full|.*No space left on device)"),
    ],
    ids=["none", "mlflow"],
)
def test_full_disk_under_the_results_stops_the_search_which_goes_on_when_there_is_room(
    disk: Path, small: list[str], here: Path, tracking: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*small, f"study.folder={disk / 'studies'}", f"storage.url=sqlite:///{here / DATABASE}"]
    command += [f"tracking={tracking}", "study.trials=4", "engine.batch_size=1", "task.max_new_tokens=16"]
    with ThreadPoolExecutor() as beside:
        filler = beside.submit(fill_at_the_second_trial, disk, here / DATABASE)
        status = run(command)
    message = capsys.readouterr().err
    assert status != 0
    assert_one_message(message)
    assert re.search(reason, message)
    filler.result().unlink()
    before = [trial for trial in trials(here) if is_finished(trial)]
    assert run(command) == 0
    assert before and [trial for trial in trials(here) if is_finished(trial)][: len(before)] == before
    result = json.loads((disk / "studies" / "demo-seed0" / "result.json").read_text(encoding="utf-8"))
    assert result["trials"] == {"complete": 4, "pruned": 0, "failed": 0}


def fill_at_the_second_trial(disk: Path, database: Path) -> Path:
    wait_until(lambda: len(taken(database)) > 1, "the second trial")
    return fill(disk)


def taken(database: Path) -> list[int]:
    """The trials that a search has taken; its database may not be there yet."""
    if not database.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM trials")]
    except sqlite3.OperationalError:  # no tables yet
        return []
