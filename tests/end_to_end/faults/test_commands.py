"""Searches by several workers through the real command line, on the models of the quick zoo."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import sqlalchemy

from end_to_end.conftest import assert_one_message
from end_to_end.faults.crew import wait_until
from end_to_end.faults.proof import Finished, Place, Watch, account, by_slot, differences, trials_of
from end_to_end.faults.servers import PASSWORD, PostgreSQL
from end_to_end.studies import run_process
from optmerge.__main__ import run
from optmerge.study.launchers.launcher import URL
from optmerge.study.slots import WORKER
from optmerge.study.storage import open_storage

NAME, BUDGET, POPULATION = "demo-seed0", 8, 4


@pytest.fixture(scope="module")
def slow(small: list[str]) -> list[str]:
    """A search whose trials take long enough to be met in their middle: they answer one problem at a time."""
    one_by_one = ["engine.batch_size=1", "engine.threads=1", "task.max_new_tokens=16"]
    # By default both follow from the number of workers.
    generations = [f"sampler.population={POPULATION}", "sampler.pipeline=0"]
    return [*small, *one_by_one, *generations, f"study.trials={BUDGET}", "storage.beat=1"]


@pytest.fixture(scope="module")
def alone(slow: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that one worker has made without disturbance."""
    cwd = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run(slow) == 0
    return cwd


@pytest.fixture(scope="module")
def undisturbed_search(alone: Path) -> Mapping[Place, Finished]:
    return by_slot(trials_of(f"sqlite:///{alone / 'studies' / 'studies.db'}", NAME))


@dataclass(frozen=True)
class Ended:
    """A search that has ended, with whatever has happened to it.

    Attributes:
        url: Address of its database.
        folders: Where its processes ran.
        said: What they wrote, by who they were.
        statuses: With what they ended.
    """

    url: str
    folders: Sequence[Path]
    said: Mapping[str, str]
    statuses: Mapping[str, int]

    def check(self, undisturbed: Mapping[Place, Finished]) -> None:
        trials = trials_of(self.url, NAME)
        found = account(trials, BUDGET)
        assert (found.finished, found.doubled, found.running, found.failed, found.changed) == (BUDGET, 0, 0, 0, 0)
        assert differences(by_slot(trials), undisturbed) == []


def start(arguments: Sequence[str], cwd: Path, log: Path, url: str) -> "subprocess.Popen[bytes]":
    """`python -m optmerge ARGUMENTS`, which finds the database by the environment alone."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "optmerge", *arguments],
            cwd=cwd,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200", URL: url},
        )


def database(postgresql: PostgreSQL, name: str) -> tuple[str, Watch]:
    """The address of an empty database with its tables."""
    url = postgresql.create_database(name)
    open_storage(url).engine.dispose()
    return url, Watch(url)


@pytest.fixture(scope="module")
def crewed(slow: list[str], postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A search by two workers, one of which was killed in the middle of a trial, and then the server too.

    The worker that is started instead finds no server.
    """
    cwd = tmp_path_factory.mktemp("crewed")
    url, watch = database(postgresql, "crewed")
    log = cwd / "search.log"
    search = start([*slow, "launcher=local", "launcher.workers=2", "tracking=mlflow"], cwd, log, url)
    with contextlib.ExitStack() as stack:
        stack.callback(search.kill)
        wait_until(lambda: watch.finished() >= 2, "some trials", log.read_text)
        workers = children(search)
        wait_until(lambda: kill_in_the_middle(watch), "a trial")
        wait_until(lambda: children(search) - workers, "another worker", log.read_text)
        postgresql.kill()
        wait_until(lambda: "cannot open this database" in workers_said(cwd), "a worker that finds no server")
        postgresql.start()
        wait_until(lambda: search.poll() is not None, "the end of the search", log.read_text)
    return Ended(url, [cwd], {"search": log.read_text()}, {"search": search.returncode})


def children(process: "subprocess.Popen[bytes]") -> set[int]:
    return {child.pid for child in psutil.Process(process.pid).children()}


def workers_said(cwd: Path) -> str:
    """What the workers that a search has started wrote."""
    return "".join(log.read_text() for log in sorted((cwd / "studies" / NAME / "workers").glob("*.log")))


def kill_in_the_middle(watch: Watch) -> bool:
    """Kill a worker that has a trial; says whether it still had when it was."""
    for worker in watch.at_work():
        os.kill(worker, signal.SIGSTOP)
        if worker in watch.at_work():
            os.kill(worker, signal.SIGKILL)
            return True
        os.kill(worker, signal.SIGCONT)
    return False


def test_search_goes_on_when_a_worker_is_killed_and_the_server_restarted(crewed: Ended) -> None:
    assert crewed.statuses == {"search": 0}, crewed.said
    assert account(trials_of(crewed.url, NAME), BUDGET).died == 1


def test_search_by_two_workers_finds_what_one_finds(
    crewed: Ended, undisturbed_search: Mapping[Place, Finished], alone: Path
) -> None:
    crewed.check(undisturbed_search)
    ours, theirs = (
        json.loads((folder / "studies" / NAME / "result.json").read_text()) for folder in (crewed.folders[0], alone)
    )
    assert ours["winner"]["weights_sha256"] == theirs["winner"]["weights_sha256"]


