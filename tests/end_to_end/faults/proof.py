"""What a study's database must show after whatever has happened, read as Optuna itself reads it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from end_to_end.faults.crew import Worker
from end_to_end.faults.worker_process import POPULATION
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, SLOT, WORKER

Place = tuple[int, int]  # generation and index
Finished = tuple[str, Mapping[str, Any], float | None]  # state, genome and value


def trials_of(url: str, study: str) -> list[FrozenTrial]:
    """All trials of a study."""
    storage = RDBStorage(url, skip_table_creation=True)
    try:
        return storage.get_all_trials(storage.get_study_id_from_name(study))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def place(trial: FrozenTrial) -> Place:
    generation, index = trial.system_attrs[SLOT]
    return int(generation), int(index)


def places(count: int) -> list[Place]:
    """The first slots of a study."""
    return [divmod(position, POPULATION) for position in range(count)]


def is_finished(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def by_slot(trials: Sequence[FrozenTrial]) -> dict[Place, Finished]:
    """What came out of each slot; of one that finished twice, the first."""
    found: dict[Place, Finished] = {}
    for trial in trials:
        if is_finished(trial):
            found.setdefault(place(trial), (trial.state.name, trial.params, trial.value))
    return found


@dataclass(frozen=True)
class Account:
    """How often slots were tried and finished.

    Attributes:
        finished: Trials that finished.
        lost: Slots up to the budget that have no result.
        doubled: Slots that finished more than once.
        running: Trials that nobody has ended.
        died: Trials whose worker died or was not heard of.
        handed_back: Trials whose worker was told to stop.
        failed: Trials that failed for any other reason.
        changed: Slots that were not always tried with the same genome.
    """

    finished: int
    lost: int
    doubled: int
    running: int
    died: int
    handed_back: int
    failed: int
    changed: int


def account(trials: Sequence[FrozenTrial], budget: int) -> Account:
    """What has become of a study's trials."""
    results = Counter(place(trial) for trial in trials if is_finished(trial))
    reasons = Counter(trial.user_attrs.get(ERROR) for trial in trials if trial.state == TrialState.FAIL)
    genomes: dict[Place, set[str]] = {}
    for trial in trials:
        if trial.params:
            genomes.setdefault(place(trial), set()).add(repr(sorted(trial.params.items())))
    return Account(
        finished=sum(results.values()),
        lost=sum(slot not in results for slot in places(budget)),
        doubled=sum(count > 1 for count in results.values()),
        running=sum(not trial.state.is_finished() for trial in trials),
        died=reasons[DIED],
        handed_back=reasons[HANDED_BACK],
        failed=sum(reasons.values()) - reasons[DIED] - reasons[HANDED_BACK],
        changed=sum(len(different) > 1 for different in genomes.values()),
    )


def check(url: str, study: str, budget: int, undisturbed: Mapping[Place, Finished]) -> Account:
    """Check that a study is what one worker would have made of it that nothing ever happened to.

    Args:
        url: Address of the database.
        study: Name of the study.
        budget: How many trials were to finish.
        undisturbed: What one worker made of at least so many slots.
    """
    trials = trials_of(url, study)
    found = account(trials, budget)
    assert (found.finished, found.lost, found.doubled, found.running) == (budget, 0, 0, 0), found
    assert (found.failed, found.changed) == (0, 0), found
    assert differences(by_slot(trials), {slot: undisturbed[slot] for slot in places(budget)}) == []
    return found


def differences(found: Mapping[Place, Finished], wanted: Mapping[Place, Finished]) -> list[str]:
    """The slots, in order, that came out otherwise than they should, and what came out of them."""
    different = [slot for slot in found.keys() | wanted.keys() if found.get(slot) != wanted.get(slot)]
    return [f"{slot}: {found.get(slot)}, not {wanted.get(slot)}" for slot in sorted(different)]


class Watch:
    """Looks into the database of a running study.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def finished(self) -> int:
        """How many trials have finished."""
        query = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
        with self._engine.connect() as connection:
            return int(connection.execute(sqlalchemy.text(query)).scalar_one())

    def states_of(self, worker: Worker) -> dict[int, str]:
        """Number and state of the trials that a worker has taken."""
        return {number: state for number, state, pid in self._taken() if pid == worker.pid}

    def at_work(self) -> list[int]:
        """The process numbers of the workers that have a trial that nobody has ended."""
        return [pid for _, state, pid in self._taken() if state == "RUNNING"]

    def _taken(self) -> list[tuple[int, str, int]]:
        """Number, state, and the worker's process number of every trial."""
        query = sqlalchemy.text(
            "SELECT number, CAST(state AS VARCHAR), value_json FROM trials JOIN trial_system_attributes "
            f"ON trial_system_attributes.trial_id = trials.trial_id AND key = '{WORKER}'"
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [(number, state, int(json.loads(who)["pid"])) for number, state, who in rows]

    def is_running(self, worker: Worker) -> bool:
        """Whether a worker has a trial that nobody has ended."""
        return "RUNNING" in self.states_of(worker).values()

    def last_state(self, worker: Worker) -> str | None:
        """The state of the last trial that a worker has taken."""
        return max(self.states_of(worker).items(), default=(0, None))[1]
