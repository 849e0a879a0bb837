"""Workers as tasks of a Ray cluster: Ray finds room for them, and starts them elsewhere when their node is lost.

The folder that the search is started in must be one that all nodes share, as workers work in it too.
"""

import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optmerge.errors import OptmergeError, UsageError
from optmerge.study.launchers.launcher import Job, refuse_less_than_one, refuse_without
from optmerge.study.launchers.node import keep_at_work

if TYPE_CHECKING:
    import ray

_PATIENCE = 30.0  # seconds for tasks that were cancelled
_SILENCE = 10.0  # and for a cluster that does not answer

log = logging.getLogger(__name__)


@dataclass
class Options:
    """Settings of the launcher.

    Attributes:
        workers: How many tasks; those for which there is no room yet wait for it.
        address: Of the cluster, such as `10.0.0.1:6379`, from one of its nodes. By default that of `RAY_ADDRESS`, or of
            the cluster that this machine belongs to; if there is none, Ray is started on this machine alone.
        gpus: GPUs of a worker, or a share of one.
        cpus: CPU cores of a worker.
        restarts: How often a worker is started again whose node or Ray process was lost; -1: always.
    """

    workers: int = 8
    address: str | None = None
    gpus: float = 1.0
    cpus: float = 1.0
    restarts: int = -1


def attend(number: int, job: Job, settings: Sequence[str], threads: int, folder: Path) -> None:
    """What a task does: run a worker until it leaves, or the task is cancelled.

    Args:
        number: The worker's number.
        job: What it works on.
        settings: Further settings of the worker command.
        threads: How many threads it may use.
        folder: Where it works.

    Raises:
        OptmergeError: If it failed.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise OptmergeError(
            f"worker {number}: {folder} cannot be entered on {socket.gethostname()} ({error.strerror}); start the "
            "search in a folder that all machines share"
        ) from error
    keep_at_work(number, job, settings, threads)


class RayCrew:
    """Workers in tasks of their own."""

    def __init__(self, tasks: "list[ray.ObjectRef[None]]") -> None:
        self._tasks = tasks

    def look(self) -> int:
        import ray

        ended, others = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        try:
            ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OptmergeError):
                raise error.cause from None
            raise OptmergeError(f"a worker's task failed: {error.cause}") from error
        except ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
            raise OptmergeError(f"a worker was lost, and Ray starts it no more: {reason}") from error
        return len(others)

    def stop(self) -> None:
        import ray

        for task in self._tasks:
            ray.cancel(task)
        _, others = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=_PATIENCE)
        for task in others:
            ray.cancel(task, force=True)
        ray.shutdown()


class RayLauncher:
    """Starts workers as tasks."""

    is_here = False

    def __init__(self, options: Options) -> None:
        refuse_without("ray", "ray")
        refuse_less_than_one({"launcher.workers": options.workers})
        for name, amount in (("gpus", options.gpus), ("cpus", options.cpus)):
            if amount < 0 or (amount > 1 and amount % 1):
                raise UsageError(f"launcher.{name} must be a whole number, or a share of one, got {amount:g}")
        if options.restarts < -1:
            raise UsageError(f"launcher.restarts must be at least 0, or -1 for always, got {options.restarts}")
        self.workers = options.workers
        self._options = options

    def start(self, job: Job, count: int, *settings: str) -> RayCrew:
        import ray

        options = self._options
        _join(options)
        task = ray.remote(attend).options(
            name=f"optmerge-{job.study}",
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            max_retries=options.restarts,
        )
        threads = max(1, int(options.cpus))
        return RayCrew([task.remote(number, job, settings, threads, Path.cwd()) for number in range(count)])


def _join(options: Options) -> None:
    """Join the cluster, or start one here."""
    import ray

    address = options.address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _refuse_silence(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is not None or not isinstance(error, ConnectionError):
            raise UsageError(f"launcher.address={address or 'null'}: cannot join the cluster: {error}") from error
        log.warning("there is no Ray cluster to join: Ray is started on this machine, for this search alone")
        ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray sets its own, by which a search would not end cleanly
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, wanted in (("GPU", options.gpus), ("CPU", options.cpus)):
        if there.get(name, 0) < wanted:
            log.warning("Ray has no %s for a worker, which needs %g: workers wait until there is one", name, wanted)


def _refuse_silence(address: str) -> None:
    """Refuse an address where nobody answers: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_SILENCE).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"launcher.address={address}: no Ray cluster answers there ({error}); write one such as 10.0.0.1:6379"
        ) from error


def build(options: Options) -> RayLauncher:
    """The launcher with these settings."""
    return RayLauncher(options)
