"""The report command: what a study has found, on one page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from rich.console import Console

from optmerge.commands.ending import result_that_holds
from optmerge.commands.study_folder import BEST, REPORT, RESPONSES, RESULT
from optmerge.commands.words import own_words
from optmerge.commands.worker import carried_config, named_study
from optmerge.config import Config, options_of
from optmerge.errors import OptmergeError, UsageError
from optmerge.recipe import RECIPE, load_recipe
from optmerge.study.charter import CONFIG, OpenStudy
from optmerge.study.identity import IDENTITY
from optmerge.study.judge import evaluation_key

if TYPE_CHECKING:
    from optmerge.reports.findings import Ending
    from optmerge.tasks import Problem


def run_report(arguments: Sequence[str], console: Console) -> None:
    """Write the report of a study, finished or not, without loading its models.

    Args:
        arguments: `study.name=NAME`, and where things are: `storage.url`, `study.folder`, settings of `task` where its
            problems have moved; `out=FOLDER`; `watts=NUMBER`.
        console: Where it is said where the report is.

    Raises:
        UsageError: If there is no such study, or a word is not understood.
        OptmergeError: If the report cannot be written.
    """
    own, words = own_words("report", arguments, ("out", "watts"), ("study.name", "study.folder", "storage", "task"))
    watts = _number(own["watts"]) if "watts" in own else None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    here, opened = named_study(words)
    folder = here.study.own_folder
    out = Path(own["out"]) if own.get("out") else folder / REPORT
    from optmerge.reports.report import write_report

    ending = ending_of(opened, folder, _problems(opened, here, words))
    written = write_report(opened, out, ending, watts=watts)
    so_far = "" if ending.result is not None else " so far"
    if so_far and any(key.startswith(evaluation_key("test", "")) for key in opened.study.user_attrs):
        so_far += (
            f" (its end is told by {RESULT}, which {folder} lacks or has of fewer trials: name study.folder=FOLDER)"
        )
    console.print(
        f"{written.page}: report of study {opened.study.study_name}{so_far}, {len(written.figures)} pictures beside it",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def ending_of(opened: OpenStudy, folder: Path, problems: "Sequence[Problem]") -> "Ending":
    """What a study's folder says of its end; a result of fewer trials than there are is not the end.

    Args:
        opened: The study.
        folder: Its folder.
        problems: Those of the test split, where they can be had.
    """
    from optmerge.reports.findings import Ending, read_responses

    result = result_that_holds(opened, folder)
    if result is None:
        return Ending()
    try:
        recipe = load_recipe(folder / BEST / RECIPE)
    except UsageError:  # it was moved; the genes say most of it
        recipe = None
    sha256 = result["winner"]["recipe_sha256"]
    known = recipe if recipe is not None and recipe.sha256 == sha256 else None
    return Ending(result, known, problems, read_responses(folder / RESPONSES, result))


def _number(text: str) -> float:
    try:
        watts = float(text)
    except ValueError:
        watts = math.nan
    if not 0 < watts < math.inf:
        raise UsageError(f"watts={text}: write how many watts a machine (or GPU) at work draws, as in watts=300")
    return watts


def _problems(opened: OpenStudy, here: Config, words: Sequence[str]) -> "Sequence[Problem]":
    """The test problems, if they are where the study's configuration or the user says, and are those of the study."""
    own = [word for word in words if word.startswith("task.")]
    if "task" not in opened.study.user_attrs.get(CONFIG, {}):
        return ()
    try:
        config = carried_config(opened, here, words)
        module, options = options_of("task", config.task, "optmerge.tasks")
        task = module.build(options)
        if task.missing():
            raise UsageError("; ".join(task.missing()))
        found: Sequence[Problem] = task.problems("test")
        if not _same(opened.study.user_attrs[IDENTITY]["task"], task.fingerprint(("test",))):
            raise UsageError("the test problems there are not those of the study")
    except (OptmergeError, OSError):
        if own:  # the user says where they are, and is to know why that does not help
            raise
        return ()
    return found


def _same(study: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether the test problems are the same; those of a composite task are told apart by its parts."""

    def of_test(fingerprint: Mapping[str, str]) -> dict[str, str]:
        return {name: sha256 for name, sha256 in fingerprint.items() if name.rpartition(".")[2] == "test"}

    return of_test(study) == of_test(now)
