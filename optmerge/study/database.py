"""The study database as workers use it: a trial is taken, reported and finished in one transaction each.

Optuna's tables are read and written as Optuna does, so that its tools see everything; what differs is the number of
transactions. Optuna's storage writes every parameter and attribute in one of its own, and reads a study row by row.
"""

import json
import math
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from optmerge.errors import OptmergeError
from optmerge.study.slots import ERROR, SLOT, WORKER, Slot, Vacancy

Found = TypeVar("Found")
Genome = Mapping[str, Any]
Maker = Callable[[Vacancy], Genome | None]

CONTROL = "optmerge:control"  # system attribute of a study: its budget, and whether it is to stop
_CONSTRAINT = "constraints"  # prefix of Optuna's system attributes of a trial
_CLAIM = "optmerge:claim"  # system attribute of a trial: a token of the attempt to create it

_STUDIES = models.StudyModel.__table__
_TRIALS = models.TrialModel.__table__
_PARAMS = models.TrialParamModel.__table__
_VALUES = models.TrialValueModel.__table__
_STUDY_USER = models.StudyUserAttributeModel.__table__
_USER = models.TrialUserAttributeModel.__table__
_SYSTEM = models.TrialSystemAttributeModel.__table__
_REPORTS = models.TrialIntermediateValueModel.__table__
_BEATS = models.TrialHeartbeatModel.__table__


class StorageError(OptmergeError):
    """The database failed, or did not answer for too long."""


class TrialLostError(Exception):
    """A trial was given to another worker while this one was not heard of; its late result must not count."""


@dataclass(frozen=True)
class Claim:
    """A slot that this worker has taken.

    Attributes:
        trial_id: Its trial in the database.
        number: The trial's number in the study.
        slot: The slot.
        genome: The genome; None where a sampler still has to give it.
    """

    trial_id: int
    number: int
    slot: Slot
    genome: Genome | None


