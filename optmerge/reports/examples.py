"""Some of the problems that a merged model has won or lost against its sources, in full."""

from collections.abc import Sequence
from dataclasses import dataclass

from optmerge.reports.chosen import Compared
from optmerge.reports.findings import Findings
from optmerge.reports.results import SOURCE, tested_models
from optmerge.reports.solved_problems import LOST, NEW

_EACH = 5
_LONGEST = 600  # characters of a question or response that are shown

_TITLES = {
    NEW: "New: the merged model alone solves them",
    LOST: "Lost: a source solves them, the merged model does not",
}


@dataclass(frozen=True)
class Block:
    """A table of problems.

    Attributes:
        title: A line over it.
        head: Names of the columns.
        rows: The cells.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def examples_of(findings: Findings, compared: Sequence[Compared]) -> list[Block]:
    """Some new problems and some lost ones, by the goal or the first objective: from all over the split, not the first.

    Questions are there where the problems could be had, responses where the study kept them.
    """
    if findings.result is None or not compared:
        return []
    solved, problems = compared[0].solved, findings.ending.problems
    if len(problems) != solved.shares.shape[1]:
        return []
    models = tested_models(findings.result)
    answers = findings.ending.responses
    sources = [model for model in models if model.kind == SOURCE]
    sources.sort(key=lambda model: -findings.goal.sign * model.test.score)
    rows_of = {model.name: row for row, model in enumerate(solved.models)}
    blocks = []
    for block, title in _TITLES.items():
        positions = sorted(int(i) for i in solved.positions[block])
        some = [positions[i * len(positions) // _EACH] for i in range(_EACH)] if len(positions) > _EACH else positions
        rows = []
        for i in some:
            # Of the sources the one that does best with the problem, and of equals the best on all.
            beside = max(
                (model for model in sources if model.name in rows_of),
                key=lambda model: solved.shares[rows_of[model.name], i],
            )
            row = [str(i + 1), _cut(problems[i].question), _cut(problems[i].answer)]
            said = [answers.get(model.recipe_sha256, {}).get(problems[i].id) for model in (models[0], beside)]
            if answers:
                row += [_cut(said[0] or ""), f"{beside.name}: {_cut(said[1])}" if said[1] else ""]
            rows.append(row)
        if rows:
            head = ["problem", "question", "right answer"]
            head += ["the merged model", "a source"] if answers else []
            blocks.append(Block(f"{title} ({len(rows)} of {len(positions)})", head, rows))
    return blocks


def _cut(text: str) -> str:
    """A text that is not too long to be read."""
    stripped = text.strip()
    return stripped if len(stripped) <= _LONGEST else f"{stripped[:_LONGEST]}…"
