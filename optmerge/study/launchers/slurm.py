"""Workers as jobs of a Slurm cluster: one job a worker, submitted again when the cluster ends it before the study ends.

Nodes must share the folder that the search is started in, and reach the database. A job is submitted again that ended
by its time limit, by preemption, with its node or by `scancel`: to end a search, interrupt its command. A job that
vanished without a word is found by `sacct`, so on clusters without accounting only those are replaced that were told to
leave; the study goes on with the others.
"""

import contextlib
import dataclasses
import functools
import io
import json
import logging
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from optmerge.errors import OptmergeError, UsageError
from optmerge.study.launchers.launcher import Job, refuse_less_than_one, refuse_without
from optmerge.study.launchers.local import last_line
from optmerge.study.launchers.node import keep_at_work

if TYPE_CHECKING:
    import submitit

_SOON, _OFTEN = 3600.0, 8  # a worker whose jobs die so often within so many seconds gets no other
_PATIENCE = 40.0  # seconds for jobs that were cancelled; Slurm kills them after 30
_PAUSE = 1.0  # seconds between two looks at them
_ANNOUNCED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # by these a job learns that it will end

Ending = bool | OptmergeError  # of a job: whether it was told to leave, or why it failed


@dataclass
class Options:
    """Settings of the launcher.

    Attributes:
        workers: How many jobs.
        executor: `slurm`, or `local` for submitit's own, which runs the same jobs on this machine.
        partition: Where the jobs go, by default where the cluster puts them.
        account: Who pays for them.
        minutes: Time limit of a job; one that reaches it is submitted again.
        gpus: GPUs of a job.
        cpus: CPU cores of a job.
        memory_gb: Its memory, by default what the cluster gives.
        setup: Shell lines that a job runs before the worker, such as `module load cuda`; Slurm only.
    """

    workers: int = 8
    executor: str = "slurm"
    partition: str | None = None
    account: str | None = None
    minutes: int = 1440
    gpus: int = 1
    cpus: int = 8
    memory_gb: int | None = None
    setup: list[str] = field(default_factory=list)


class _ToldToLeave(BaseException):  # noqa: N818 - no error, and not to be taken for one on its way
    """The cluster announced the end of this job."""


def attend(number: int, job: Job, secret: Path, settings: Sequence[str], threads: int) -> Ending:
    """What a job does: run a worker until it leaves, or until the cluster wants the node back.

    Args:
        number: The worker's number.
        job: What it works on, without its addresses.
        secret: The file that holds them.
        settings: Further settings of the worker command.
        threads: How many threads it may use.

    Returns:
        Whether it was told to leave; or why it failed, as an exception would come back as text.
    """

    def leave(_: int, __: FrameType | None) -> NoReturn:
        for announcement in _ANNOUNCED:  # Slurm sends them again, which is not to disturb the handing back
            signal.signal(announcement, signal.SIG_IGN)
        raise _ToldToLeave

    for announcement in _ANNOUNCED:
        signal.signal(announcement, leave)
    try:
        addresses = json.loads(secret.read_text(encoding="utf-8"))
        keep_at_work(number, dataclasses.replace(job, **addresses), settings, threads)
    except _ToldToLeave:
        return True
    except OptmergeError as error:
        return error
    return False


class Post:
    """The place of one worker, which jobs fill one after the other.

    Args:
        number: The worker's number.
        submit: Submits a job for it.
    """

    def __init__(self, number: int, submit: "Callable[[], submitit.Job[Ending]]") -> None:
        self._number = number
        self._submit = submit
        self._deaths: deque[float] = deque(maxlen=_OFTEN)
        self._due = 0.0  # when the next job is submitted, if there is none
        self.job: submitit.Job[Ending] | None = submit()

    def is_filled(self) -> bool:
        """Whether a worker is at work here or will be; what ended before its time is submitted again.

        Raises:
            OptmergeError: If the worker failed, or its jobs die again and again.
        """
        if self.job is None:
            if time.monotonic() >= self._due:
                self._fill()
            return True
        if not has_ended(self.job):
            return True
        ending = self._ending(self.job)
        if isinstance(ending, OptmergeError):
            raise ending
        if ending is False:
            return False
        if ending is None:
            self._note_death(f"job {self.job.job_id} ended with {self.job.state}; see {self.job.paths.stdout}")
        else:
            self._fill()
        return True

    def _ending(self, job: "submitit.Job[Ending]") -> Ending | None:
        """How a job ended; nothing if it could not say."""
        from submitit.core.utils import FailedJobError

        if not job.paths.result_pickle.exists():
            return None
        try:
            return job.result()
        except FailedJobError:  # in what comes before the worker
            return OptmergeError(f"worker {self._number}: job {job.job_id} failed: {last_line(job.paths.stdout)}")

    def _fill(self) -> None:
        try:
            self.job = self._submit()
        except UsageError as error:  # it was right when the search began: the cluster is away
            self._note_death(str(error))

    def _note_death(self, what: str) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        recent = sum(now - death < _SOON for death in self._deaths)
        if recent == _OFTEN:
            raise OptmergeError(
                f"worker {self._number}: {_OFTEN} of its jobs died within {_SOON / 60:.0f} minutes, the last: {what}"
            )
        self.job = None
        self._due = now + 2.0**recent  # longer and longer: a node that kills all its jobs would take them all


