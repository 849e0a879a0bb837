"""What a cluster runs on one of its nodes: a worker, kept at work."""

import signal
import time
from collections.abc import Sequence

from optmerge.study.launchers.launcher import Job
from optmerge.study.launchers.local import Member

_PAUSE = 0.5  # seconds between two looks
_PATIENCE = 25.0  # seconds for a worker that was told to leave; Slurm kills after 30


def keep_at_work(number: int, job: Job, settings: Sequence[str], threads: int) -> None:
    """Run a worker in a process of its own until it leaves, and start it again if it dies.

    An exception that interrupts this, from a signal or otherwise, lets the worker hand its trial back first.

    Args:
        number: The worker's number.
        job: What it works on.
        settings: Further settings of its command.
        threads: How many threads it may use.

    Raises:
        OptmergeError: If it failed, or dies again and again.
    """
    member = Member(number, job, settings, device=None, threads=threads)
    try:
        while member.is_working():
            time.sleep(_PAUSE)
    finally:
        member.tell(signal.SIGTERM)
        member.wait(time.monotonic() + _PATIENCE)
