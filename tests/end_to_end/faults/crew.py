"""Worker processes, and what can be done to them."""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from end_to_end.faults.worker_process import Settings

TESTS = Path(__file__).parents[2]
LONG = 240.0  # seconds that something may take which takes a few on an idle machine


class Worker:
    """A worker process.

    Args:
        pid: Its number.
        settings: What it was told.
    """

    def __init__(self, pid: int, settings: Settings) -> None:
        self.pid = pid
        self.settings = settings
        self._log = Path(settings.log)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended does not mind."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def is_alive(self) -> bool:
        return psutil.pid_exists(self.pid)

    def wait(self) -> None:
        """Wait until it has ended."""
        wait_until(lambda: not self.is_alive(), f"the end of worker {self.pid}", lambda: self.says())

    def says(self) -> str:
        """What it has written."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def status(self) -> int | None:
        """Its exit status; nothing if it is alive or was killed."""
        found = re.search(r"left with status (\d+)", self.says())
        return int(found[1]) if found else None


class Crew:
    """The workers of a study.

    Args:
        nursery: The process that forks them.
        url: Address of the database.
        study: Name of the study.
        folder: Where they write their logs.
    """

    def __init__(self, nursery: "subprocess.Popen[str]", url: str, study: str, folder: Path) -> None:
        self._nursery = nursery
        self._common: dict[str, Any] = {"url": url, "study": study}
        self._folder = folder
        self._ordinals = itertools.count()
        self.workers: list[Worker] = []

    def start(self, **settings: Any) -> Worker:
        """Start a worker."""
        assert self._nursery.stdin is not None and self._nursery.stdout is not None
        log = str(self._folder / f"worker-{next(self._ordinals)}.log")
        asked = Settings(**{**self._common, "log": log, **settings})
        self._nursery.stdin.write(json.dumps(dataclasses.asdict(asked)) + "\n")
        self._nursery.stdin.flush()
        worker = Worker(int(self._nursery.stdout.readline()), asked)
        self.workers.append(worker)
        return worker

    def start_many(self, count: int, **settings: Any) -> list[Worker]:
        return [self.start(**settings) for _ in range(count)]

    def at_work(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive()]

    def wait(self) -> None:
        """Wait until all have ended."""
        for worker in self.workers:
            worker.wait()

    def statuses(self) -> list[int | None]:
        return [worker.status() for worker in self.workers]

    def end(self) -> None:
        """Kill whoever is left."""
        for worker in self.at_work():
            worker.send(signal.SIGKILL)
        self.wait()


@contextmanager
def started_nursery() -> "Iterator[subprocess.Popen[str]]":
    """The process that forks workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "end_to_end.faults.worker_process"],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def wait_until(
    happened: Callable[[], Any], what: str, say: Callable[[], str] = lambda: "", pause: float = 0.02
) -> None:
    """Wait for something.

    Args:
        happened: Whether it has happened.
        what: What is waited for.
        say: What is told if it does not happen.
        pause: Seconds between two looks.
    """
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}\n{say()}"
        time.sleep(pause)
