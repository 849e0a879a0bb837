"""Problems with given choices as data sets have them: in one column or one each, the right one by whatever name."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optmerge.errors import UsageError
from optmerge.tasks.data_task import DataOptions
from optmerge.tasks.problem_files import Answers
from optmerge.tasks.tables import Row
from optmerge.tasks.task import Problem


@dataclass
class ChoiceOptions(DataOptions):
    """What a configuration may set under `task` where problems have choices.

    Attributes:
        choices: The column that lists them, or a column for each.
        labels: What they are called; A, B, C and so on by default.
        first_label: What an answer that is a number counts from: 0, or 1.
    """

    choices: list[str] = field(default_factory=lambda: ["choices"])
    labels: list[str] = field(default_factory=lambda: list(string.ascii_uppercase))
    first_label: int = 0


def check_choices(options: ChoiceOptions) -> None:
    """Refuse what cannot be used.

    Raises:
        UsageError: Naming the option.
    """
    if not options.choices:
        raise UsageError("task.choices is empty: name the column that lists the choices, or a column for each")
    if options.first_label not in (0, 1):
        raise UsageError(f"task.first_label must be 0 or 1, not {options.first_label}")
    if len(set(options.labels)) < len(options.labels):
        raise UsageError("task.labels: two choices cannot be called the same")


def choices_of(row: Mapping[str, Any], options: ChoiceOptions) -> list[str]:
    """The choices of a row; none if it has none."""
    cells = [row.get(column) for column in options.choices]
    if len(cells) == 1 and isinstance(cells[0], Mapping):  # as ARC has them: {"text": [...], "label": [...]}
        cells = [cells[0].get("text")]
    if len(cells) == 1 and isinstance(cells[0], Sequence) and not isinstance(cells[0], str):
        cells = list(cells[0])
    return [str(cell) for cell in cells if cell is not None]


def right_choice(problem: Problem) -> int:
    """The place of the right choice."""
    return int(problem.answer)


def answers_among(options: ChoiceOptions) -> Answers:
    """How the right one is read: by its label, its place, or its text, as the place of it, counted from 0."""

    def read(cell: object, row: Row) -> str | None:
        choices = choices_of(row, options)
        if len(choices) < 2 or len(choices) > len(options.labels):
            return None
        if isinstance(cell, int) and not isinstance(cell, bool):  # a number counts, whatever the choices say
            place: int | None = cell - options.first_label
        else:
            place = _place(str(cell).strip(), choices, options, row)
        return None if place is None or not 0 <= place < len(choices) else str(place)

    return Answers(read, f"one of at least two choices in {', '.join(options.choices)}, by label, place or text")


def _place(text: str, choices: Sequence[str], options: ChoiceOptions, row: Row) -> int | None:
    if text in choices:
        return choices.index(text)
    cell = row.get(options.choices[0])
    labels = cell.get("label") if isinstance(cell, Mapping) else options.labels
    if labels is not None and text in list(labels):
        return list(labels).index(text)
    return int(text) - options.first_label if text.isdecimal() else None
