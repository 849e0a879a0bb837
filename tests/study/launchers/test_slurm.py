"""Workers as jobs, which submitit's own executor runs on this machine as Slurm would on others."""

import contextlib
import json
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from end_to_end.studies import run_process

from optmerge.__main__ import run
from optmerge.errors import UsageError
from optmerge.study.launchers.launcher import Job
from optmerge.study.launchers.slurm import Options, SlurmCrew, build
from optmerge.study.slots import DIED, HANDED_BACK
from study.launchers.searches import assert_done_once, errors, wait_for, workers_at_work

LOCAL = Options(workers=1, executor="local", cpus=1, gpus=0)


def job_ids(job: Job) -> list[str]:
    """Of the jobs that were submitted, which are numbers of processes here."""
    return sorted(path.name.split("_")[0] for path in (job.folder / "workers" / "jobs").glob("*_submitted.pkl"))


def signal_all(job: Job, number: signal.Signals) -> None:
    """Send a signal to all processes of the only job."""
    (submitted,) = job_ids(job)
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(int(submitted)).children(recursive=True):
            process.send_signal(number)


@contextlib.contextmanager
def started(job: Job) -> Iterator[SlurmCrew]:
    crew = build(LOCAL).start(job, 1)
    try:
        yield crew
    finally:
        crew.stop()


def test_search_runs_in_jobs_to_its_end(here: Path, small: list[str]) -> None:
    overrides = [
        "launcher=slurm",
        "launcher.executor=local",
        "launcher.workers=2",
        "launcher.cpus=1",
        "launcher.gpus=0",
    ]
    done = run_process(*small, "study.trials=12", *overrides, cwd=here)
    assert done.returncode == 0, done.stderr
    assert "scoring" not in done.stdout  # the command that started the search needs no model and no GPU
    assert_done_once(here, 12)
    workers = here / "studies" / "mine" / "workers"
    assert len(list((workers / "jobs").glob("*_result.pkl"))) == 3  # two workers, and one for the end


@pytest.mark.parametrize(
    ("number", "reasons"),
    [
        pytest.param(signal.SIGKILL, {DIED, HANDED_BACK}, id="that vanishes"),
        pytest.param(signal.SIGUSR2, {HANDED_BACK}, id="whose end is announced"),
    ],
)
def test_job_is_submitted_again(here: Path, endless: Job, number: signal.Signals, reasons: set[str]) -> None:
    with started(endless) as crew:
        first = wait_for(lambda: workers_at_work(here))
        signal_all(endless, number)
        wait_for(lambda: crew.look() and workers_at_work(here) - first)
        assert crew.look() == 1
        assert len(job_ids(endless)) == 2
    assert errors(here) <= reasons


def test_stop_waits_until_trials_are_handed_back(here: Path, endless: Job) -> None:
    with started(endless):
        workers = wait_for(lambda: workers_at_work(here))
        for _ in range(5):  # schedulers insist; the job and the crew tell the worker as well
            signal_all(endless, signal.SIGTERM)
            time.sleep(0.01)
    assert workers_at_work(here) == set()
    assert not any(psutil.pid_exists(worker) for worker in workers)
    assert errors(here) <= {HANDED_BACK}
    assert "Traceback" not in (endless.folder / "workers" / "worker-0.log").read_text()


def test_address_is_in_no_file_that_others_can_read(here: Path) -> None:
    url, tracking = "sqlite:///sesame.db", "http://open:cumin@localhost"
    job = Job("missing", url, [], here / "studies" / "missing", tracking)
    with started(job):
        (secret,) = (job.folder / "workers").glob(".storage-url-*")
        assert json.loads(secret.read_text()) == {"url": url, "tracking": tracking}
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    files = [path for path in job.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if any(word.encode() in path.read_bytes() for word in (url, tracking))]


def test_what_a_worker_refuses_is_refused(here: Path) -> None:
    job = Job("missing", "sqlite:///studies/studies.db", [], here / "studies" / "missing")
    with started(job) as crew, pytest.raises(UsageError, match="worker 0: .*no such file"):
        wait_for(lambda: crew.look() == 0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workers=0", "launcher.workers must be at least 1, got 0"),
        ("minutes=0", "launcher.minutes must be at least 1, got 0"),
        ("cpus=0", "launcher.cpus must be at least 1, got 0"),
        ("memory_gb=0", "launcher.memory_gb must be at least 1, got 0"),
        ("gpus=-1", "launcher.gpus must be at least 0, got -1"),
        ("executor=moon", "launcher.executor=moon: unknown; known are slurm, local"),
        ("minuts=3", "did you mean 'minutes'?"),
    ],
)
def test_bad_setting_is_refused(here: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str) -> None:
    assert run(["launcher=slurm", "launcher.executor=local", f"++launcher.{setting}"]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert list(here.iterdir()) == []


def test_machine_without_slurm_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UsageError, match="there is no srun here"):
        build(Options()).start(Job("mine", "sqlite:///studies.db", [], here), 1)
    assert list(here.iterdir()) == []


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"needs submitit.*pip install 'optmerge\[slurm\]'"):
        build(LOCAL)
