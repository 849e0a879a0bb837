"""What a search leaves for optuna-dashboard: a note that is kept up to date, pictures, and tables of trials."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from optmerge.commands.assembly import Assembly
from optmerge.commands.ending import result_that_holds
from optmerge.commands.study_folder import BEST, RESPONSES, RESULT
from optmerge.errors import OptmergeError
from optmerge.recipe import RECIPE
from optmerge.study.charter import OpenStudy
from optmerge.study.slots import slot_of
from optmerge.study.trial_scores import RECIPE as RECIPE_HASH
from optmerge.study.trial_scores import SCORES
from optmerge.tasks.task import Split

_SECONDS = 15.0  # between two notes, at least
_AT_THE_END = 2.0  # seconds for which a database is waited for that may be the reason of an end
PROBLEMS = "problems.csv"
_TOLD = "optmerge:pictures"  # system attribute of a study: name of a picture to what it shows

log = logging.getLogger(__name__)


def post_note(opened: OpenStudy, folder: Path, url: str, *, at_work: bool = False) -> None:
    """Write the note of a study, but for what a person has added to it.

    Args:
        opened: The study.
        folder: The study's folder.
        url: Where its database is.
        at_work: Whether it is the search that writes the note, which goes on.
    """
    from optuna_dashboard import get_note, save_note

    from optmerge.commands.whereabouts import setting_words
    from optmerge.reports.note import MARK, Standing, study_note
    from optmerge.study.artifacts import attached

    known, running = attached(opened), len(opened.database.running(opened.study_id))
    standing = Standing(
        opened,
        running=running,
        at_work=at_work or running > 0,
        where=setting_words(opened.study.study_name, folder, url),
        files={name: f"/artifacts/{opened.study_id}/{number}" for name, number in known.items()},
        told=opened.database.get_study_system_attrs(opened.study_id).get(_TOLD, {}),
        finalists=[trial.number for trial in finalists(opened)],
        result=result_that_holds(opened, folder),
    )
    _, mark, own = get_note(opened.study).partition(MARK)
    save_note(opened.study, study_note(standing) + (mark or MARK) + own)


def post_files(opened: OpenStudy, folder: Path, pictures: Sequence[tuple[Path, str]]) -> None:
    """Attach to a study what its end has left.

    Args:
        opened: The study.
        folder: The study's folder.
        pictures: Those of its report, and what each shows.
    """
    from optmerge.study.artifacts import attach_to_study

    told = {path.name: text for path, text in pictures}
    files = [path for path, _ in pictures] + [folder / RESULT, folder / BEST / RECIPE]
    opened.database.set_study_system_attr(opened.study_id, _TOLD, told)
    attach_to_study(opened, folder.parent, {path.name: path for path in files if path.is_file()})


def finalists(opened: OpenStudy) -> list[FrozenTrial]:
    """The trials that were scored on validation, the first of each recipe."""
    from optmerge.study.judge import evaluation_key

    prefix = evaluation_key("validation", "")
    scored = {key.rpartition(":")[2] for key in opened.study.user_attrs if key.startswith(prefix)}
    found: dict[str, FrozenTrial] = {}
    for trial in opened.study.get_trials(deepcopy=False):
        recipe = trial.user_attrs.get(RECIPE_HASH)
        if recipe in scored and trial.state == TrialState.COMPLETE:
            found.setdefault(recipe, trial)
    return list(found.values())


class Noticeboard:
    """What optuna-dashboard shows of a search; that it fails is no reason to end the search.

    Args:
        assembly: What is searched.
        opened: The study.
        folder: The study's folder.
    """

    def __init__(self, assembly: Assembly, opened: OpenStudy, folder: Path) -> None:
        self._assembly = assembly
        self._opened = opened
        self._folder = folder
        self._posted = -_SECONDS
        self._tabled: set[int] = set()

    def update(self) -> None:
        """Bring the note up to date, now and then."""
        if time.monotonic() - self._posted > _SECONDS:
            with harmless():
                self._post(at_work=True)
            self._posted = time.monotonic()

    def leave(self) -> None:
        """Say that the search stops before its end, unless its database is away by now."""
        from optmerge.study.charter import open_study
        from optmerge.study.storage import open_storage

        with harmless():
            database = open_storage(self._opened.database.url, patience=_AT_THE_END, create=False)
            try:
                opened = open_study(database, self._opened.study.study_name)
                post_note(opened, self._folder, self._assembly.config.storage.url)
            finally:
                database.engine.dispose()

    def end(self, pictures: Sequence[tuple[Path, str]]) -> None:
        """Attach all that a study has when it has ended: the pictures of its report, with what each shows, and more."""
        with harmless():
            post_files(self._opened, self._folder, pictures)
            self._post_tables(finalists(self._opened), recipes=True)
            self._post(at_work=False)

    def _post(self, *, at_work: bool) -> None:
        if self._assembly.config.study.keep_responses:
            self._post_tables(self._without_table(), recipes=False)
        post_note(self._opened, self._folder, self._assembly.config.storage.url, at_work=at_work)

    def _without_table(self) -> list[FrozenTrial]:
        """Trials that have answered, and have no table from this process or one before it."""
        from optmerge.study.artifacts import has_files

        trials = self._opened.study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if SCORES in trial.user_attrs and trial.number not in self._tabled]
        return [trial for trial in ended if not has_files(trial)]

    def _post_tables(self, trials: list[FrozenTrial], *, recipes: bool) -> None:
        """Attach a table of its problems to each trial, and its recipe."""
        from optmerge.reports.problems import write_problems
        from optmerge.study.artifacts import attach_to_trials
        from optmerge.study.judge import evaluation_key

        task, validated = self._assembly.plugins.task, self._opened.study.user_attrs
        with tempfile.TemporaryDirectory() as made:
            files: dict[int, dict[str, Path]] = {}
            for trial in trials:
                own = Path(made) / str(trial.number)
                own.mkdir()
                scores: dict[Split, Any] = {"search": trial.user_attrs[SCORES]}
                if found := validated.get(evaluation_key("validation", trial.user_attrs[RECIPE_HASH])):
                    scores["validation"] = found
                write_problems(own / PROBLEMS, task, scores, self._responses(trial))
                files[trial.number] = {PROBLEMS: own / PROBLEMS}
                if recipes:
                    self._assembly.space.decode(trial.params).save(own / RECIPE)
                    files[trial.number][RECIPE] = own / RECIPE
            attach_to_trials(self._opened, self._folder.parent, files)
        self._tabled |= files.keys()

    def _responses(self, trial: FrozenTrial) -> Any:
        from optmerge.study.memory import Memory

        slot = slot_of(trial)
        memory = Memory(self._folder / RESPONSES / f"{slot.generation}-{slot.member}.jsonl")
        return lambda problem: response.text if (response := memory.get(problem)) else None


@contextlib.contextmanager
def harmless() -> Iterator[None]:
    """Tell what went wrong with the notice board, and go on."""
    try:
        yield
    except (OptmergeError, SQLAlchemyError, OSError) as error:
        log.warning("optuna-dashboard will not show all: %s", str(error).splitlines()[0])
