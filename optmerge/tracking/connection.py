"""Talking to MLflow: the client, and its failures in one line."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.errors import OptmergeError, UsageError
from optmerge.study.storage import shown_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
AGAIN = "run the same command again to go on"


def connect(uri: str) -> "MlflowClient":
    """A client of an MLflow store that answers; a database of SQLite is made if it is not there.

    Raises:
        UsageError: If it does not.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it prints two lines for every run
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Its own patience with a server that does not answer is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    # Its first start migrates a database in fifty lines of log; importing it has set the level of its own.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # errors are told here, in one line
    try:
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        if not uri.startswith("http"):
            with create_engine(uri).connect() as connection:  # MLflow itself would try for minutes
                if uri.startswith(SQLITE):
                    # A commit waits for the disk less often, and a trial has several; and who reads, such as `mlflow
                    # ui`, keeps nobody waiting.
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        shown = shown_url(uri)
        reason = first_line(error).replace(uri, shown)  # MLflow repeats the address as it is
        raise UsageError(f"tracking.uri={shown}: MLflow cannot use it: {reason}") from error
    return client


@contextlib.contextmanager
def told(advice: str = AGAIN) -> Iterator[None]:
    """Say in one line that MLflow failed, and what to do."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise OptmergeError(f"MLflow failed: {first_line(error)}; {advice}") from error


def first_line(error: Exception) -> str:
    """The first line of what went wrong; of a database's error the database's own words, without MLflow's."""
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__
    told = str(cause.orig if isinstance(cause, DBAPIError) else error)
    return (told.splitlines() or [type(error).__name__])[0][:200]


def every(search: Any, *arguments: Any, **settings: Any) -> Iterator[Any]:
    """What a search of the client finds, page after page."""
    token = None
    while True:
        page = search(*arguments, **settings, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
