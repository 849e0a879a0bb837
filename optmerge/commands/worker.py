"""The worker command: join a running study, from any machine, knowing no more than its database."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from optmerge.commands.assembly import Assembly, Run, assemble, find_plugins
from optmerge.commands.ending import finish
from optmerge.commands.search import objective_of, open_database, quiet_libraries, start_engine
from optmerge.commands.words import check_settings
from optmerge.commands.workers import CODE_FOLDER
from optmerge.config import Config, compose_config, explain, masked, typed_config
from optmerge.errors import UsageError
from optmerge.study.charter import CONFIG, OpenStudy, open_study
from optmerge.tracking import none

_WHERE = ("storage", "study.name", "study.folder")  # settings that find a study


def named_study(overrides: Sequence[str]) -> tuple[Config, OpenStudy]:
    """The study that `study.name` and `storage.url` name, and a configuration that says where things are.

    Raises:
        UsageError: If there is no such study.
    """
    where = [word for word in overrides if word.startswith(_WHERE)]
    if not any(word.startswith("study.name=") for word in where):
        raise UsageError("study.name is missing: say which study, as in study.name=demo-seed0")
    config = compose_config(where)
    return config, open_study(open_database(config, create=False), str(config.study.name))


def carried_config(opened: OpenStudy, here: Config, overrides: Sequence[str]) -> Config:
    """The configuration that a study carries, with settings of this worker's own.

    Args:
        opened: The study.
        here: Where its database and folder are, seen from here.
        overrides: Settings, such as `models.sources.ja.path=/models/ja`.

    Raises:
        UsageError: If a setting is unknown, or names another file of a group.
    """
    for word in overrides:
        name = word.split("=")[0]
        if "=" not in word or ("." not in name and name not in ("end", "storage")):
            raise UsageError(
                f"{masked(word)!r}: a worker takes settings, such as engine.device=cpu; the study has the rest"
            )
    own = [word for word in overrides if not word.startswith("storage") and not word.startswith("end=")]
    carried = opened.study.user_attrs[CONFIG]
    _forget_code(carried["task"])
    carried["storage"] = dataclasses.asdict(here.storage)
    carried["study"]["folder"] = here.study.folder
    if carried["tracking"]["name"] == here.tracking["name"] and "uri" in here.tracking:
        carried["tracking"]["uri"] = here.tracking["uri"]  # may hold a password, so it is not carried
    try:
        merged = OmegaConf.merge(OmegaConf.create(carried), OmegaConf.from_dotlist(own))
    except OmegaConfBaseException as error:
        raise UsageError(explain(error)) from error
    assert isinstance(merged, DictConfig)
    return typed_config(merged, {})


def _forget_code(task: dict[str, Any]) -> None:
    """Take folders whose code would be run out of a task's settings: a database may not name them."""
    task.pop(CODE_FOLDER, None)
    for value in task.values():
        if isinstance(value, dict):
            _forget_code(value)


def run_worker(overrides: Sequence[str], console: Console) -> None:
    """Take trials of a study until none is left.

    Raises:
        OptmergeError: If the study cannot be joined from here, or fails.
    """
    from optmerge.study.identity import check_identity
    from optmerge.study.trial_scores import value_of
    from optmerge.study.worker import StoppedError, work

    check_settings("worker", overrides)
    quiet_libraries()
    here, opened = named_study(overrides)
    config = carried_config(opened, here, overrides)
    config.launcher = {"name": "local"}  # it starts no others, and what the study's launcher needs may not be here

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    assembly = assemble(config, find_plugins(config), say)
    check_identity(opened.study, assembly.identity())
    if "end=true" in overrides:
        _end(assembly, opened, console)
        return
    engine, workbench = start_engine(assembly, say)
    run = Run(assembly, opened, engine, workbench, none.NoTracker(), Path(), console)
    proposer = assembly.plugins.sampler.proposer(assembly.space.genes, config.study.seed, opened.starts)
    done = 0
    try:
        for trial in work(opened.study, opened.database, opened.plan, proposer, objective_of(run)):
            done += 1
            fitness = value_of(trial, opened.goal)
            value = "" if fitness is None else f" {opened.goal.shown(fitness)}"
            say(f"trial {trial.number} {trial.state.name.lower()}{value}")
    except StoppedError as stopped:
        say(str(stopped))
    say(f"left study {opened.study.study_name} after {done} trials")


def _end(assembly: Assembly, opened: OpenStudy, console: Console) -> None:
    """Choose, test, write and register the winner of a study whose trials are done."""
    from optmerge.study.identity import KEY

    module, options = assembly.plugins.tracking
    tracker = module.build(options)
    engine, workbench = start_engine(assembly, lambda text: None)
    folder = assembly.config.study.own_folder
    settings: dict[str, Any] = opened.study.user_attrs[CONFIG]
    study, goal, problems = opened.study, assembly.plugins.task.goal, assembly.problem_sets()
    tracker.start(study.study_name, study.user_attrs[KEY], settings, goal, problems)
    finish(Run(assembly, opened, engine, workbench, tracker, folder, console))
