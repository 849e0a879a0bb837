"""The database that holds studies: SQLite in a folder by default, any that SQLAlchemy reaches by URL."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from optmerge.errors import UsageError
from optmerge.study.database import Database

_TRIES, _PAUSE = 5, 0.3  # to create the tables, and seconds between


def open_storage(
    url: str,
    *,
    patience: float = 600.0,
    beat: float = 15.0,
    grace: float = 60.0,
    kind: Callable[..., Database] = Database,
    create: bool = True,
) -> Database:
    """Open a study database, creating its tables where there are none.

    Args:
        url: An SQLAlchemy URL, such as `sqlite:///studies/studies.db`.
        patience: Seconds for which a server that stops answering later is waited for.
        beat: Seconds between two signs of life of a worker.
        grace: Seconds after which a trial without one is given to another worker.
        kind: What makes it of an address and these numbers.
        create: Make the file of an SQLite database that is not there.

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
    if is_file and not create and not Path(str(parsed.database)).is_file():
        raise UsageError(f"storage.url={shown}: there is no such file; run a search first, or name another")
    if is_file:
        _make_folder(Path(str(parsed.database)), shown)
    try:
        storage = _created(
            lambda: kind(url, patience=patience, beat=beat, grace=grace, engine_kwargs=_engine(parsed, is_file))
        )
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError, sqlite3.Error) as error:
        raise UsageError(f"storage.url={shown}: cannot open this database: {_reason(error, parsed)}") from error
    if is_file:
        _share_sqlite(storage)
    elif storage.engine.dialect.name == "postgresql":
        _share_postgresql(storage, grace)
    return storage


def _created(create: Callable[[], Database]) -> Database:
    """Open a database whose tables others may be creating at this very moment: who is second tries again."""
    for _ in range(_TRIES):
        try:
            return create()
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if not any(text in str(error) for text in ("already exists", "duplicate key")):
                raise
            time.sleep(_PAUSE)
    return create()


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


def _engine(url: URL, is_file: bool) -> dict[str, Any]:
    """How to connect: a worker needs one connection for its trials and one for its signs of life."""
    if is_file:
        return {"connect_args": {"timeout": 60}}
    if url.get_backend_name() == "postgresql":
        # A network that was cut is noticed in half a minute, not in the two hours of TCP's default.
        alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30000}
        patience = {"connect_timeout": 10}
        return {"pool_size": 2, "max_overflow": 2, "connect_args": alive | patience}
    return {}


def _share_sqlite(storage: Database) -> None:
    """Let several processes use the file at once.

    Readers do not block the writer (WAL), and a transaction that may write takes the write lock when it begins:
    otherwise two workers read the same vacant slot and both take it.
    """

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def begin(connection: sqlalchemy.Connection) -> None:
        reads = connection.get_execution_options().get("optmerge_reading")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", connect)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()


def _share_postgresql(storage: Database, grace: float) -> None:
    """Let a worker that is not heard of hold up no others, and all workers write the same time.

    A worker may be stopped, or its network cut, in the middle of a transaction: its locks would be kept until TCP gives
    up, hours later. And signs of life are written in the time zone of the session, which a client may have of its own.
    """

    def connect(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {max(1, round(1000 * grace))}")
            cursor.execute("SET timezone = 'UTC'")
        connection.commit()

    event.listen(storage.engine, "connect", connect)
    storage.engine.dispose()


def _reason(error: Exception, url: URL) -> str:
    if isinstance(error, ImportError):
        driver = "'psycopg[binary]'" if url.get_backend_name() == "postgresql" else f"the driver of {url.drivername}"
        return f"its driver is not installed; pip install {driver}"
    first = next(
        (line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()), "no reason given"
    )
    return first.replace(str(url.password), "***") if url.password else first
