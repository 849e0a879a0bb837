"""Where problems come from: a local file, or a data set of the Hugging Face hub."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.tasks.numbers import plain_number
from optmerge.tasks.questions import question_id, shortened
from optmerge.tasks.tables import Row, read_table
from optmerge.tasks.task import Problem

log = logging.getLogger(__name__)


@dataclass  # not frozen: OmegaConf makes a frozen one read-only, and nothing could override it
class ProblemFile:
    """Which problems a split has.

    Attributes:
        path: A local csv, tsv, json, jsonl or parquet file. Where it is given, the hub is not asked.
        hub: Id of a data set on the hub, such as "juletxara/mgsm".
        config: Configuration of the data set on the hub, if it has several.
        split: Split of the data set on the hub.
        revision: Branch, tag or commit of the data set on the hub.
        file: One file in the repository on the hub, to be read as a local one, instead of `config` and `split`.
        question: Name of the column with the question.
        answer: Name of the column with the answer.
        columns: Names for the columns of a csv or tsv without header.
        rows: Which rows, as a slice of Python: ":" all, "0:869" the first 869, "-200:" the last 200. Quote it in
            YAML, which takes a bare -200: for a key.
    """

    path: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    file: str | None = None
    question: str = "question"
    answer: str = "answer"
    columns: list[str] | None = None
    rows: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        parts = [self.file] if self.file else [f"config {self.config}"] * bool(self.config) + [f"split {self.split}"]
        return f"data set {self.hub} ({', '.join(parts)})"


@dataclass(frozen=True)
class Answers:
    """How the right answer of a row is read.

    Attributes:
        read: From the cell of the answer's column, and the row, to the answer; None if it is none.
        kind: What an answer is, for the message ("a number").
    """

    read: Callable[[object, Row], str | None]
    kind: str


def _texts(cell: object, row: Row) -> str | None:
    """One text or several, a line each."""
    texts = [" ".join(str(one).split()) for one in (cell if isinstance(cell, list) else [cell]) if one is not None]
    return "\n".join(text for text in texts if text) or None


NUMBERS = Answers(lambda cell, row: plain_number(cell), "a number")
TEXTS = Answers(_texts, "a text, or a list of texts")


def read_problems(source: ProblemFile, answers: Answers, shown: Sequence[str] = ()) -> list[Problem]:
    """The problems of a file, in its order, each once.

    Args:
        source: Where they are, and which rows of them.
        answers: How the right answer is read.
        shown: Columns that the prompt shows beside the question: rows that differ in them are different problems.

    Raises:
        UsageError: If they cannot be had, or a row has no question or no usable answer, or no row is selected.
    """
    numbered = read_rows(source)
    problems: dict[str, Problem] = {}
    for index, row in numbered:
        problem = _problem(source, index, row, answers, shown)
        problems.setdefault(problem.id, problem)
    if len(problems) < len(numbered):  # two problems of one id could not be told apart in the scores
        log.warning("%s: %d rows repeat a question and are left out", source, len(numbered) - len(problems))
    return list(problems.values())


def read_rows(source: ProblemFile) -> list[tuple[int, Row]]:
    """The selected rows of a file with their numbers.

    Raises:
        UsageError: If they cannot be had, or no row is selected, or none has the question's or the answer's column.
    """
    chosen = slice_of(source.rows)
    rows = _rows(source)
    numbered = list(enumerate(rows))[chosen]
    if not numbered:
        raise UsageError(f"rows {source.rows or ':'!r} of {source} select none of {len(rows)} problems")
    for column in (source.question, source.answer):
        if not any(column in row for row in rows):
            raise UsageError(_unknown_column(source, column, rows))
    return numbered


def missing(source: ProblemFile) -> str | None:
    """What keeps the problems from being read now, in one line, or None if nothing does.

    A data set of the hub that is not in the local cache is downloaded. Without network the answer comes in under a
    second.
    """
    try:
        if source.path is None:
            _download(source)
        elif not Path(source.path).is_file():
            return f"no problem file at {source.path}"
    except UsageError as error:
        return str(error)
    return None


def _problem(source: ProblemFile, index: int, row: Row, answers: Answers, shown: Sequence[str]) -> Problem:
    question = row.get(source.question)
    if not isinstance(question, str) or not question.strip():
        raise UsageError(f"row {index} of {source} has no question in column {source.question!r}")
    answer = answers.read(row.get(source.answer), row)
    if answer is None:
        cell = shortened(str(row.get(source.answer)))
        raise UsageError(
            f"row {index} of {source}: the answer {cell!r} in column {source.answer!r} is not {answers.kind}"
        )
    others = [str(row.get(column)) for column in shown if column != source.question]
    return Problem(question_id("\0".join([question, *others])), question, answer, row)


def slice_of(rows: str | None) -> slice:
    """What a setting such as ":200" selects.

    Raises:
        UsageError: If it is no slice.
    """
    found = re.fullmatch(r"(-?\d+)?:(-?\d+)?", rows or ":")
    if found is None:
        raise UsageError(f"rows {rows!r} is not a slice such as ':', '0:869' or '-200:'")
    return slice(*(None if bound is None else int(bound) for bound in found.groups()))


def _unknown_column(source: ProblemFile, column: str, rows: Sequence[Row]) -> str:
    names = ", ".join(repr(shortened(str(name), 20)) for name in rows[0] if name is not None)
    return f"{source} has no column {column!r}, but {names}; name those of a file without header in `columns`"


def _rows(source: ProblemFile) -> list[Row]:
    if source.path is not None:
        return read_table(Path(source.path), source.columns)
    folder = _download(source)
    if source.file is not None:
        return read_table(folder / source.file, source.columns)
    return _load_split(source, folder)


def _download(source: ProblemFile) -> Path:
    """The folder of a data set on the hub, as it is in the local cache after asking the hub."""
    if not source.hub:
        raise UsageError("neither `path`, a file of problems, nor `hub`, a data set on the hub, is given")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                source.hub,
                repo_type="dataset",
                revision=source.revision,
                allow_patterns=source.file,
                etag_timeout=5,
            )
        )
    except LocalEntryNotFoundError as error:
        raise UsageError(
            f"{source}: not in the local cache, and the hub cannot be reached; set `path` to a local copy, or "
            f"download it where there is a network: hf download --repo-type dataset {source.hub}"
        ) from error
    except (OSError, ValueError) as error:  # no such data set, no such revision, gated, an impossible name
        raise UsageError(f"{source}: {shortened(str(error), 200)}") from error
    if source.file is not None and not (folder / source.file).is_file():
        raise UsageError(f"{source}: the data set has no such file, or the local cache not yet")
    return folder


def _load_split(source: ProblemFile, folder: Path) -> list[Row]:
    """A split as `datasets` finds it in a downloaded folder, which it does by the folder's card and file names."""
    from tempfile import TemporaryDirectory

    import datasets

    datasets.disable_progress_bars()
    try:
        with TemporaryDirectory() as cache:  # a lasting copy of so little data would only be litter
            loaded = datasets.load_dataset(
                str(folder), source.config, split=source.split, cache_dir=cache, keep_in_memory=True
            )
            rows: list[Row] = loaded.to_list()
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UsageError(f"{source}: {shortened(str(error), 200)}; a data file can be named in `file`") from error
    return rows
