"""Versions of a registered model side by side: for the terminal, as JSON and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from optmerge.phrases import plural
from optmerge.tasks import Objective
from optmerge.tracking.comparison import Against, Comparable, Compared
from optmerge.tracking.registry import DECIDED, REMOVED, WEIGHTS
from optmerge.tracking.winner_facts import BROKEN

_SHOWN, _LENGTH = 3, 60  # of problems that one alone solves: so many, and so much of each
_WIDE = 120  # columns of a terminal in which the sources have room
_TAGS = (
    "study",
    "seed",
    "task",
    "search",
    "validation",
    "test",
    "test/low",
    "test/high",
    "licence",
    "sources",
    BROKEN,
    DECIDED,
    WEIGHTS,
)
_HASHES = ("recipe_sha256", "weights_sha256", "validation_sha256", "test_sha256")


def print_versions(console: Console, model: str, groups: Sequence[Comparable], tests: Mapping[str, int]) -> None:
    """Print a table for every set of validation problems."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for number, group in enumerate(groups):
        console.print(_table(model, group, first=number == 0, wide=console.width >= _WIDE))
        for one in group.versions:
            if known := _known(one.version.tags):
                say(f"Version {one.version.number}: {known}.")
            if one.alone and len(group.versions) > 1:
                questions = "; ".join(f"{question[:_LENGTH]} ({id_[:12]})" for id_, question in one.alone[:_SHOWN])
                more = "; ..." if len(one.alone) > _SHOWN else ""
                solved = plural(len(one.alone), "problem")
                say(f"Version {one.version.number} alone solves {solved}: {questions}{more}")
    for sha256, models in tests.items():
        say(
            f"Test problems {sha256[:8]} were answered by {models} different models: the more there are, the less "
            "the best test score says."
        )


def _known(tags: Mapping[str, str]) -> str:
    """Why a version has its title, or none, and which guards it does not keep."""
    broken = f"it breaks the guard {tags[BROKEN]}" if BROKEN in tags else ""
    return "; ".join(filter(None, (tags.get(DECIDED, ""), broken)))


def _table(model: str, group: Comparable, *, first: bool, wide: bool) -> Table:
    if group.validation is None:
        title = f"Registered model {model}: never validated, so not to be compared"
    else:
        others = "" if first else "; not to be compared with the versions above"
        title = f"Registered model {model}: validation problems {group.validation[:8]}{others}"
    table = Table(title=title, title_justify="left")
    for column in ("version", "study"):
        table.add_column(column, no_wrap=True)
    for column in ("validation", "test, 95%", "against the champion (two-sided p)", "solved alone"):
        table.add_column(column, justify="right")
    table.add_column("licence")
    if wide:
        table.add_column("sources")
    for one in group.versions:
        tags, goal = one.version.tags, one.version.goal or Objective("score", share=False)
        table.add_row(
            " ".join([str(one.version.number), *one.version.aliases, *_lost(tags)]),
            tags.get("study", ""),
            _shown(goal, tags, "validation"),
            _test(goal, tags),
            _against(one.against, goal),
            "" if one.alone is None else str(len(one.alone)),
            tags.get("licence", ""),
            *([tags.get("sources", "")] if wide else []),
        )
    return table


def _lost(tags: Mapping[str, str]) -> list[str]:
    """What a version has lost since."""
    return ["(weights removed)"] if tags.get(WEIGHTS) == REMOVED else []


def _shown(goal: Objective, tags: Mapping[str, str], name: str) -> str:
    return goal.shown(float(tags[name])) if name in tags else ""


def _test(goal: Objective, tags: Mapping[str, str]) -> str:
    if "test/low" not in tags:
        return _shown(goal, tags, "test")
    low, high = sorted((float(tags["test/low"]), float(tags["test/high"])))
    return f"{_shown(goal, tags, 'test')} ({goal.shown(low)} to {goal.shown(high)})"


def _against(against: Against | None, goal: Objective) -> str:
    if against is None:
        return ""
    by = f"{100 * against.difference:+.1f} points" if goal.share else f"{against.difference:+.4g}"
    return f"{by}, p = {against.p_value:.2g}"


def as_json(model: str, groups: Sequence[Comparable], tests: Mapping[str, int]) -> dict[str, Any]:
    """The same, with all that is known."""
    return {
        "model": model,
        "versions": [
            {
                "version": one.version.number,
                "aliases": list(one.version.aliases),
                "tags": dict(one.version.tags),
                "against": asdict(one.against) if one.against else None,
                "alone": None if one.alone is None else [{"id": id_, "question": text} for id_, text in one.alone],
            }
            for group in groups
            for one in group.versions
        ],
        "models_on_test": dict(tests),
    }


def as_csv(groups: Sequence[Comparable]) -> str:
    """A row a version."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["version", "aliases", *_TAGS, "champion", "difference", "p_value", "alone", *_HASHES])
    for group in groups:
        for one in group.versions:
            writer.writerow(_row(one))
    return text.getvalue()


def _row(one: Compared) -> list[Any]:
    tags, against = one.version.tags, one.against
    compared = [against.champion, against.difference, against.p_value] if against else ["", "", ""]
    return [
        one.version.number,
        " ".join(one.version.aliases),
        *(tags.get(name, "") for name in _TAGS),
        *compared,
        "" if one.alone is None else len(one.alone),
        *(tags.get(name, "") for name in _HASHES),
    ]
