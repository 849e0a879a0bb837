"""What a study carries, and which studies are opened."""

import json
import threading
from typing import Any

import optuna
import pytest
import sqlalchemy

from optmerge.commands.search import settings_to_keep
from optmerge.commands.worker import carried_config
from optmerge.config import Config, compose_config
from optmerge.errors import UsageError
from optmerge.study.charter import CONFIG, SCHEMA, SCHEMA_VERSION, OpenStudy, exists, found_study, open_study
from optmerge.study.database import Database
from optmerge.study.identity import IDENTITY, KEY
from optmerge.study.slots import Plan
from study.studies import connected

IDENTITY_OF_OURS = {"genes": {"weight": ["float", 0.0, 1.0, 0.5]}, "search": {"seed": 0}}
STARTS = [{"weight": 0.25, "on": True, "sources": "a+b", "layers": 3}]
PLAN = Plan(population=7, lag=1, maximize=(False,), max_retries=5)


def found(database: Database, name: str = "mine", **changes: Any) -> OpenStudy:
    given: dict[str, Any] = {
        "identity": IDENTITY_OF_OURS,
        "config": {"study": {"trials": 9}},
        "plan": PLAN,
        "starts": STARTS,
        **changes,
    }
    return found_study(database, name, **given)


def test_a_study_is_opened_with_all_that_it_was_given(either: Database, url: str) -> None:
    found(either)
    with connected(url) as other:
        opened = open_study(other, "mine")
        assert opened.plan == PLAN
        assert list(opened.starts) == STARTS
        assert opened.study.user_attrs[CONFIG] == {"study": {"trials": 9}}
        assert opened.study.user_attrs[IDENTITY] == IDENTITY_OF_OURS
        assert opened.study.direction == optuna.study.StudyDirection.MINIMIZE
        assert opened.study_id == other.get_study_id_from_name("mine")


def test_whether_a_search_may_stagnate_is_told_by_its_control(database: Database) -> None:
    opened = found(database)
    assert opened.plan.stagnation is None
    database.set_control(opened.study_id, stagnation=4)
    assert open_study(database, "mine").plan.stagnation == 4


def test_a_study_has_a_key_of_its_own(database: Database) -> None:
    keys = {found(database, name).study.user_attrs[KEY] for name in ("mine", "other")}
    assert len(keys) == 2


