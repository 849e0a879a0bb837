"""What a study carries, so that a worker which knows no more than the database can join it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection

from optmerge.errors import UsageError
from optmerge.study.database import Database
from optmerge.study.identity import IDENTITY, check_identity
from optmerge.study.slots import Plan
from optmerge.tasks import Objective

SCHEMA, SCHEMA_VERSION = "optmerge:schema", 4  # system attribute: which trials a study has, and where they keep what
CONFIG = "config"  # user attribute: the whole configuration, but for addresses
GOAL = "objective"  # user attribute: the score that results are told in
OBJECTIVES = "objectives"  # user attribute: what is searched for, where that is more than one score
STARTS = "optmerge:starts"  # system attribute: genomes that it begins with
_PLAN = "optmerge:plan"  # system attribute


@dataclass(frozen=True)
class OpenStudy:
    """A study that trials can be taken from.

    Attributes:
        study: The Optuna study.
        database: Its database.
        plan: How the search proceeds.
        starts: Genomes that it begins with.
    """

    study: optuna.Study
    database: Database
    plan: Plan
    starts: Sequence[Mapping[str, Any]]

    @property
    def study_id(self) -> int:
        found: int = self.study._study_id
        return found

    @property
    def goal(self) -> Objective:
        """The score that its results are told in."""
        return Objective(**self.study.user_attrs.get(GOAL, {"name": "fitness"}))

    @property
    def objectives(self) -> Sequence[Objective]:
        """The scores that it searches for."""
        several = self.study.user_attrs.get(OBJECTIVES)
        return [Objective(**one) for one in several] if several else [self.goal]

    @property
    def pruner(self) -> str | None:
        """Name of its pruner; `none` where it searches for several scores: a trial may be the best in any."""
        settings = self.study.user_attrs.get(CONFIG, {}).get("pruner", {})
        return "none" if len(self.objectives) > 1 else settings.get("name")


def found_study(
    database: Database,
    name: str,
    *,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    plan: Plan,
    starts: Sequence[Mapping[str, Any]],
    goal: Objective | None = None,
    objectives: Sequence[Objective] = (),
) -> OpenStudy:
    """Create a study, or open the one that another process has just created.

    Args:
        database: Where.
        name: Its name.
        identity: What it is a study of.
        config: The configuration that it is to carry.
        plan: How the search is to proceed.
        starts: Genomes to begin with.
        goal: The score that its results are told in.
        objectives: What is searched for, where that is more than one score.

    Raises:
        UsageError: If there is a study of that name that is none of ours.
    """
    directions = [StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE for higher in plan.maximize]
    try:
        study = database.patiently(
            lambda: optuna.create_study(study_name=name, storage=database, directions=directions)
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=database)
        if study.directions != directions:
            raise UsageError(f"study {name!r} was not made by optmerge; choose another study.name") from None
        if IDENTITY in study.user_attrs:  # whole, and perhaps at work: its plan must not change
            check_identity(study, identity)
            return open_study(database, name)
    study_id = study._study_id
    database.set_study_system_attr(study_id, SCHEMA, SCHEMA_VERSION)
    database.set_study_system_attr(
        study_id, _PLAN, {"population": plan.population, "lag": plan.lag, "max_retries": plan.max_retries}
    )
    database.set_study_system_attr(study_id, STARTS, [dict(start) for start in starts])
    database.set_study_user_attr(study_id, CONFIG, dict(config))
    if goal is not None:
        database.set_study_user_attr(study_id, GOAL, asdict(goal))
    if len(objectives) > 1:
        database.set_study_user_attr(study_id, OBJECTIVES, [asdict(objective) for objective in objectives])
        study.set_metric_names([objective.name for objective in objectives])
    told = config.get("study", {})
    database.set_control(study_id, trials=told.get("trials", 0), stagnation=told.get("stagnation"), stop=False, since=0)
    check_identity(study, identity)  # last: a study with an identity is whole
    return open_study(database, name)


def exists(database: Database, name: str) -> bool:
    """Whether there is a study of that name that was created to the end."""
    names = database.patiently(lambda: optuna.get_all_study_names(database))
    if name not in names:
        return False
    study = optuna.load_study(study_name=name, storage=database)
    return IDENTITY in study.user_attrs or bool(study.get_trials(deepcopy=False))


def open_study(database: Database, name: str) -> OpenStudy:
    """Open a study.

    Raises:
        UsageError: If there is none of that name, or it is of another version of optmerge or none of ours.
    """
    if not exists(database, name):
        names = sorted(database.patiently(lambda: optuna.get_all_study_names(database)))
        known = f"it has {', '.join(names[:10])}{' and more' if len(names) > 10 else ''}" if names else "it has none"
        raise UsageError(f"study.name={name}: no such study in this database; {known}")
    study = optuna.load_study(study_name=name, storage=database)
    attributes = database.get_study_system_attrs(study._study_id)
    if IDENTITY not in study.user_attrs:
        raise UsageError(f"study {name!r} was not made by optmerge; choose another study.name")
    version = attributes.get(SCHEMA, 1)
    if version != SCHEMA_VERSION:
        age = "an older" if version < SCHEMA_VERSION else "a newer"
        drawn = "cmaes drew its genomes otherwise then"
        how = {1: "its trials have no slots", 2: drawn, 3: drawn}.get(version)
        why = f": {how}, so what its sampler learnt cannot be replayed" if how else ""
        raise UsageError(
            f"study {name!r} was made by {age} optmerge (schema {version}, this one writes {SCHEMA_VERSION}){why}; "
            "its results can still be looked at; search under another study.name"
        )
    control = database.control(study._study_id)
    plan = Plan(
        **attributes[_PLAN],
        maximize=tuple(direction == StudyDirection.MAXIMIZE for direction in study.directions),
        stagnation=control.get("stagnation"),
    )
    return OpenStudy(study, database, plan, attributes.get(STARTS, []))