class Database(RDBStorage):
    """A study database.

    Args:
        url: An SQLAlchemy URL.
        patience: Seconds for which an unreachable server is waited for.
        beat: Seconds between two signs of life of a worker.
        grace: Seconds after which a trial without one is given to another worker.
        engine_kwargs: As in SQLAlchemy's `create_engine`.
    """

    def __init__(
        self, url: str, *, patience: float, beat: float, grace: float, engine_kwargs: dict[str, Any] | None = None
    ) -> None:
        super().__init__(url, engine_kwargs=engine_kwargs)
        self.patience = patience
        self.beat = beat
        self.grace = grace
        self._held_up = -math.inf  # when the database was last waited for in vain
        self._distributions: dict[str, BaseDistribution] = {}
        self._jsons: dict[BaseDistribution, str] = {}
        # Trials that ran when they were read last. Their genomes are for good, so that only what came later is read.
        self._running: dict[int, FrozenTrial] = {}

    # Workers: take, report, finish.

    def claim(
        self,
        study_id: int,
        vacancies: Sequence[Vacancy],
        known: int,
        genome_of: Maker,
        distributions: Mapping[str, BaseDistribution],
        worker: Mapping[str, Any],
    ) -> Claim | None:
        """Take the first vacant slot that no one has taken meanwhile.

        Args:
            study_id: The study.
            vacancies: The vacant slots as this worker knows them, in the order of preference.
            known: The greatest trial id that this worker has read.
            genome_of: The genome of a vacancy; None leaves the parameters to be set later.
            distributions: Gene name to its distribution.
            worker: Who takes it.

        Returns:
            What was taken, or nothing if all were.
        """
        token = uuid.uuid4().hex

        def act(connection: Connection) -> Claim | None:
            self._lock(connection, study_id)
            taken: set[Slot] = set()
            for trial_id, number, slot, claim in self._newer(connection, study_id, known):
                if claim == token:  # committed, but the answer was lost on its way
                    return Claim(trial_id, number, slot, self._params(connection, trial_id, distributions) or None)
                taken.add(slot)
            vacancy = next((vacancy for vacancy in vacancies if vacancy.slot not in taken), None)
            if vacancy is None:
                return None
            genome = genome_of(vacancy)
            trial_id, number = self._insert(connection, study_id, vacancy.slot, token, worker)
            if genome is not None:
                self._insert_params(connection, trial_id, genome, distributions)
            return Claim(trial_id, number, vacancy.slot, genome)

        return self._transact(act)

    def set_genome(self, trial_id: int, genome: Genome, distributions: Mapping[str, BaseDistribution]) -> None:
        """Write the genome of a trial that was created without one."""

        def act(connection: Connection) -> None:
            self._still_running(connection, trial_id)
            if not self._params(connection, trial_id, distributions):
                self._insert_params(connection, trial_id, genome, distributions)

        self._transact(act)

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Store a partial fitness, which is a sign of life too.

        Raises:
            TrialLostError: If the trial was given to another worker.
        """
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)

        def act(connection: Connection) -> None:
            self._beat(connection, trial_id)
            row = {"trial_id": trial_id, "step": step}
            if connection.execute(select(_REPORTS.c.step).filter_by(**row)).first() is None:
                more = {"intermediate_value": stored, "intermediate_value_type": kind}
                connection.execute(_REPORTS.insert(), row | more)

        self._transact(act)

    def record_beat(self, trial_id: int) -> None:
        """Store a sign of life.

        Raises:
            TrialLostError: If the trial was given to another worker.
        """
        self._transact(lambda connection: self._beat(connection, trial_id))

    def finish(
        self,
        trial_id: int,
        state: TrialState,
        values: float | Sequence[float] | None,
        attributes: Mapping[str, Any],
        constraints: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """End a trial.

        Args:
            trial_id: The trial.
            state: Complete, pruned or failed.
            values: Its fitness, if it is complete; or one for each objective, as `optuna.Study.tell` takes them.
            attributes: User attributes that it leaves behind.
            constraints: As `optuna.Trial.set_constraint` would store them.

        Raises:
            TrialLostError: If the trial was given to another worker.
        """

        def act(connection: Connection) -> None:
            found = connection.execute(
                select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial_id).with_for_update()
            ).scalar()
            if found == state and self._kept_all(connection, trial_id, attributes):
                return  # committed, but the answer was lost on its way
            if found != TrialState.RUNNING:
                raise TrialLostError
            if constraints:
                rows = [
                    {"trial_id": trial_id, "key": f"{_CONSTRAINT}:{name}", "value_json": json.dumps(number)}
                    for name, number in constraints.items()
                ]
                connection.execute(_SYSTEM.insert(), rows)
            self._end(connection, trial_id, state, values, attributes)

        self._transact(act)

    def hand_back(self, study_id: int, worker: Mapping[str, Any], reason: str) -> None:
        """End whatever trials a worker has, without a result.

        Args:
            study_id: The study.
            worker: Who took them.
            reason: What is written down as the reason.
        """
        for trial_id, whose, _ in self.running(study_id):
            if whose == worker:
                with suppress(TrialLostError):  # it has ended meanwhile
                    self.finish(trial_id, TrialState.FAIL, None, {ERROR: reason})

    # Workers that died.

    def reap(self, study_id: int, is_dead: Callable[[Mapping[str, Any]], bool], reason: str) -> int:
        """End the trials of workers that are dead, or have not been heard of for the time of grace.

        Whoever has just waited for the database does not judge by silence: others waited too, and for them to be heard
        of again takes some time.

        Args:
            study_id: The study.
            is_dead: Whether a worker is known to be dead.
            reason: What is written down as the reason.

        Returns:
            How many trials were ended.
        """
        running = self.running(study_id)
        longest = self.grace if time.monotonic() - self._held_up > self.grace else math.inf
        suspects = {
            trial_id: dead
            for trial_id, worker, silent in running
            if (dead := worker is not None and is_dead(worker)) or silent > longest
        }
        if not suspects:
            return 0

        def act(connection: Connection) -> int:
            now = _naive(connection.execute(select(func.now())).scalar_one())
            rows = connection.execute(
                select(_TRIALS.c.trial_id, _BEATS.c.heartbeat)
                .join(_BEATS, _BEATS.c.trial_id == _TRIALS.c.trial_id)
                .where(_TRIALS.c.trial_id.in_(suspects), _TRIALS.c.state == TrialState.RUNNING)
                .with_for_update(of=_TRIALS)
            ).all()
            ended = 0
            for trial_id, heartbeat in rows:
                # It may have been heard of again since it was suspected.
                if suspects[trial_id] or (now - _naive(heartbeat)).total_seconds() > self.grace:
                    self._end(connection, trial_id, TrialState.FAIL, None, {ERROR: reason})
                    ended += 1
            return ended

        return self._transact(act)

    def running(self, study_id: int) -> list[tuple[int, Mapping[str, Any] | None, float]]:
        """Running trials: id, worker, and seconds since its last sign of life."""

        def act(connection: Connection) -> list[tuple[int, Mapping[str, Any] | None, float]]:
            now = _naive(connection.execute(select(func.now())).scalar_one())
            rows = connection.execute(
                select(_TRIALS.c.trial_id, _TRIALS.c.datetime_start, _BEATS.c.heartbeat, _SYSTEM.c.value_json)
                .join(_BEATS, _BEATS.c.trial_id == _TRIALS.c.trial_id, isouter=True)
                .join(
                    _SYSTEM,
                    (_SYSTEM.c.trial_id == _TRIALS.c.trial_id) & (_SYSTEM.c.key == WORKER),
                    isouter=True,
                )
                .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == TrialState.RUNNING)
            ).all()
            found = []
            for trial_id, _, heartbeat, worker in rows:
                silent = (now - _naive(heartbeat)) if heartbeat is not None else timedelta(0)
                found.append((trial_id, json.loads(worker) if worker else None, silent.total_seconds()))
            return found

        return self._read(act)

    # Control.

    def control(self, study_id: int) -> dict[str, Any]:
        """What the workers of a study are told: budget and whether to stop."""

        def act(connection: Connection) -> dict[str, Any]:
            text = connection.execute(
                select(models.StudySystemAttributeModel.value_json).where(
                    models.StudySystemAttributeModel.study_id == study_id,
                    models.StudySystemAttributeModel.key == CONTROL,
                )
            ).scalar()
            found: dict[str, Any] = json.loads(text) if text else {}
            return found

        return self._read(act)

    def set_control(self, study_id: int, **changes: Any) -> None:
        """Change some of what the workers of a study are told."""
        self.set_study_system_attr(study_id, CONTROL, self.control(study_id) | changes)

    def settle(self, study_id: int, key: str, value: Any) -> Any:
        """Give a study a user attribute unless it has it; what it has then is the same for all who ask.

        Args:
            study_id: The study.
            key: Name of the attribute.
            value: What it is to be if nobody was first.
        """

        def act(connection: Connection) -> Any:
            self._lock(connection, study_id)
            where = {"study_id": study_id, "key": key}
            row = connection.execute(select(_STUDY_USER.c.value_json).filter_by(**where)).first()
            if row is None:
                connection.execute(_STUDY_USER.insert(), where | {"value_json": json.dumps(value)})
                return value
            return json.loads(row[0])

        return self._transact(act)

    def attributes(self, study_id: int, key: str) -> dict[int, Any]:
        """A user attribute of all trials that have it, by trial number, in one query."""

        def act(connection: Connection) -> dict[int, Any]:
            rows = connection.execute(
                select(_TRIALS.c.number, _USER.c.value_json)
                .join(_USER, (_USER.c.trial_id == _TRIALS.c.trial_id) & (_USER.c.key == key))
                .where(_TRIALS.c.study_id == study_id)
                .order_by(_TRIALS.c.number)
            ).all()
            return {number: json.loads(value) for number, value in rows}

        return self._read(act)

    def annotate(self, attributes: Mapping[int, Mapping[str, Any]]) -> None:
        """Give trials system attributes that say nothing of their results, those that have ended too.

        Optuna's storage refuses that for trials that have ended, and takes a transaction for each.

        Args:
            attributes: Trial id to attributes, which replace those of the same name.
        """

        def act(connection: Connection) -> None:
            for trial_id, given in attributes.items():
                of_these = (_SYSTEM.c.trial_id == trial_id) & _SYSTEM.c.key.in_(given)
                connection.execute(_SYSTEM.delete().where(of_these))
                rows = [
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in given.items()
                ]
                connection.execute(_SYSTEM.insert(), rows)

        if attributes:
            self._transact(act)

    # What Optuna's own storage does, but patiently.

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.patiently(lambda: RDBStorage.set_study_user_attr(self, study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.patiently(lambda: RDBStorage.set_study_system_attr(self, study_id, key, value))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.patiently(lambda: RDBStorage.get_study_user_attrs(self, study_id))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.patiently(lambda: RDBStorage.get_study_id_from_name(self, study_name))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.patiently(lambda: RDBStorage.get_study_directions(self, study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.patiently(lambda: RDBStorage.get_study_system_attrs(self, study_id))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.patiently(lambda: RDBStorage.get_trial(self, trial_id))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.patiently(lambda: RDBStorage.set_trial_system_attr(self, trial_id, key, value))

    # Reading, much faster than Optuna's own.

    def _get_trials(
        self,
        study_id: int,
        states: Any,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        included = sorted(trial_id for trial_id in included_trial_ids if trial_id <= trial_id_greater_than)
        return self._read(
            lambda connection: self._trials(connection, study_id, states, included, trial_id_greater_than)
        )

    def _trials(
        self, connection: Connection, study_id: int, states: Any, included: Sequence[int], newer_than: int
    ) -> list[FrozenTrial]:
        wanted = _TRIALS.c.study_id == study_id
        if newer_than > -1:
            newer = _TRIALS.c.trial_id > newer_than
            wanted &= sqlalchemy.or_(newer, _TRIALS.c.trial_id.in_(included)) if included else newer
        if states is not None:
            wanted &= _TRIALS.c.state.in_(tuple(states))
        rows = connection.execute(select(_TRIALS).where(wanted).order_by(_TRIALS.c.trial_id)).all()
        if not rows:
            self._get_study(connection, study_id)
            return []
        unchanged = {row.trial_id for row in rows if row.state == TrialState.RUNNING} & self._running.keys()
        changed = [row for row in rows if row.trial_id not in unchanged]
        trials = {row.trial_id: _frozen(row) for row in changed}
        for trial_id in trials.keys() & self._running.keys():
            trials[trial_id]._params = self._running[trial_id]._params
            trials[trial_id]._distributions = self._running[trial_id]._distributions
        if changed:
            if unchanged:
                wanted = _TRIALS.c.trial_id.in_(sorted(trials))
            self._fill(connection, trials, wanted & (_TRIALS.c.trial_id <= rows[-1].trial_id))
        for trial_id, trial in trials.items():
            if trial.state == TrialState.RUNNING and trial.params:
                self._running[trial_id] = trial
            else:
                self._running.pop(trial_id, None)
        return [trials.get(row.trial_id) or self._running[row.trial_id] for row in rows]

    def _fill(self, connection: Connection, trials: Mapping[int, FrozenTrial], wanted: Any) -> None:
        def of(table: Any, *columns: Any, order: Any = None, but: Any = None) -> Iterator[Any]:
            query = select(table.c.trial_id, *columns).join(_TRIALS, _TRIALS.c.trial_id == table.c.trial_id)
            where = wanted if but is None else wanted & but
            yield from connection.execute(query.where(where).order_by(order if order is not None else columns[0]))

        known = [trial_id for trial_id, trial in trials.items() if trial._params]
        genes = of(
            _PARAMS,
            *(_PARAMS.c.param_name, _PARAMS.c.param_value, _PARAMS.c.distribution_json),
            order=_PARAMS.c.param_id,
            but=self._genes_read(known),
        )
        for trial_id, name, value, text in genes if len(known) < len(trials) else ():
            distribution = self._distribution(text)
            trial = trials[trial_id]
            trial._params[name] = distribution.to_external_repr(value)
            trial._distributions[name] = distribution
        for table, field in ((_USER, "_user_attrs"), (_SYSTEM, "_system_attrs")):
            for trial_id, key, text in of(table, table.c.key, table.c.value_json):
                getattr(trials[trial_id], field)[key] = json.loads(text)
        values: dict[int, list[float]] = {}
        stored = models.TrialValueModel.stored_repr_to_value
        for trial_id, _, value, kind in of(_VALUES, _VALUES.c.objective, _VALUES.c.value, _VALUES.c.value_type):
            values.setdefault(trial_id, []).append(stored(value, kind))
        for trial_id, of_trial in values.items():
            trials[trial_id].values = of_trial
        reported = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
        for trial_id, step, value, kind in of(
            _REPORTS, _REPORTS.c.step, _REPORTS.c.intermediate_value, _REPORTS.c.intermediate_value_type
        ):
            trials[trial_id].intermediate_values[step] = reported(value, kind)

    def _genes_read(self, known: Sequence[int]) -> Any:
        """Which genes are read: of all trials but those whose genomes are known."""
        return _TRIALS.c.trial_id.not_in(known) if known else sqlalchemy.true()

    def _get_study(self, connection: Connection, study_id: int) -> None:
        if connection.execute(select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == study_id)).scalar() is None:
            raise KeyError("Record does not exist.")

    # The parts of a transaction.

    def _lock(self, connection: Connection, study_id: int) -> None:
        """Hold back all others who would create a trial, until the transaction ends (SQLite: all who would write)."""
        connection.execute(select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == study_id).with_for_update()).one()

    def _newer(self, connection: Connection, study_id: int, known: int) -> Iterator[tuple[int, int, Slot, str | None]]:
        slot, claim = _SYSTEM.alias(), _SYSTEM.alias()
        rows = connection.execute(
            select(_TRIALS.c.trial_id, _TRIALS.c.number, slot.c.value_json, claim.c.value_json)
            .join(slot, (slot.c.trial_id == _TRIALS.c.trial_id) & (slot.c.key == SLOT))
            .join(claim, (claim.c.trial_id == _TRIALS.c.trial_id) & (claim.c.key == _CLAIM), isouter=True)
            .where(_TRIALS.c.study_id == study_id, _TRIALS.c.trial_id > known)
        ).all()
        for trial_id, number, where, token in rows:
            yield trial_id, number, Slot(*json.loads(where)), json.loads(token) if token else None

    def _insert(
        self, connection: Connection, study_id: int, slot: Slot, token: str, worker: Mapping[str, Any]
    ) -> tuple[int, int]:
        last = connection.execute(
            select(_TRIALS.c.number).where(_TRIALS.c.study_id == study_id).order_by(_TRIALS.c.trial_id.desc()).limit(1)
        ).scalar()
        number = 0 if last is None else last + 1
        trial_id = connection.execute(
            _TRIALS.insert().returning(_TRIALS.c.trial_id),
            {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": _utc_now()},
        ).scalar_one()
        connection.execute(
            _SYSTEM.insert(),
            [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in ((SLOT, list(slot)), (WORKER, dict(worker)), (_CLAIM, token))
            ],
        )
        connection.execute(_BEATS.insert(), {"trial_id": trial_id})
        return int(trial_id), int(number)

    def _insert_params(
        self, connection: Connection, trial_id: int, genome: Genome, distributions: Mapping[str, BaseDistribution]
    ) -> None:
        rows = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distribution.to_internal_repr(genome[name]),
                "distribution_json": self._json(distribution),
            }
            for name, distribution in distributions.items()
        ]
        # With RETURNING, SQLAlchemy writes a thousand rows in one statement.
        connection.execute(_PARAMS.insert().returning(_PARAMS.c.param_id), rows)

    def _params(
        self, connection: Connection, trial_id: int, distributions: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        rows = connection.execute(
            select(_PARAMS.c.param_name, _PARAMS.c.param_value).where(_PARAMS.c.trial_id == trial_id)
        )
        return {name: distributions[name].to_external_repr(value) for name, value in rows}

    def _still_running(self, connection: Connection, trial_id: int) -> None:
        state = connection.execute(
            select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial_id).with_for_update()
        ).scalar()
        if state != TrialState.RUNNING:  # none at all after a server has forgotten its last second
            raise TrialLostError

    def _beat(self, connection: Connection, trial_id: int) -> None:
        self._still_running(connection, trial_id)
        connection.execute(_BEATS.update().where(_BEATS.c.trial_id == trial_id).values(heartbeat=func.now()))

    def _end(
        self,
        connection: Connection,
        trial_id: int,
        state: TrialState,
        values: float | Sequence[float] | None,
        attributes: Mapping[str, Any],
    ) -> None:
        if attributes:
            rows = [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(given)} for key, given in attributes.items()
            ]
            connection.execute(_USER.insert(), rows)
        if values is not None:
            rows = []
            for objective, value in enumerate([values] if isinstance(values, float | int) else values):
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                rows.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
            connection.execute(_VALUES.insert(), rows)
        connection.execute(
            _TRIALS.update().where(_TRIALS.c.trial_id == trial_id).values(state=state, datetime_complete=_utc_now())
        )

    def _kept_all(self, connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        rows = connection.execute(select(_USER.c.key, _USER.c.value_json).where(_USER.c.trial_id == trial_id))
        kept = {row.key: row.value_json for row in rows}
        return all(kept.get(key) == json.dumps(value) for key, value in attributes.items())

    def _json(self, distribution: BaseDistribution) -> str:
        if distribution not in self._jsons:
            self._jsons[distribution] = distribution_to_json(distribution)
        return self._jsons[distribution]

    def _distribution(self, text: str) -> BaseDistribution:
        if text not in self._distributions:
            self._distributions[text] = json_to_distribution(text)
        return self._distributions[text]

    # Waiting for a server that is away.

    def _transact(self, act: Callable[[Connection], Found]) -> Found:
        def once() -> Found:
            with self.engine.begin() as connection:
                return act(connection)

        return self.patiently(once)

    def _read(self, act: Callable[[Connection], Found]) -> Found:
        def once() -> Found:
            with reading(self.engine) as connection:
                return act(connection)

        return self.patiently(once)

    def patiently(self, act: Callable[[], Found]) -> Found:
        """Do something, again and again while the server is away or others hold the database.

        Raises:
            StorageError: If that lasts longer than the patience, or will not pass by itself, as a full disk.
        """
        began, pause = time.monotonic(), 0.05
        while True:
            try:
                with _undisturbed():
                    found = act()
                if time.monotonic() - began > self.beat:
                    self._held_up = time.monotonic()
                return found
            except (DBAPIError, StorageInternalError) as error:
                cause = error if isinstance(error, DBAPIError) else error.__cause__
                if not isinstance(cause, DBAPIError):
                    raise
                reason = (str(cause.orig).splitlines() or ["no reason given"])[0]
                if not self._passes(cause):
                    raise StorageError(f"the study database failed: {reason}") from error
                if time.monotonic() - began > self.patience:
                    raise StorageError(
                        f"the study database has not answered for {self.patience:.0f} s: {reason}"
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(5.0, self.beat, pause * 2)

    def _passes(self, error: DBAPIError) -> bool:
        if self.engine.dialect.name == "sqlite":
            return "locked" in str(error.orig) or "busy" in str(error.orig)
        # Of errors in what was asked, such as a value that is too long, only the deadlock passes.
        lost = isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
        return lost or "deadlock" in str(error.orig)


@contextmanager
def reading(engine: sqlalchemy.Engine) -> Iterator[Connection]:
    """A connection for reading alone: on SQLite without the write lock, and all of it as of one moment."""
    options: dict[str, Any] = {"optmerge_reading": True}
    if engine.dialect.name == "postgresql":
        # By default its every statement sees what was committed before it: parameters of trials that the one before
        # did not see.
        options["isolation_level"] = "REPEATABLE READ"
    with engine.connect().execution_options(**options) as connection:
        yield connection


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back ctrl-C and requests to leave, until the context ends.

    An interruption in the middle of a transaction may leave it open, and with it the lock that handing the trial back
    needs.
    """
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for told in held:
            signal.raise_signal(told)


@contextmanager
def beating(database: Database, trial_id: int) -> Iterator[None]:
    """Give signs of life for a trial, from a thread, as long as the context lasts and the trial is this worker's."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(database.beat):
            try:
                database.record_beat(trial_id)
            except TrialLostError:  # the worker learns it from its next report
                return
            except Exception:  # noqa: S112 - the worker itself will meet the same error, and tell
                continue

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _frozen(row: Any) -> FrozenTrial:
    """A trial as it stands in its own row."""
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=None,
        datetime_start=_local(row.datetime_start),
        datetime_complete=_local(row.datetime_complete),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=row.trial_id,
    )


def _naive(moment: Any) -> datetime:
    found = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    return found.replace(tzinfo=None)


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _local(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if moment is not None else None
