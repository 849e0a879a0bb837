"""What a cluster runs on one of its nodes: a worker, kept at work."""

import signal
import sys
import time
from collections.abc import Sequence

from optmerge.study.launchers.launcher import Job
from optmerge.study.launchers.local import Member

_PAUSE = 0.5  # seconds between two looks
_PATIENCE = 25.0  # seconds for a worker that was told to leave; Slurm kills after 30

# Comes before the worker's own command. The signals by which a scheduler announces a job's end may reach all processes
# of the job, and would kill a worker, which does not know them. And one that outlives its job holds a GPU that others
# are given.
_TIED = """
import ctypes, os, signal, sys
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: sent when the process that started it dies
os.execv(sys.argv[1], sys.argv[1:])
"""


class TiedJob(Job):
    """A job whose workers are told to leave when the process that started them dies."""

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-c", _TIED, *super().command(*more)]


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
    tied = TiedJob(job.study, job.url, job.settings, job.folder)
    member = Member(number, tied, settings, device=None, threads=threads)
    try:
        while member.is_working():
            time.sleep(_PAUSE)
    finally:
        member.tell(signal.SIGTERM)
        member.wait(time.monotonic() + _PATIENCE)
