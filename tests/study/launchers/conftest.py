"""Studies on the quick zoo, for workers in processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from optmerge.commands.assembly import assemble, find_plugins
from optmerge.commands.search import create_study, open_database
from optmerge.config import compose_config
from optmerge.study.launchers.launcher import Job
from study.launchers.searches import NAME


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What these tests remember of checkpoints does not stay in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small(zoo: Path) -> list[str]:
    """A search on the ready zoo that is over soon."""
    return [
        "models.maker=null",
        f"models.folder={zoo}",
        "space=model",
        "tracking=none",
        f"study.name={NAME}",
        "study.finalists=1",
        "study.baselines=false",
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def endless(here: Path, small: list[str]) -> Job:
    """A study that needs more trials than a test can wait for."""
    config = compose_config([*small, "study.trials=100000"])
    database = open_database(config)
    opened = create_study(assemble(config, find_plugins(config), lambda text: None), database)
    database.set_control(opened.study_id, trials=config.study.trials, stagnation=None, stop=False)
    database.remove_session()
    database.engine.dispose()
    return Job(NAME, config.storage.url, [f"study.folder={config.study.folder}"], here / "studies" / NAME)
