"""A study as it lies on disk, and the command line in a process of its own."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import SCORES

DATABASE = Path("studies/studies.db")


@contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own, for as long as the context lasts; skips the test where mounting is not allowed."""
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield folder
    finally:
        # Lazily: who wrote to it in this process may keep a file open.
        subprocess.run(["umount", "--lazy", folder], check=True)


@dataclass(frozen=True)
class Search:
    """A finished search: the folder that it ran in, its overrides, and what it printed.

    Attributes:
        cwd: Where it ran.
        overrides: What it was told.
        printed: Its standard output.
        name: Of its study.
    """

    cwd: Path
    overrides: tuple[str, ...]
    printed: str
    name: str = "demo-seed0"

    @property
    def folder(self) -> Path:
        return self.cwd / "studies" / self.name

    @property
    def recipe(self) -> Path:
        return self.folder / "best" / "recipe.yaml"

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        return found

    def trials(self) -> list[FrozenTrial]:
        return trials(self.cwd, self.name)

    def scores(self) -> dict[int, Any]:
        """What every trial scored on every problem, as one query gives it."""
        database = open_storage(f"sqlite:///{self.cwd / DATABASE}")
        try:
            return database.attributes(database.get_study_id_from_name(self.name), SCORES)
        finally:
            database.engine.dispose()

    def copied_to(self, cwd: Path) -> "Search":
        """The same search in another folder, where it can be changed."""
        shutil.copytree(self.cwd, cwd, dirs_exist_ok=True)
        return Search(cwd, self.overrides, self.printed, self.name)


def trials(cwd: Path, name: str = "demo-seed0") -> list[FrozenTrial]:
    """All trials of a study, without the files that its finalists are given when it ends."""
    storage = RDBStorage(f"sqlite:///{cwd / DATABASE}")
    try:
        found = storage.get_all_trials(storage.get_study_id_from_name(name))
        for trial in found:
            kept = {key: value for key, value in trial.system_attrs.items() if not key.startswith("artifacts:")}
            trial._system_attrs = kept
        return found
    finally:
        storage.remove_session()
        storage.engine.dispose()


def values(trials: list[FrozenTrial]) -> list[tuple[str, Mapping[str, Any], float | None]]:
    """What must be equal where trials are the same: state, genome and value."""
    return [(trial.state.name, trial.params, trial.value) for trial in trials]


def is_at_work(database: Path, number: int) -> bool:
    """Whether a process has taken the trial of that number and is running it now.

    Args:
        database: It may not be there yet, and a search may be writing to it.
        number: Of the trial.
    """
    query = "SELECT count(*) FROM trials WHERE number = ? AND state = 'RUNNING'"
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
            return bool(connection.execute(query, [number]).fetchone()[0])
    except sqlite3.OperationalError:  # no tables yet
        return False


def started(cwd: Path) -> list[str]:
    """Every sign that a search was started in a folder: studies in the database, folders of studies."""
    found = [path.name for path in (cwd / "studies").glob("[!.]*") if path.is_dir()]
    if (cwd / DATABASE).exists():
        with closing(sqlite3.connect(cwd / DATABASE)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if "studies" in tables:
                found += [name for (name,) in connection.execute("SELECT study_name FROM studies")]
    return found


def run_process(
    *arguments: str, cwd: Path, timeout: float = 180, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m optmerge ARGUMENTS` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "optmerge", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
