"""The database that holds studies: SQLite in a folder by default, any that SQLAlchemy reaches by URL."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from optmerge.errors import UsageError


def open_storage(url: str) -> RDBStorage:
    """Open a study database, creating its tables where there are none.

    Args:
        url: An SQLAlchemy URL, such as `sqlite:///studies/studies.db`.

    Raises:
        UsageError: If the URL is malformed, its driver is not installed, or the database cannot be reached or is
            none of ours. No password is printed.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
            raise ValueError("an @ that belongs to the password")
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        # The URL is not repeated: it may hold a password in a place where it cannot be told apart.
        raise UsageError(
            "storage.url is not a database URL; write one such as sqlite:///studies/studies.db or "
            "postgresql://user:password@host/database"
        ) from error
    shown = shown_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    if is_file:
        _make_folder(Path(str(parsed.database)), shown)
    try:
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}} if is_file else None)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError, sqlite3.Error) as error:
        raise UsageError(f"storage.url={shown}: cannot open this database: {_reason(error, parsed)}") from error
    if is_file:
        _share_sqlite(storage)
    return storage


def shown_url(url: str) -> str:
    """A database address without its passwords, for people to read."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return "(not shown: it is malformed, and may hold a password)"
    secrets = {key: "***" for key in parsed.query if "pass" in key.lower()}
    return parsed.update_query_dict(secrets).render_as_string(hide_password=True)


def _make_folder(database: Path, shown: str) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"storage.url={shown}: cannot make the folder {database.parent}: {error.strerror}") from error


def _share_sqlite(storage: RDBStorage) -> None:
    """Let several processes use the file at once.

    Readers do not block the writer (WAL), and a transaction takes the write lock when it begins: otherwise two
    workers read the same waiting trial and both take it.
    """

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", connect)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()


def _reason(error: Exception, url: URL) -> str:
    if isinstance(error, ImportError):
        driver = "'psycopg[binary]'" if url.get_backend_name() == "postgresql" else f"the driver of {url.drivername}"
        return f"its driver is not installed; pip install {driver}"
    first = next(
        (line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()), "no reason given"
    )
    return first.replace(str(url.password), "***") if url.password else first
