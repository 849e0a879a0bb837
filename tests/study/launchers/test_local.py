"""Worker processes kept at work: real processes, whose command is a script that says what this worker does."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from optmerge.errors import INTERRUPTED, OptmergeError, UsageError
from optmerge.study.launchers.launcher import TRACKING, URL, Job
from optmerge.study.launchers.local import LocalLauncher, Member, Options

AT_WORK = "import time; time.sleep(600)"
# The first time it ends as it is told, and writes down that it was there; then it works.
ONCE = """
import sys, time
from pathlib import Path
seen = Path(sys.argv[1])
if seen.exists():
    time.sleep(600)
seen.touch()
print("optmerge: the server is away")
sys.exit({status})
"""


@dataclass(frozen=True)
class Scripted(Job):
    """A job whose workers run a script."""

    script: str = AT_WORK

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-c", self.script, *more]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Callable[..., Member]]:
    """Starts a worker with a script, and ends it afterwards."""
    started: list[Member] = []

    def start(script: str, *settings: str, patience: float = 600.0) -> Member:
        job = Scripted("name", "sqlite://", [], tmp_path, None, patience, script)
        started.append(Member(len(started), job, settings, device=None, threads=1))
        return started[-1]

    yield start
    for one in started:
        one.tell(signal.SIGKILL)
        one.wait(time.monotonic() + 5)


def keep(member: Member, happened: Callable[[], bool]) -> None:
    """Keep a worker at work until something has happened."""
    until = time.monotonic() + 20
    while not happened():
        assert member.is_working()
        assert time.monotonic() < until
        time.sleep(0.02)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_worker_that_is_killed_is_started_again(member: Callable[..., Member], sent: signal.Signals) -> None:
    before = children()
    kept = member(AT_WORK)
    (first,) = children() - before
    os.kill(first, sent)
    keep(kept, lambda: bool(children() - before - {first}))


def test_worker_that_was_told_to_leave_by_others_is_started_again(
    member: Callable[..., Member], tmp_path: Path
) -> None:
    before, seen = children(), tmp_path / "seen"
    kept = member(ONCE.format(status=INTERRUPTED), str(seen))
    keep(kept, lambda: seen.exists() and len(children() - before) == 1)
    time.sleep(0.2)
    assert kept.is_working()


def test_worker_that_left_is_done(member: Callable[..., Member]) -> None:
    kept = member("")
    until = time.monotonic() + 20
    while kept.is_working():
        assert time.monotonic() < until


@pytest.mark.parametrize(("status", "kind"), [(1, OptmergeError), (2, UsageError)])
def test_worker_that_refuses_or_fails_says_why(
    member: Callable[..., Member], status: int, kind: type[Exception], tmp_path: Path
) -> None:
    kept = member(ONCE.format(status=status), str(tmp_path / "seen"))
    with pytest.raises(kind, match="worker 0: the server is away"):
        keep(kept, lambda: False)


AWAY = """
import os, sys, time
from pathlib import Path
seen, back = map(Path, sys.argv[1:])
if not seen.exists():
    seen.touch()
    os.kill(os.getpid(), 9)
if not back.exists():
    with seen.open("a") as file:
        file.write("asked\\n")
    sys.exit(2)
time.sleep(600)
"""


def test_worker_that_is_started_again_while_the_server_is_away_is_tried_until_it_is_back(
    member: Callable[..., Member], tmp_path: Path
) -> None:
    before, seen, back = children(), tmp_path / "seen", tmp_path / "back"
    kept = member(AWAY, str(seen), str(back))
    keep(kept, lambda: seen.exists() and seen.read_text().count("asked") >= 3)
    back.touch()
    keep(kept, lambda: bool(children() - before))
    time.sleep(0.2)
    assert kept.is_working()


def test_patience_for_the_server_ends(member: Callable[..., Member], tmp_path: Path) -> None:
    kept = member(AWAY, str(tmp_path / "seen"), str(tmp_path / "back"), patience=1.0)
    with pytest.raises(OptmergeError, match="worker 0"):
        keep(kept, lambda: False)


def test_worker_that_dies_again_and_again_is_given_up(
    member: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optmerge.study.launchers.local._LONGEST_PAUSE", 0.05)
    kept = member("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(OptmergeError, match=r"worker 0 died 5 times in 60 s, the last time by SIGKILL"):
        keep(kept, lambda: False)


LEAVES_ITS_NUMBER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"


def test_workers_of_a_search_that_is_killed_are_told_to_leave(tmp_path: Path) -> None:
    """What started them is a process of its own here, which dies without a word."""
    there, pid = tmp_path / "there", os.fork()
    if pid == 0:
        command = Job("name", "", [], tmp_path).command()
        tied = [*command[:3], sys.executable, "-c", LEAVES_ITS_NUMBER, str(there)]
        os.spawnv(os.P_NOWAIT, tied[0], tied)
        time.sleep(600)
    try:
        until = time.monotonic() + 20
        while not (there.exists() and there.read_text()):
            assert time.monotonic() < until
            time.sleep(0.02)
        worker = psutil.Process(int(there.read_text()))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    worker.wait(20)


def test_workers_share_the_gpus_and_know_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    script = (
        "import os, sys; print(*(os.environ.get(name) for name in "
        f"('CUDA_VISIBLE_DEVICES', '{TRACKING}', '{URL}')), flush=True)"
    )
    job = Scripted("name", "sqlite://", [], tmp_path, "http://tracker", script=script)
    crew = LocalLauncher(Options(workers=3, gpus=2)).start(job, 3)
    until = time.monotonic() + 20
    while crew.look():
        assert time.monotonic() < until
        time.sleep(0.02)
    said = [(tmp_path / "workers" / f"worker-{number}.log").read_text().split() for number in range(3)]
    assert said == [[device, "http://tracker", "sqlite://"] for device in ("4", "5", "4")]


@pytest.mark.parametrize(
    ("settings", "said"), [({"workers": 0}, "launcher.workers must be"), ({"gpus": 0}, "launcher.gpus must be")]
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], said: Sequence[str]) -> None:
    with pytest.raises(UsageError, match=str(said)):
        LocalLauncher(Options(**settings))
