"""A study database as a page in a browser can bear it: a few genes of each trial, and what it leaves in words.

optuna-dashboard sends every parameter of every trial to the browser, each with its distribution, and reads them all
anew at every look: 109 MB in a minute for 400 genes and 1000 trials.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.storages import RDBStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata
from sqlalchemy import Connection, select

from optmerge.study.charter import CONFIG, GOAL
from optmerge.study.database import _PARAMS, _TRIALS, _VALUES, Database
from optmerge.study.identity import IDENTITY, KEY
from optmerge.study.judge import EVALUATION
from optmerge.study.trial_scores import SCORES, SECONDS, decode

GENES = 20  # of a trial that are shown, by default
_LEAST, _MOST = 50, 300  # trials that the choice of genes goes by

_METRIC_NAMES = "study:metric_names"  # where Optuna keeps them
_UNREADABLE = (IDENTITY, KEY, CONFIG, GOAL, EVALUATION, "optmerge:")  # study attributes that are for programs


class Excerpt(Database):
    """A study database to look at: not for workers, nor to be copied from.

    Args:
        url: As of any study database.
        genes: So many genes of a study are shown; None shows all.
        waiting: As of any study database.
    """

    def __init__(self, url: str, *, genes: int | None, **waiting: Any) -> None:
        super().__init__(url, **waiting)
        self._most = genes
        self._chosen: dict[int, Sequence[str]] = {}
        self._read_now: Sequence[str] = ()
        self._one_at_a_time = threading.Lock()  # pages are served by threads

    def get_all_studies(self) -> list[FrozenStudy]:
        studies = self.patiently(lambda: RDBStorage.get_all_studies(self))
        for study in studies:
            if GOAL in study.user_attrs:
                study.system_attrs.setdefault(_METRIC_NAMES, [study.user_attrs[GOAL]["name"]])
            study.user_attrs = {
                key: value for key, value in study.user_attrs.items() if not key.startswith(_UNREADABLE)
            }
        return studies

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = super().get_trial(trial_id)
        shown = {name for names in self._chosen.values() for name in names}
        if self._most is not None and len(trial.params) > self._most:
            trial._params = {name: value for name, value in trial.params.items() if name in shown}
        return _readable(trial)

    def _get_trials(
        self, study_id: int, states: Any, included_trial_ids: set[int], trial_id_greater_than: int
    ) -> list[FrozenTrial]:
        with self._one_at_a_time:
            if self._most is not None and study_id not in self._chosen:
                chosen, final = self._read(lambda connection: self._choose(connection, study_id, self._most or 0))
                if final:
                    self._chosen[study_id] = chosen
                self._read_now = chosen
            else:
                self._read_now = self._chosen.get(study_id, ())
            trials = super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        return [_readable(trial) for trial in trials]

    def _genes_read(self, known: Sequence[int]) -> Any:
        every = super()._genes_read(known)
        return every if self._most is None else every & _PARAMS.c.param_name.in_(self._read_now)

    def _choose(self, connection: Connection, study_id: int, most: int) -> tuple[Sequence[str], bool]:
        """The genes to show, and whether that is settled: those that go most with the values, by rank."""
        of_study = _TRIALS.c.study_id == study_id
        query = select(_PARAMS.c.trial_id, _PARAMS.c.param_name, _PARAMS.c.param_value)
        first = select(_PARAMS.c.trial_id).join(_TRIALS, _TRIALS.c.trial_id == _PARAMS.c.trial_id)
        example = connection.execute(first.where(of_study).limit(1)).scalar()
        names = [
            name
            for _, name, _ in connection.execute(
                query.where(_PARAMS.c.trial_id == example).order_by(_PARAMS.c.param_id)
            )
        ]
        if len(names) <= most:
            return names, bool(names)
        rated = (
            select(_TRIALS.c.trial_id, _VALUES.c.value)
            .join(_VALUES, (_VALUES.c.trial_id == _TRIALS.c.trial_id) & (_VALUES.c.objective == 0))
            .where(of_study, _TRIALS.c.state == TrialState.COMPLETE, _VALUES.c.value.is_not(None))
            .order_by(_TRIALS.c.trial_id.desc())
            .limit(_MOST)
        )
        values: dict[int, float] = {row.trial_id: row.value for row in connection.execute(rated)}
        if len(values) < _LEAST:
            return names[:most], False
        row, column = {trial_id: i for i, trial_id in enumerate(values)}, {name: i for i, name in enumerate(names)}
        genomes = np.zeros((len(row), len(column)))
        for trial_id, name, value in connection.execute(query.where(_PARAMS.c.trial_id.in_(values))):
            if name in column:
                genomes[row[trial_id], column[name]] = value
        strength = np.abs(_correlations(genomes, np.array(list(values.values()))))
        return [names[i] for i in sorted(np.argsort(-strength, kind="stable")[:most])], True


def _correlations(genomes: Any, values: Any) -> Any:
    """Spearman's rank correlation of each column with the values; 0 for a column that does not vary."""
    ranks, goal = rankdata(genomes, axis=0), rankdata(values)
    ranks, goal = ranks - ranks.mean(axis=0), goal - goal.mean()
    size = np.sqrt((ranks**2).sum(axis=0) * (goal**2).sum())
    return np.divide(goal @ ranks, size, out=np.zeros(len(size)), where=size > 0)


def _readable(trial: FrozenTrial) -> FrozenTrial:
    """A trial whose attributes are numbers that a table can show and sort, in place of encoded scores."""
    found: dict[str, Any] = {}
    for key, value in trial.user_attrs.items():
        if key == SCORES:
            means = {metric: decode(encoded) for metric, encoded in value.items()}
            found |= {metric: round(float(np.nanmean(seen)), 6) for metric, seen in means.items() if not _blank(seen)}
        elif key == SECONDS:
            found[SECONDS] = round(sum(value.values()), 3)
        else:
            found[key] = value
    trial.user_attrs = found
    return trial


def _blank(scores: Any) -> bool:
    return bool(np.isnan(scores).all())
