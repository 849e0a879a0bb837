"""Studies by many workers to which everything happens at once, for as long as you like.

    python benchmarks/soak.py --minutes 20 --workers 8 --storage postgresql

Workers are killed, stopped past their grace, and told to leave, at random, and others started instead; a PostgreSQL
server of our own is killed and restarted too. Every study is then held, slot by slot, against the one that a single
worker made of the same seed without disturbance. It is the long form of tests/end_to_end/faults, and uses its workers:
the real loop, database and sampler, and an objective that sleeps. Writes what it counted to benchmarks/soak/.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from end_to_end.faults.conftest import found
from end_to_end.faults.crew import Crew, Worker, started_nursery
from end_to_end.faults.proof import Finished, Place, account, by_slot, places, trials_of
from end_to_end.faults.servers import PostgreSQL

OUT = Path(__file__).parent / "soak"
BETWEEN = {"kill": 1.0, "terminate": 5.0, "freeze": 7.0, "server": 20.0}  # seconds, on average
FROZEN, AWAY = (1.0, 6.0), (0.0, 5.0)  # seconds for which a worker is frozen, and the server away
GRACE = 2.0


@dataclass
class Counts:
    """What has happened, and what came of it.

    Attributes:
        kills: Workers killed in the middle of their work.
        terminations: Workers told to leave.
        freezes: Workers stopped for seconds, some past their grace.
        restarts: Workers started instead of those that were gone.
        server_restarts: How often the server was killed and started again.
        studies: Studies that were finished and held against the undisturbed one.
        trials: Trials that count.
        run_again: Trials that were run again, as their worker had died or was not heard of.
        handed_back: Trials that were handed back by workers told to leave.
        lost: Slots without a result.
        doubled: Slots with more than one.
        different: Slots whose result is not that of the undisturbed study.
        left_running: Trials that nobody ended.
        refused: Workers that began while the server was away, which is an error at once.
        unexpected: Workers that ended by themselves before the end, for no reason that was given them.
        seconds: How long all took.
    """

    kills: int = 0
    terminations: int = 0
    freezes: int = 0
    restarts: int = 0
    server_restarts: int = 0
    studies: int = 0
    trials: int = 0
    run_again: int = 0
    handed_back: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    left_running: int = 0
    refused: int = 0
    unexpected: int = 0
    seconds: float = 0.0

    def is_sound(self) -> bool:
        wrong = (self.lost, self.doubled, self.different, self.left_running, self.unexpected)
        return self.studies > 0 and not any(wrong)


class Chaos:
    """Does harm to a study until it is finished.

    Args:
        crew: The study's workers.
        size: How many there are to be.
        seconds: How long a trial takes.
        server: A server that may be killed.
        counts: Where it is noted.
    """

    def __init__(self, crew: Crew, size: int, seconds: float, server: PostgreSQL | None, counts: Counts) -> None:
        self._crew = crew
        self._size = size
        self._seconds = seconds
        self._server_here = server
        self._counts = counts
        self._due = {what: time.monotonic() + _soon(what) for what in BETWEEN}
        self._frozen: list[tuple[float, Worker]] = []  # until when
        self._away_until: float | None = None
        self._told: set[int] = set()  # to leave, in whatever way
        crew.start_many(size, seconds=seconds, grace=GRACE)

    def run(self) -> None:
        """Go on until a worker finds that nothing is left to do, then let the others find it too."""
        while 0 not in self._crew.statuses():
            self._man()
            self._wake()
            self._return_server()
            for what in BETWEEN:
                if time.monotonic() > self._due[what]:
                    self._due[what] = time.monotonic() + _soon(what)
                    getattr(self, f"_{what}")()
            time.sleep(0.02)
        self._wake(everyone=True)
        self._crew.wait()
        for worker in self._crew.workers:
            self._note_end(worker)

    def _note_end(self, worker: Worker) -> None:
        status, said = worker.status(), worker.says()
        if status in (0, None) or worker.pid in self._told:
            return
        if status == 2 and "cannot open this database" in said:
            self._counts.refused += 1
            return
        self._counts.unexpected += 1
        print(said, file=sys.stderr)

    def _man(self) -> None:
        """Start workers instead of those that are gone; nobody can start while the server is away."""
        if self._away_until is None:
            missing = self._size - len(self._crew.at_work())
            self._crew.start_many(missing, seconds=self._seconds, grace=GRACE)
            self._counts.restarts += missing

    def _victim(self) -> Worker | None:
        frozen = {worker.pid for _, worker in self._frozen}
        return random.choice([worker for worker in self._crew.at_work() if worker.pid not in frozen] or [None])

    def _kill(self) -> None:
        if victim := self._victim():
            self._told.add(victim.pid)
            victim.send(signal.SIGKILL)
            self._counts.kills += 1

    def _terminate(self) -> None:
        if victim := self._victim():
            self._told.add(victim.pid)
            victim.send(signal.SIGTERM)
            self._counts.terminations += 1

    def _freeze(self) -> None:
        if victim := self._victim():
            victim.send(signal.SIGSTOP)
            self._frozen.append((time.monotonic() + random.uniform(*FROZEN), victim))
            self._counts.freezes += 1

    def _wake(self, everyone: bool = False) -> None:
        due = [(until, worker) for until, worker in self._frozen if everyone or time.monotonic() > until]
        for frozen in due:
            frozen[1].send(signal.SIGCONT)
            self._frozen.remove(frozen)

    def _server(self) -> None:
        if self._server_here is not None and self._away_until is None:
            self._server_here.kill()
            self._away_until = time.monotonic() + random.uniform(*AWAY)
            self._counts.server_restarts += 1

    def _return_server(self) -> None:
        if self._server_here is not None and self._away_until is not None and time.monotonic() > self._away_until:
            self._server_here.start()
            self._away_until = None


def _soon(what: str) -> float:
    return random.uniform(0.5, 1.5) * BETWEEN[what]


def undisturbed(nursery: "subprocess.Popen[str]", trials: int, folder: Path) -> dict[Place, Finished]:
    """What one worker makes of such a study if nothing happens to it."""
    url = f"sqlite:///{folder / 'undisturbed.db'}"
    found(url, "undisturbed", trials)
    crew = Crew(nursery, url, "undisturbed", folder)
    crew.start(seconds=0.0)
    while crew.at_work():
        time.sleep(0.1)
    return by_slot(trials_of(url, "undisturbed"))


def hold_against(url: str, study: str, trials: int, wanted: dict[Place, Finished], counts: Counts) -> None:
    """Count what came of a study."""
    left = trials_of(url, study)
    of_study, results = account(left, trials), by_slot(left)
    counts.studies += 1
    counts.trials += of_study.finished
    counts.run_again += of_study.died
    counts.handed_back += of_study.handed_back
    counts.lost += of_study.lost
    counts.doubled += of_study.doubled
    counts.left_running += of_study.running
    counts.different += of_study.failed + of_study.changed
    counts.different += sum(slot in results and results[slot] != wanted[slot] for slot in places(trials))


@contextmanager
def storage(asked: str, folder: Path) -> Iterator[tuple[str, PostgreSQL | None]]:
    """The address of a database, and the server if it is one of our own."""
    if asked == "sqlite":
        yield f"sqlite:///{folder / 'studies.db'}", None
    elif asked == "postgresql":
        data = folder / "postgresql"
        data.mkdir()
        server = PostgreSQL(data)
        try:
            yield server.create_database("soak"), server
        finally:
            server.stop()
    else:
        yield asked, None


def soak(asked: argparse.Namespace) -> Counts:
    """Finish studies one after the other until the time is over."""
    counts, began, run = Counts(), time.monotonic(), f"soak-{time.time():.0f}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="optmerge-soak-")))
        nursery = stack.enter_context(started_nursery())
        url, server = stack.enter_context(storage(asked.storage, folder))
        wanted = undisturbed(nursery, asked.trials, folder)
        while time.monotonic() - began < 60 * asked.minutes:
            study = f"{run}-{counts.studies}"
            found(url, study, asked.trials)
            logs = folder / study
            logs.mkdir()
            crew = Crew(nursery, url, study, logs)
            stack.callback(crew.end)
            Chaos(crew, asked.workers, asked.seconds, server, counts).run()
            hold_against(url, study, asked.trials, wanted, counts)
            counts.seconds = time.monotonic() - began
            print(f"{counts.seconds:.0f} s: {counts.studies} studies, {counts.kills} kills", flush=True)
    return counts


def table(kind: str, asked: argparse.Namespace, counts: Counts) -> str:
    """What was counted, as a table."""
    minutes = counts.seconds / 60
    lines = [f"{asked.workers} workers on {kind}, {minutes:.0f} minutes, studies of {asked.trials} trials", ""]
    lines += ["| what | how often |", "|---|---|"]
    rows = dataclasses.asdict(counts)
    del rows["seconds"]
    lines += [f"| {name.replace('_', ' ')} | {count} |" for name, count in rows.items()]
    lines += [f"| trials a second | {counts.trials / counts.seconds:.1f} |"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Soak, write what was counted, and say whether all is sound."""
    parser = argparse.ArgumentParser(description="Studies to which everything happens at once.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--storage", default="postgresql", help="sqlite, postgresql, or the address of a database")
    parser.add_argument("--trials", type=int, default=600, help="of a study")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a trial")
    asked = parser.parse_args()
    kind = asked.storage if asked.storage in ("sqlite", "postgresql") else make_url(asked.storage).get_backend_name()
    counts = soak(asked)
    settings = {name: value for name, value in vars(asked).items() if name != "storage"}  # it may hold a password
    report = {"storage": kind, **settings, **dataclasses.asdict(counts)}
    report["trials_a_second"] = round(counts.trials / counts.seconds, 2)
    OUT.mkdir(exist_ok=True)
    (OUT / f"{kind}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (OUT / f"{kind}.md").write_text(table(kind, asked, counts), encoding="utf-8")
    print(table(kind, asked, counts))
    return 0 if counts.is_sound() else 1


if __name__ == "__main__":
    sys.exit(main())
