"""A database or disk that cannot hold the study is refused before anything starts, and no password is printed."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from end_to_end.conftest import Refuse, assert_one_message
from end_to_end.studies import mounted_disk
from optmerge.__main__ import run

PASSWORD = "sesame"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/studies",
        f"postgresql+nosuchdriver://me:{PASSWORD}@127.0.0.1:1/studies",
        f"nosuchdatabase://me:{PASSWORD}@127.0.0.1:1/studies",
    ],
)
def test_database_that_cannot_be_reached_is_refused_without_its_password(refuse: Refuse, url: str) -> None:
    message = refuse(f"storage.url={url}")
    assert "storage.url" in message and "cannot open this database" in message
    assert PASSWORD not in message


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql//me:{PASSWORD}@127.0.0.1/studies",  # no colon
        f"postgresql://me:{PASSWORD}@127.0.0.1:port/studies",
        f"me:{PASSWORD}@127.0.0.1",
        f"postgresql://me:open@{PASSWORD}@127.0.0.1/studies",  # an @ that is not written %40
        f"postgresql://me:open@the/{PASSWORD}@127.0.0.1/studies",
        f"postgresql://me:open,{PASSWORD}@127.0.0.1/studies",  # a list, to Hydra
    ],
)
def test_malformed_url_is_refused_without_its_password(refuse: Refuse, url: str) -> None:
    message = refuse(f"storage.url={url}")
    assert "storage.url" in message
    assert PASSWORD not in message


def test_file_that_is_no_database_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "moon.db").write_text("This is not a database. " * 100)
    message = refuse(f"storage.url=sqlite:///{tmp_path / 'moon.db'}")
    assert "storage.url" in message and "moon.db" in message


@pytest.mark.parametrize("command", ["status", "stop", "worker", "fork", "report", "dashboard"])
def test_commands_that_find_a_study_make_no_database(
    here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run([command, "study.name=mine"]) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    assert "studies.db: there is no such file; run a search first" in message
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("uri", [f"postgresql://me:{PASSWORD}@127.0.0.1:1/runs", f"nosuchdatabase://me:{PASSWORD}@h/r"])
def test_tracking_that_cannot_be_reached_is_refused_without_its_password(refuse: Refuse, uri: str) -> None:
    message = refuse("tracking=mlflow", f"tracking.uri={uri}")
    assert "tracking.uri" in message
    assert PASSWORD not in message


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, which is less than a model of the quick zoo takes."""
    with mounted_disk(tmp_path / "disk", "64k") as disk:
        yield disk


def test_disk_without_room_for_the_result_is_refused(
    small: list[str], here: Path, tiny_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{here / 'elsewhere.db'}"
    status = run([*small, f"study.folder={tiny_disk / 'studies'}", f"storage.url={url}"])
    message = capsys.readouterr().err
    assert (status, message.count("\n")) == (2, 1), message
    assert "kB are free" in message and "study.folder" in message
    assert list(tiny_disk.iterdir()) == []
    assert optuna.get_all_study_names(url) == []
