"""Workers of studies of an analytic function: the real loop, database and sampler, and no model.

    python -m end_to_end.faults.worker_process

reads from its standard input a line of JSON for each worker, forks that worker, and writes its process number. Forking
spares every worker the seconds that imports take. What a worker says, and its exit status, stand in its log.
"""

import dataclasses
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState

from optmerge.errors import OptmergeError
from optmerge.space.gene import Gene, Value
from optmerge.study.charter import open_study
from optmerge.study.database import Database
from optmerge.study.sampler import Proposer, Sampler
from optmerge.study.samplers import cmaes, nsgaii
from optmerge.study.slots import Ledger, Slot
from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import ESTIMATE
from optmerge.study.worker import Outcome, Report, work

GENES = [*(Gene(f"x{i}") for i in range(4)), Gene("n", "int", low=1, high=6), Gene("on", "switch")]
POPULATION = 12
SEED = 7
STEPS = 3  # reports of a trial


@dataclass(frozen=True)
class Settings:
    """How a worker works, and what it does to itself.

    Attributes:
        url: Address of the database.
        study: Name of the study.
        log: Where it writes what it says.
        seconds: How long a trial takes, more or less.
        reports: Whether trials report before they end.
        beat: As in `open_storage`.
        grace: As there.
        patience: As there.
        sampler: `cmaes`, or `nsgaii`, which is one of Optuna's and asks the database much.
        deadly: Generation and index of a slot that kills whoever tries it.
        at_commit: Ordinal of one of its commits, before which it sends itself `sent`.
        sent: Number of a signal.
        environment: Further environment variables.
    """

    url: str
    study: str
    log: str
    seconds: float = 0.075
    reports: bool = True
    beat: float = 0.5
    grace: float = 2.0
    patience: float = 60.0
    sampler: str = "cmaes"
    deadly: Sequence[int] = ()
    at_commit: int | None = None
    sent: int = signal.SIGKILL
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def proposer(sampler: str = "cmaes") -> Proposer:
    """What gives the genomes of these studies."""
    if sampler == "nsgaii":
        return Sampler(nsgaii, nsgaii.Options()).proposer(GENES, SEED)
    return Sampler(cmaes, cmaes.Options(population=POPULATION)).proposer(GENES, SEED)


def fitness(genome: Mapping[str, Value]) -> float:
    """How good a genome is: the best is on, and its numbers are all different."""
    wanted = {"x0": 0.2, "x1": 0.4, "x2": 0.6, "x3": 0.8, "n": 5.0}
    distance = sum((1 + i) * (float(genome[name]) - best) ** 2 for i, (name, best) in enumerate(wanted.items()))
    return float(genome["on"]) - distance


@dataclass(frozen=True)
class Objective:
    """Sleeps, reports, and prunes what is worse than most of the last generation."""

    settings: Settings

    def __call__(self, slot: Slot, genome: Mapping[str, Value], ledger: Ledger, report: Report) -> Outcome:
        if list(self.settings.deadly) == list(slot):
            os.kill(os.getpid(), signal.SIGKILL)
        value, beaten_by = fitness(genome), self._reference(slot, ledger)
        attributes: dict[str, Any] = {"finished_by": os.getpid()}
        for step in range(1, STEPS + 1):
            _sleep(random.uniform(0.5, 1.5) * self.settings.seconds / STEPS)
            if self.settings.reports:
                report(step, value * step / STEPS)
            if step == STEPS - 1 and beaten_by is not None and value < beaten_by:
                return Outcome(TrialState.PRUNED, None, {**attributes, ESTIMATE: value})
        return Outcome(TrialState.COMPLETE, value, attributes)

    def _reference(self, slot: Slot, ledger: Ledger) -> float | None:
        last = slot.generation - 1 - (ledger.plan.lag or 0)
        if last < 0 or ledger.plan.lag is None:
            return None
        values = sorted(trial.value for trial in ledger.generation(last) if trial.value is not None)
        return values[len(values) // 4] if values else None


def _sleep(seconds: float) -> None:
    """Sleep as work is done, in small steps: of two signals at once, Linux may hide both from a sleeping thread."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(0.05, left))


def open_database(settings: Settings) -> Database:
    """The database of a worker with these settings."""
    return open_storage(settings.url, patience=settings.patience, beat=settings.beat, grace=settings.grace)


def _signal_itself(database: Database, settings: Settings) -> None:
    commits = 0

    def count(_: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == settings.at_commit:
            os.kill(os.getpid(), settings.sent)

    if settings.at_commit is not None:
        sqlalchemy.event.listen(database.engine, "commit", count)


def _work(settings: Settings) -> None:
    database = open_database(settings)
    opened = open_study(database, settings.study)
    _signal_itself(database, settings)
    for _ in work(opened.study, database, opened.plan, proposer(settings.sampler), Objective(settings)):
        pass


def _leave(*_: Any) -> None:
    """As the command does: a SIGTERM that follows is no second interruption."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _live(settings: Settings) -> int:
    """Work as the worker command does; gives the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(settings.environment)
    with Path(settings.log).open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, force=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    random.seed()
    try:
        _work(settings)
    except OptmergeError as error:
        print(f"optmerge: {error}", flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("optmerge: interrupted", flush=True)
        return 1
    return 0


def _fork(settings: Settings) -> int:
    child = os.fork()
    if child:
        return child
    status = 70  # of one that ends by an error that it does not know
    try:
        status = _live(settings)
    except BaseException:
        logging.exception("unexpected")
    finally:
        print(f"left with status {status}", flush=True)
        os._exit(status)


def main() -> None:
    """Fork a worker for every line of settings."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead do not stay as zombies
    for line in sys.stdin:
        print(_fork(Settings(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
