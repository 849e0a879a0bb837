"""The fork command: a new study that begins from the best of an old one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from optmerge.commands.assembly import assemble, find_plugins
from optmerge.commands.search import quiet_libraries, run_search
from optmerge.commands.words import check_settings
from optmerge.commands.worker import carried_config, named_study
from optmerge.errors import UsageError
from optmerge.study.charter import exists
from optmerge.study.result import compromises, ranked
from optmerge.study.slots import front_of

_BEST = 5  # so many trials of the old study begin the new one


def run_fork(overrides: Sequence[str], console: Console) -> None:
    """Search under a new name, beginning from the best trials of a study.

    Args:
        overrides: `study.name` of the old study, `as=NAME` of the new one, and settings that are to be different.
        console: Where progress and results go.

    The same command again goes on with a fork that was interrupted.

    Raises:
        UsageError: If there is no such study, it has no finished trial, or the new name is taken.
    """
    check_settings("fork", overrides)
    quiet_libraries()
    names = [word.removeprefix("as=") for word in overrides if word.startswith("as=")]
    settings = [word for word in overrides if not word.startswith("as=")]
    where = [word for word in settings if word.startswith(("storage", "study.name", "study.folder"))]
    here, opened = named_study(settings)
    old = opened.study.study_name
    new = names[-1] if names else f"{old}-fork"
    if not new:
        raise UsageError("as= is empty: it names the new study, as in as=second")
    config = carried_config(opened, here, [*(word for word in settings if word not in where), f"study.name={new}"])
    folder = Path(config.study.folder) / new / "starts"
    if exists(opened.database, new):
        if not folder.is_dir():
            raise UsageError(f"study {new} exists already; give the fork another name, as in as={old}-2")
        run_search(config, console)
        return
    order = ranked(opened.study, opened.goal)
    if len(opened.objectives) > 1:
        apart = compromises(front_of(order, opened.plan), opened.plan, opened.goal, _BEST)
        order = apart + [trial for trial in order if trial not in apart]
    best = order[:_BEST]
    if not best:
        raise UsageError(f"study {old} has no trial that ran to the end, so there is nothing to begin from")
    before = carried_config(opened, here, where)
    assembly = assemble(before, find_plugins(before), lambda text: None)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config.study.warm_start = []
    for trial in best:
        path = folder / f"{old}-trial-{trial.number}.yaml"
        assembly.space.decode(trial.params).save(path)
        config.study.warm_start.append(str(path))
    run_search(config, console)