class SlurmCrew:
    """Workers in jobs of their own.

    Args:
        secret: The file that holds the address of the database.
    """

    def __init__(self, secret: Path) -> None:
        self._secret = secret
        self._posts: list[Post] = []

    def add(self, post: Post) -> None:
        self._posts.append(post)

    def look(self) -> int:
        return sum([post.is_filled() for post in self._posts])

    def stop(self) -> None:
        jobs = [post.job for post in self._posts if post.job is not None and not has_ended(post.job)]
        for job in jobs:
            _tell_to_leave(job)
        until = time.monotonic() + _PATIENCE
        while jobs and time.monotonic() < until:
            time.sleep(_PAUSE)
            jobs = [job for job in jobs if not has_ended(job, now=True)]
        for job in jobs:
            job.cancel(check=False)
        self._secret.unlink(missing_ok=True)


class SlurmLauncher:
    """Submits workers as jobs."""

    is_here = False

    def __init__(self, options: Options) -> None:
        refuse_without("submitit", "slurm")
        numbers = {"workers": options.workers, "minutes": options.minutes, "cpus": options.cpus}
        if options.memory_gb is not None:
            numbers["memory_gb"] = options.memory_gb
        refuse_less_than_one({f"launcher.{name}": number for name, number in numbers.items()})
        if options.gpus < 0:
            raise UsageError(f"launcher.gpus must be at least 0, got {options.gpus}")
        if options.executor not in ("slurm", "local"):
            raise UsageError(f"launcher.executor={options.executor}: unknown; known are slurm, local")
        self.workers = options.workers
        self._options = options

    def start(self, job: Job, count: int, *settings: str) -> SlurmCrew:
        if self._options.executor == "slurm" and shutil.which("srun") is None:
            raise UsageError("launcher=slurm: there is no srun here; start the search on a machine of the cluster")
        folder = job.folder.absolute() / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        executor = self._executor(folder / "jobs", f"optmerge-{job.study}")
        secret = _written_secret(folder, job)
        public = dataclasses.replace(job, url="", tracking=None, folder=folder.parent)

        def submit(number: int) -> "submitit.Job[Ending]":
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit prints there what it raises too
                    return executor.submit(attend, number, public, secret, settings, self._options.cpus)
            except (RuntimeError, OSError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise UsageError(f"launcher=slurm: the job of worker {number} was refused: {reason}") from error

        crew = SlurmCrew(secret)
        try:
            for number in range(count):
                crew.add(Post(number, functools.partial(submit, number)))
        except BaseException:
            crew.stop()
            raise
        return crew

    def _executor(self, folder: Path, name: str) -> "submitit.AutoExecutor":
        import submitit

        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at every look where there is no accounting
        options = self._options
        executor = submitit.AutoExecutor(folder, cluster=options.executor)
        executor.update_parameters(
            name=name,
            timeout_min=options.minutes,
            gpus_per_node=options.gpus or None,  # some clusters without GPUs refuse to be asked for none
            cpus_per_task=options.cpus,
            mem_gb=options.memory_gb,
            stderr_to_stdout=True,
            slurm_partition=options.partition,
            slurm_account=options.account,
            slurm_setup=options.setup or None,
            # Since Slurm 22.05 srun does not know what sbatch was told.
            slurm_srun_args=[f"--cpus-per-task={options.cpus}"],
            # What ended is submitted again here, and not by Slurm too.
            slurm_additional_parameters={"no-requeue": True},
        )
        return executor


def has_ended(job: "submitit.Job[Ending]", now: bool = False) -> bool:
    """Whether a job is over, as the cluster said lately, or says now."""
    # To submitit a preempted job may yet go on; ours are not requeued.
    return job.done(force_check=now) or job.state == "PREEMPTED"


def _tell_to_leave(job: "submitit.Job[Ending]") -> None:
    from submitit.local.local import LocalJob

    if isinstance(job, LocalJob):  # its own way to cancel leaves a worker one second to hand its trial back
        os.kill(int(job.job_id), signal.SIGTERM)
    else:
        job.cancel(check=False)


def _written_secret(folder: Path, job: Job) -> Path:
    """A file with the addresses that only its owner can read: what submitit writes down is readable for others."""
    descriptor, path = tempfile.mkstemp(prefix=".storage-url-", dir=folder)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": job.url, "tracking": job.tracking}, file)
    return Path(path)


def build(options: Options) -> SlurmLauncher:
    """The launcher with these settings."""
    return SlurmLauncher(options)
