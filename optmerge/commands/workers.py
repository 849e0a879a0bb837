"""A search whose trials run in other processes: they are started, watched, and shown as one."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.assembly import Assembly
from optmerge.commands.study_folder import RESULT
from optmerge.errors import OptmergeError
from optmerge.registered import added_files
from optmerge.study.charter import OpenStudy
from optmerge.study.launchers.launcher import Crew, Job
from optmerge.tracking import Tracker

_PAUSE = 1.0  # seconds between two looks
CODE_FOLDER = "include_path"  # a setting of tasks


def run_workers(assembly: Assembly, opened: OpenStudy, tracker: Tracker, folder: Path, console: Console) -> None:
    """Let the launcher's workers run the trials of a study until none is left.

    Raises:
        StoppedError: If the study was told to stop.
        OptmergeError: If they cannot go on.
    """
    from optmerge.commands.noticeboard import Noticeboard
    from optmerge.commands.search import Shown, progress_line
    from optmerge.study.slots import Ledger
    from optmerge.study.worker import StoppedError

    launcher = assembly.plugins.launcher
    ledger = Ledger(opened.plan)
    with (
        progress_line(assembly, opened, console) as line,
        Shown(opened, line, tracker, Noticeboard(assembly, opened, folder)) as shown,
        _crew(assembly, folder) as crew,
    ):
        console.print(f"{launcher.workers} workers; what they say is in {folder / 'workers'}", highlight=False)
        while True:
            left = crew.look()  # first: those that leave when all is done must not look as if they had fled
            control = opened.database.control(opened.study_id)
            ledger.update(opened.study.get_trials(deepcopy=False))
            shown.update()
            if ledger.is_done(int(control["trials"])):
                return
            if left == 0:
                name = opened.study.study_name
                if control.get("stop"):
                    raise StoppedError(name)
                raise OptmergeError(f"study {name} has lost all its workers before the end; run the same command again")
            time.sleep(_PAUSE)


@contextlib.contextmanager
def _crew(assembly: Assembly, folder: Path) -> Any:
    launcher = assembly.plugins.launcher
    crew = launcher.start(_job(assembly, folder), launcher.workers)
    try:
        yield crew
    finally:
        crew.stop()


def code_folders(task: Mapping[str, Any], where: str = "task") -> Iterator[tuple[str, str]]:
    """The settings of a task that name folders whose code is run: workers learn of them from their command line alone.

    Args:
        task: Settings of a task, or a part of them.
        where: What comes before the names of these settings.
    """
    for name, value in task.items():
        if name == CODE_FOLDER and value is not None:
            yield f"{where}.{name}", str(Path(value).absolute())
        elif isinstance(value, Mapping):
            yield from code_folders(value, f"{where}.{name}")


def _job(assembly: Assembly, folder: Path) -> Job:
    config = assembly.config
    settings = [f"study.folder={config.study.folder}"]
    settings += [f"storage.{name}={getattr(config.storage, name):g}" for name in ("patience", "beat", "grace")]
    settings += [f"{setting}={folder}" for setting, folder in code_folders(config.task)]
    settings += [word for path in added_files() for word in ("--plugin", str(path))]
    return Job(
        str(config.study.name),
        config.storage.url,
        settings,
        folder,
        config.tracking.get("uri"),
        config.storage.patience,
    )


def end_elsewhere(assembly: Assembly, folder: Path, console: Console) -> dict[str, Any]:
    """Let one more worker choose the winner and write it, where workers run; gives the contents of its result.json.

    Raises:
        OptmergeError: If it fails.
    """
    crew: Crew = assembly.plugins.launcher.start(_job(assembly, folder), 1, "end=true")
    try:
        with console.status("scoring the finalists, where the workers ran"):
            while crew.look():
                time.sleep(_PAUSE)
    finally:
        crew.stop()
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptmergeError(
            f"{folder / RESULT} cannot be read ({error}); study.folder must be one that all machines share"
        ) from error
    return result
