"""What a launcher does."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

TRACKING = "MLFLOW_TRACKING_URI"  # environment variable
URL = "OPTMERGE_STORAGE_URL"  # environment variable; a command line would show a password to everyone on the machine


# Comes before the worker's own command. The signals by which a scheduler announces a job's end may reach all processes
# of the job, and would kill a worker, which does not know them. And one that outlives what started it holds a GPU that
# others are given.
_TIED = """
import ctypes, os, signal, sys
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: sent when the process that started it dies
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Job:
    """What every worker is started with.

    Attributes:
        study: Name of the study.
        url: Address of its database.
        settings: Further settings of the worker command, such as `storage.grace=60`.
        folder: The study's folder, for logs.
        tracking: Address of the tracker, if it has one; it may hold a password too.
        patience: Seconds for which workers wait for a database that does not answer.
    """

    study: str
    url: str
    settings: Sequence[str]
    folder: Path
    tracking: str | None = None
    patience: float = 600.0

    def command(self, *more: str) -> list[str]:
        """The command line of a worker, which is told to leave when the process that started it dies."""
        worker = ["-m", "optmerge", "worker", f"study.name={self.study}", *self.settings, *more]
        return [sys.executable, "-c", _TIED, sys.executable, *worker]

    def environment(self) -> dict[str, str]:
        """The environment of a worker."""
        tracking = {TRACKING: self.tracking} if self.tracking else {}
        return {**os.environ, URL: self.url, **tracking}


class Crew(Protocol):
    """Workers that were started."""

    def look(self) -> int:
        """Start those again that died; says how many are at work or will be.

        Raises:
            OptmergeError: If they cannot go on.
        """

    def stop(self) -> None:
        """Let every worker hand its trial back and leave, and wait until all have."""


class Launcher(Protocol):
    """Starts workers.

    Attributes:
        workers: How many.
        is_here: Whether they run on this machine, so that the process that started them can choose the winner itself.
    """

    workers: int
    is_here: bool

    def start(self, job: Job, count: int, *settings: str) -> Crew:
        """Start so many workers of a study, with further settings of the worker command."""


def refuse_less_than_one(settings: Mapping[str, int]) -> None:
    """Refuse numbers that are to be at least one.

    Raises:
        UsageError: Naming the first that is not.
    """
    from optmerge.errors import UsageError

    for name, value in settings.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")


def refuse_without(library: str, launcher: str) -> None:
    """Refuse a launcher whose library is not installed; nothing of it is loaded yet.

    Raises:
        UsageError: Saying what to install.
    """
    from importlib.util import find_spec

    from optmerge.errors import UsageError

    if find_spec(library) is None:
        raise UsageError(f"launcher={launcher} needs {library}, which is not there; pip install 'optmerge[{launcher}]'")
