"""A worker: takes the slots of a study one after the other until none is left, as any number of others do beside it."""

import contextlib
import itertools
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import OptmergeError
from optmerge.space.gene import Value
from optmerge.study.database import Claim, Database, StorageError, TrialLostError, beating
from optmerge.study.sampler import Proposer
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, Ledger, Plan, Slot, Vacancy

_LEAST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two looks for a vacant slot
_BETWEEN_REAPS = 2.0  # seconds between two looks for trials of dead workers
_OFFERED = 1000  # vacant slots to choose from when others take some at the same time
_HURRY = 5.0  # seconds for handing a trial back
_INTERRUPTIONS = 3  # so many of them do not prevent that

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: Complete or pruned.
        values: The fitness of one that is complete, or one for each objective.
        attributes: What it leaves behind, as user attributes.
        constraints: Name to a number that is 0 or less where it is kept, as Optuna has them.
    """

    state: TrialState
    values: float | Sequence[float] | None
    attributes: Mapping[str, Any]
    constraints: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[int, float], None]
Evaluate = Callable[[Slot, Mapping[str, Value], Ledger, Report], Outcome]


class StoppedError(OptmergeError):
    """The study was told to stop, and this is what was asked for: no failure."""

    exit_code = 0

    def __init__(self, study: str) -> None:
        super().__init__(f"study {study} was told to stop; run the search command again to go on")


class TrialFailedError(OptmergeError):
    """A candidate failed; carries what it leaves behind."""

    def __init__(self, reason: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.attributes = attributes


def work(
    study: optuna.Study, database: Database, plan: Plan, proposer: Proposer, evaluate: Evaluate
) -> Iterator[FrozenTrial]:
    """Run trials until the study is done, giving each as it ends.

    A trial that fails is recorded with its reason and does not count.

    Args:
        study: The study.
        database: Its database; the study's control says how many trials there are to be.
        plan: How the search proceeds.
        proposer: Gives genomes.
        evaluate: Scores a genome.

    Raises:
        StoppedError: If the study was told to stop.
        OptmergeError: If the first trials of the study, or very many in a row, fail alike; or the database fails.
    """
    me = this_worker()
    try:
        yield from _work(study, database, plan, proposer, evaluate, me)
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        if not _is_interruption(error):
            raise
        database.patience = _HURRY  # whoever stops this worker does not wait for long
        _hand_back(study, database, me)
        if isinstance(error, Exception):
            raise KeyboardInterrupt from error
        raise


def _work(
    study: optuna.Study,
    database: Database,
    plan: Plan,
    proposer: Proposer,
    evaluate: Evaluate,
    me: Mapping[str, Any],
) -> Iterator[FrozenTrial]:
    study_id, ledger = study._study_id, Ledger(plan)
    pause, reaped = _LEAST_PAUSE, 0.0
    while True:
        control = database.control(study_id)
        if control.get("stop"):
            raise StoppedError(study.study_name)
        if time.monotonic() - reaped > _BETWEEN_REAPS:
            reap(study_id, database)
            reaped = time.monotonic()
        budget = int(control["trials"])
        trials = study.get_trials(deepcopy=False)
        failing = ledger.update(trials).failing(int(control.get("since", 0)))
        if failing:
            raise OptmergeError(failing)
        if ledger.is_done(budget):
            return
        claim, vacancies = None, list(itertools.islice(ledger.vacancies(budget), _OFFERED))
        if vacancies:
            _genome_of(vacancies[0], proposer, ledger)  # learning takes time: not while others wait for the lock
            known = max((trial._trial_id for trial in trials), default=-1)
            claim = database.claim(
                study_id,
                vacancies,
                known,
                lambda vacancy: _genome_of(vacancy, proposer, ledger),
                proposer.distributions,
                me,
            )
        if claim is None:
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST_PAUSE, pause * 2)
            continue
        pause = _LEAST_PAUSE
        try:
            _run(claim, study, database, ledger, proposer, evaluate)
        except TrialLostError:
            log.warning("trial %d was given to another worker, as this one was not heard of", claim.number)
            continue
        yield study.get_trials(deepcopy=False)[claim.number]


def _genome_of(vacancy: Vacancy, proposer: Proposer, ledger: Ledger) -> Mapping[str, Value] | None:
    if vacancy.heir_of is not None and vacancy.heir_of.params:
        params: dict[str, Value] = vacancy.heir_of.params
        return params
    return proposer.genome(vacancy.slot, ledger)


def _run(
    claim: Claim, study: optuna.Study, database: Database, ledger: Ledger, proposer: Proposer, evaluate: Evaluate
) -> None:
    def report(step: int, value: float) -> None:
        database.report(claim.trial_id, step, value)

    try:
        with beating(database, claim.trial_id):
            genome = claim.genome
            if genome is None:
                genome = proposer.complete(study, database, claim, ledger.plan.position(claim.slot))
            outcome = evaluate(claim.slot, genome, ledger, report)
    except (TrialLostError, StorageError):
        raise
    except Exception as error:  # whatever it is, such as exhausted memory: the next candidate may do better
        if _is_interruption(error):
            raise
        log.debug("trial failed", exc_info=True)
        reason = str(error) if isinstance(error, OptmergeError) else f"{type(error).__name__}: {_first_line(error)}"
        attributes = error.attributes if isinstance(error, TrialFailedError) else {}
        outcome = Outcome(TrialState.FAIL, None, {**attributes, ERROR: reason})
    database.finish(claim.trial_id, outcome.state, outcome.values, outcome.attributes, outcome.constraints)


def _is_interruption(error: BaseException | None) -> bool:
    """Whether this is how ctrl-C or a signal ended something; an error of whoever cleaned up may hide it."""
    while error is not None:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _hand_back(study: optuna.Study, database: Database, me: Mapping[str, Any]) -> None:
    """End the trial that this worker has, if it has one, so that others take its slot without waiting for the grace.

    It is looked up, as a worker that was interrupted by the end of a claim does not know what it has. And it is tried
    more than once, as ctrl-C reaches a worker twice: from the terminal, and from its launcher.
    """
    for _ in range(_INTERRUPTIONS):
        with contextlib.suppress(KeyboardInterrupt):
            try:
                database.hand_back(study._study_id, me, HANDED_BACK)
            except StorageError as error:
                log.warning("the trial at hand was left to be found by others: %s", error)
            return


def reap(study_id: int, database: Database) -> int:
    """End the trials of workers that died, so that others take their slots; says how many there were."""
    return database.reap(study_id, is_dead, DIED)


def this_worker() -> dict[str, Any]:
    """Who this process is: host, process number, time of its start, and where that number means something."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "numbers": _numbers(),
    }


def is_dead(worker: Mapping[str, Any]) -> bool:
    """Whether a worker of this machine is known to have ended; of others nothing is known."""
    if (worker.get("host"), worker.get("numbers")) != (socket.gethostname(), _numbers()):
        return False
    try:
        # Process numbers are used again; the time of its start tells a successor apart.
        process = psutil.Process(worker["pid"])
        same = bool(abs(process.create_time() - worker["started"]) < 1)
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _numbers() -> str:
    """What process numbers belong to: containers on one machine have their own."""
    try:
        return os.readlink("/proc/self/ns/pid") + Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