@pytest.fixture(scope="module")
def joined(slow: list[str], postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A search that another worker joined from an empty folder, that was looked at, stopped, and started again."""
    cwd, elsewhere = tmp_path_factory.mktemp("joined"), tmp_path_factory.mktemp("elsewhere")
    url, watch = database(postgresql, "joined")
    logs = {"search": cwd / "search.log", "worker": elsewhere / "worker.log"}
    said = {}
    with contextlib.ExitStack() as stack:
        search = start([*slow, "storage.grace=600"], cwd, logs["search"], url)
        stack.callback(search.kill)
        wait_until(watch.at_work, "a trial", logs["search"].read_text)
        search.send_signal(signal.SIGSTOP)  # it does not finish the study while the worker starts
        worker = start(["worker", f"study.name={NAME}"], elsewhere, logs["worker"], url)
        stack.callback(worker.kill)
        wait_until(lambda: "trial" in logs["worker"].read_text(), "a trial elsewhere", logs["worker"].read_text)
        search.send_signal(signal.SIGCONT)
        for command in ("status", "stop"):
            said[command] = look(command, url)
        wait_until(lambda: search.poll() is not None and worker.poll() is not None, "a stop")
    said |= {who: log.read_text() for who, log in logs.items()}
    said["stopped status"] = look("status", url)
    again = run_process(*slow, cwd=cwd, **{URL: url})
    said["again"] = again.stdout + again.stderr
    statuses = {"search": search.returncode, "worker": worker.returncode, "again": again.returncode}
    return Ended(url, [cwd, elsewhere], said, statuses)


def look(command: str, url: str) -> str:
    """What a command says that knows no more than the database."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setenv(URL, url)
        assert run([command, f"study.name={NAME}"]) == 0
    return said.getvalue()


def test_worker_that_knows_only_the_database_joins_a_search(joined: Ended) -> None:
    assert joined.statuses["worker"] == 0, joined.said["worker"]
    *_, last = joined.said["worker"].splitlines()
    assert re.fullmatch(rf"left study {NAME} after [1-9]\d* trials", last)
    workers = {trial.system_attrs[WORKER]["pid"] for trial in trials_of(joined.url, NAME)}
    assert len(workers) == 3  # the search, the worker, and the search that went on


def test_status_shows_the_workers_of_a_running_search(joined: Ended) -> None:
    first, *rest = joined.said["status"].splitlines()
    assert re.fullmatch(rf"Study {NAME}: running, \d+ of {BUDGET} trials", first)
    assert sum(f"{socket.gethostname()}:" in line for line in rest) in (1, 2)  # one may be between two trials


def test_stop_lets_workers_finish_and_leave(joined: Ended) -> None:
    assert "will finish the trial at hand and leave" in joined.said["stop"]
    assert joined.statuses["search"] == 0
    assert f"study {NAME} was told to stop; run the search command again to go on" in joined.said["search"]
    assert "was told to stop" in joined.said["worker"]
    assert f"Study {NAME}: stopped" in joined.said["stopped status"]
    assert account(trials_of(joined.url, NAME), BUDGET).handed_back == 0


def test_stopped_search_is_finished_by_the_command_that_started_it(
    joined: Ended, undisturbed_search: Mapping[Place, Finished]
) -> None:
    assert joined.statuses["again"] == 0, joined.said["again"]
    joined.check(undisturbed_search)


def test_worker_with_other_problems_is_refused(
    alone: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = (zoo / "problems" / "search.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    other = tmp_path / "search.jsonl"
    other.write_text("".join(problems[:-1]), encoding="utf-8")
    url = f"sqlite:///{alone / 'studies' / 'studies.db'}"
    status = run(["worker", f"study.name={NAME}", f"storage.url={url}", f"task.search.path={other}"])
    message = capsys.readouterr().err
    assert status == 2
    assert_one_message(message)
    assert "task.search" in message and " was " in message and " now " in message


@pytest.mark.parametrize("scenario", ["crewed", "joined"])
def test_password_of_the_database_is_written_nowhere(scenario: str, request: pytest.FixtureRequest) -> None:
    ended: Ended = request.getfixturevalue(scenario)
    assert f":{PASSWORD}@" in ended.url
    written = [path for folder in ended.folders for path in folder.rglob("*") if path.is_file()]
    kinds = {path.name for path in written} | {path.suffix for path in written}
    assert kinds >= {"result.json", "recipe.yaml", "search.log"}
    assert scenario != "crewed" or kinds >= {"mlflow.db", "worker-0.log", ".safetensors"}
    assert [path for path in written if PASSWORD.encode() in path.read_bytes()] == []
    assert [who for who, text in ended.said.items() if PASSWORD in text] == []
    assert PASSWORD not in dump(ended.url)


def dump(url: str) -> str:
    """All that a database holds."""
    engine = sqlalchemy.create_engine(url)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = [row for table in tables.tables.values() for row in connection.execute(sqlalchemy.select(table))]
    engine.dispose()
    assert rows
    return repr(rows)


def test_server_that_is_away_is_told_without_its_password(
    joined: Ended, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL, joined.url)
    postgresql.shut_down()
    try:
        statuses = [run([command, f"study.name={NAME}"]) for command in ("status", "stop", "worker")]
    finally:
        postgresql.start()
    written = capsys.readouterr()
    assert statuses == [2, 2, 2]
    assert written.err.count("cannot open this database") == 3
    assert PASSWORD not in written.out + written.err