def test_processes_that_found_a_study_at_once_open_the_same(url: str) -> None:
    with connected(url):
        pass  # its tables are made once
    opened: list[tuple[int, str, Plan]] = []
    together = threading.Barrier(4)

    def found_mine() -> None:
        with connected(url) as own:
            together.wait()
            study = found(own)
            opened.append((study.study_id, study.study.user_attrs[IDENTITY]["search"]["seed"], study.plan))

    threads = [threading.Thread(target=found_mine) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and all(one == opened[0] for one in opened)


def test_whoever_comes_late_changes_no_plan_of_a_study(database: Database) -> None:
    found(database)
    again = found(database, plan=Plan(population=99, lag=0, maximize=(False,)), config={"other": 1}, starts=[])
    assert again.plan == PLAN and list(again.starts) == STARTS
    assert again.study.user_attrs[CONFIG] == {"study": {"trials": 9}}


def test_another_search_of_the_same_name_is_refused_and_changes_nothing(database: Database) -> None:
    found(database)
    with pytest.raises(UsageError, match="study 'mine' exists with another .*search.seed was 0, now 1"):
        found(
            database, identity={**IDENTITY_OF_OURS, "search": {"seed": 1}}, plan=Plan(3, maximize=(False,)), config={}
        )
    opened = open_study(database, "mine")
    assert opened.plan == PLAN and opened.study.user_attrs[CONFIG] == {"study": {"trials": 9}}


# Studies that are not there, or not ours


def test_a_study_that_is_not_there_is_refused_with_those_that_are(database: Database) -> None:
    with pytest.raises(UsageError, match="study.name=mine: no such study in this database; it has none"):
        open_study(database, "mine")
    for name in ("b", "a"):
        found(database, name)
    with pytest.raises(UsageError, match="study.name=mine: no such study in this database; it has a, b$"):
        open_study(database, "mine")


def test_a_study_that_was_not_created_to_the_end_is_none_yet_and_is_completed(database: Database) -> None:
    optuna.create_study(study_name="mine", storage=database, direction="minimize")
    assert not exists(database, "mine")
    with pytest.raises(UsageError, match="no such study"):
        open_study(database, "mine")
    assert found(database).plan == PLAN
    assert exists(database, "mine")


def test_a_study_of_somebody_else_is_refused(database: Database) -> None:
    study = optuna.create_study(study_name="mine", storage=database, direction="minimize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert exists(database, "mine")
    for attempt in (lambda: open_study(database, "mine"), lambda: found(database)):
        with pytest.raises(UsageError, match="study 'mine' was not made by optmerge; choose another study.name"):
            attempt()


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_an_empty_study_of_somebody_else_with_another_direction_is_refused(
    database: Database, directions: list[str]
) -> None:
    optuna.create_study(study_name="mine", storage=database, directions=directions)
    with pytest.raises(UsageError, match="study 'mine' was not made by optmerge"):
        found(database)


# Other versions


def with_schema(database: Database, version: int | None) -> None:
    study_id = found(database).study_id
    with database.engine.begin() as connection:
        where = {"study": study_id, "key": SCHEMA}
        if version is None:
            text = "DELETE FROM study_system_attributes WHERE study_id = :study AND key = :key"
        else:
            text = "UPDATE study_system_attributes SET value_json = :value WHERE study_id = :study AND key = :key"
            where["value"] = json.dumps(version)
        assert connection.execute(sqlalchemy.text(text), where).rowcount == 1


def test_a_study_from_before_there_were_slots_is_refused_with_the_reason(database: Database) -> None:
    with_schema(database, None)
    message = rf"an older optmerge \(schema 1, this one writes {SCHEMA_VERSION}\): its trials have no slots"
    with pytest.raises(UsageError, match=message) as caught:
        open_study(database, "mine")
    assert "its results can still be looked at" in str(caught.value)
    assert "another study.name" in str(caught.value) and "\n" not in str(caught.value)


def test_a_study_of_a_newer_version_is_refused(database: Database) -> None:
    with_schema(database, SCHEMA_VERSION + 1)
    with pytest.raises(UsageError, match=rf"made by a newer optmerge \(schema {SCHEMA_VERSION + 1}") as caught:
        open_study(database, "mine")
    assert "slots" not in str(caught.value)


def test_a_refused_study_is_left_as_it_is(database: Database) -> None:
    with_schema(database, SCHEMA_VERSION + 1)
    before = database.get_study_system_attrs(1)
    with pytest.raises(UsageError):
        found(database)
    assert database.get_study_system_attrs(1) == before


# The configuration that it carries

SECRET = "sesame"


def secretive(tmp_path: Any) -> Config:
    """A configuration with a password wherever an address may hold one."""
    (tmp_path / "url").write_text(f"postgresql://me:{SECRET}@host/studies\n")
    return compose_config(
        [
            "+experiment=demo",
            f"storage.url_file={tmp_path / 'url'}",
            f"tracking.uri='postgresql://me:{SECRET}@host/runs'",
        ]
    )


def test_the_configuration_that_a_study_carries_holds_no_address(tmp_path: Any) -> None:
    config = secretive(tmp_path)
    assert SECRET in config.storage.url and SECRET in config.tracking["uri"]
    assert SECRET not in json.dumps(settings_to_keep(config))
    assert SECRET in config.storage.url  # the search itself still knows it


def test_a_worker_has_the_configuration_of_the_search_and_addresses_of_its_own(
    database: Database, tmp_path: Any
) -> None:
    config = secretive(tmp_path)
    opened = found(database, config=settings_to_keep(config))
    here = compose_config([f"storage.url={database.engine.url}", "study.folder=elsewhere", "storage.beat=3"])
    seen = carried_config(opened, here, ["study.name=mine", "engine.threads=1", "models.sources.ja.path=/models/ja"])
    assert (seen.storage.url, seen.storage.beat, seen.study.folder) == (str(database.engine.url), 3.0, "elsewhere")
    assert (seen.engine["threads"], seen.models.sources["ja"].path) == (1, "/models/ja")
    for group in ("space", "method", "task", "sampler", "pruner", "merging"):
        assert getattr(seen, group) == getattr(config, group)
    assert (seen.study.seed, seen.study.trials) == (config.study.seed, config.study.trials)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sampler=tpe", "'sampler=tpe': a worker takes settings, such as engine.device=cpu"),
        ("engine.moon=1", "engine.moon"),
        ("study.trails=3", "study.trails"),
        ("fast", "'fast': a worker takes settings"),
    ],
)
def test_a_worker_refuses_what_is_no_setting(database: Database, word: str, message: str) -> None:
    opened = found(database, config=settings_to_keep(compose_config([])))
    from optmerge.commands.assembly import find_plugins

    with pytest.raises(UsageError) as caught:
        find_plugins(carried_config(opened, compose_config([]), [word]))
    assert message in str(caught.value) and "\n" not in str(caught.value)
