"""Workers on this machine: the process itself, or one process a GPU, started again when it dies."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optmerge.errors import INTERRUPTED, OptmergeError, UsageError
from optmerge.study.launchers.launcher import Job, refuse_less_than_one

_SOON, _OFTEN = 60.0, 5  # a worker that dies so often within so many seconds is not started again
_LONGEST_PAUSE = 10.0  # seconds before a worker is started again
_PATIENCE = 30.0  # seconds for a worker that was told to leave


@dataclass
class Options:
    """Settings of the launcher.

    Attributes:
        workers: How many processes. One works in the command's own process.
        gpus: How many GPUs they share, one after the other; by default all that there are.
    """

    workers: int = 1
    gpus: int | None = None


class Member:
    """One worker process.

    Args:
        number: Its number among the workers.
        job: What it works on.
        settings: Further settings of its command.
        device: Its CUDA_VISIBLE_DEVICES, or nothing to leave that alone.
        threads: How many threads it may use.
    """

    def __init__(self, number: int, job: Job, settings: Sequence[str], device: str | None, threads: int) -> None:
        self.number = number
        self._command = job.command(*settings)
        self._environment = job.environment()
        self._environment.setdefault("OMP_NUM_THREADS", str(threads))
        if device is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = device
        self.log = job.folder / "workers" / f"worker-{number}.log"
        self._patience = job.patience
        self._deaths: deque[float] = deque(maxlen=_OFTEN)
        self._away_since: float | None = None  # since when it has found no database
        self._pauses = 0  # before this start, without one that lasted
        self._started, self._again = 0.0, 0.0
        self._process: subprocess.Popen[bytes] | None = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._started = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT)

    def is_working(self) -> bool:
        """Whether it works, or will again; one that died is started again, after a pause that grows.

        Raises:
            OptmergeError: If it failed, or dies again and again.
        """
        now = time.monotonic()
        if self._process is None:
            if now >= self._again:
                self._process = self._start()
            return True
        status = self._process.poll()
        if status is None:
            return True
        if status == 0:
            return False
        if now - self._started > _SOON:
            self._pauses, self._away_since = 0, None
        self._judge(status, now)
        self._pauses += 1
        self._process, self._again = None, now + min(_LONGEST_PAUSE, 2.0 ** (self._pauses - 2))
        return True

    def _judge(self, status: int, now: float) -> None:
        """Raise where starting it again would not help."""
        said = f"worker {self.number}: {last_line(self.log)}"
        if status == 1:
            raise OptmergeError(said)
        if status == 2:
            # One that was started again asked rightly before: it has met a server that was away.
            if not self._pauses:
                raise UsageError(said)
            self._away_since = self._away_since or now
            if now - self._away_since > self._patience:
                raise OptmergeError(said)
            return
        self._deaths.append(now)
        if len(self._deaths) == _OFTEN and now - self._deaths[0] < _SOON:
            raise OptmergeError(
                f"worker {self.number} died {_OFTEN} times in {_SOON:.0f} s, the last time by {_cause(status)}; "
                f"see {self.log}"
            )

    def tell(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, until: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LocalCrew:
    """Worker processes on this machine."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members

    def look(self) -> int:
        return sum([member.is_working() for member in self._members])

    def stop(self) -> None:
        for member in self._members:
            member.tell(signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        for member in self._members:
            member.wait(until)


class LocalLauncher:
    """Starts worker processes on this machine."""

    is_here = True

    def __init__(self, options: Options) -> None:
        refuse_less_than_one({"launcher.workers": options.workers})
        if options.gpus is not None:
            refuse_less_than_one({"launcher.gpus": options.gpus})
        self.workers = options.workers
        self._gpus = options.gpus

    def start(self, job: Job, count: int, *settings: str) -> LocalCrew:
        devices = self._devices()
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        return LocalCrew(
            [
                Member(number, job, settings, devices[number % len(devices)] if devices else None, threads)
                for number in range(count)
            ]
        )

    def _devices(self) -> list[str]:
        """What CUDA_VISIBLE_DEVICES may be, for one worker each."""
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        if self._gpus is not None and self._gpus > len(names):
            raise UsageError(f"launcher.gpus={self._gpus}: this machine shows {len(names)}")
        return names[: self._gpus]


def last_line(log: Path) -> str:
    """The last line that a worker wrote, without the program's name."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.removeprefix("optmerge: ") for line in reversed(lines) if line.strip()), f"see {log}")


def _cause(status: int) -> str:
    if status == INTERRUPTED:
        return "a signal that told it to leave"
    return signal.Signals(-status).name if -status in set(signal.Signals) else f"exit status {status}"


def build(options: Options) -> LocalLauncher:
    """The launcher with these settings."""
    return LocalLauncher(options)
