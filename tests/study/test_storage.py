"""The database that holds studies."""

import importlib.util
import sqlite3
import threading
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from optmerge.errors import UsageError
from optmerge.study.storage import open_storage


def test_folder_and_tables_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "studies.db"
    optuna.create_study(study_name="mine", storage=open_storage(f"sqlite:///{path}"))
    assert optuna.get_all_study_names(open_storage(f"sqlite:///{path}")) == ["mine"]


def test_sqlite_writes_ahead(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    storage = open_storage(f"sqlite:///{path}")
    with storage.engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"


def test_a_waiting_trial_is_taken_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = optuna.create_study(study_name="mine", storage=open_storage(url))
    for i in range(10):
        study.enqueue_trial({"x": i})
    taken: list[int] = []

    def take() -> None:
        own = optuna.load_study(study_name="mine", storage=open_storage(url))
        taken.extend(own.ask().number for _ in range(5))

    workers = [threading.Thread(target=take) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken) == list(range(10))


def test_a_file_that_is_no_database_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and they are long enough to be taken for a header " * 9)
    with pytest.raises(UsageError, match="cannot open this database: file is not a database"):
        open_storage(f"sqlite:///{path}")


def test_a_database_of_another_program_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('1b5f0d9ad7c1')")
    with pytest.raises(UsageError, match="cannot open this database"):
        open_storage(f"sqlite:///{path}")


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make the folder"):
        open_storage(f"sqlite:///{tmp_path / 'file' / 'below' / 'studies.db'}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("studies.db", "storage.url is not a database URL"),
        ("", "storage.url is not a database URL"),
        ("postgresql//user:secret@host/db", "storage.url is not a database URL"),
        ("postgresql://user:secret@host:port/db", "storage.url is not a database URL"),
        ("nonsuch://user:secret@host/db", r"storage.url=nonsuch://user:\*\*\*@host/db: cannot open this database"),
        ("postgresql+nonsuch://user:secret@host/db", "cannot open this database"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line_without_the_password(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_a_usage_error_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UsageError, match=r"user:\*\*\*@127.0.0.1:1/db: cannot open this database: .*refused") as caught:
        open_storage("postgresql://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("psycopg") is not None, reason="the driver is installed")
def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(UsageError, match="its driver is not installed; pip install 'psycopg\\[binary\\]'") as caught:
        open_storage("postgresql://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
