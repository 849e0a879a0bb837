"""Any task with short answers: the response must be the answer, but for width, case, white space and punctuation."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from optmerge.engines import Response
from optmerge.errors import UsageError
from optmerge.tasks.data_task import DataOptions, DataTask, Scoring
from optmerge.tasks.problem_files import TEXTS
from optmerge.tasks.task import Objective, Problem

_PLACES = ("all", "first_line", "last_line")


@dataclass
class Options(DataOptions):
    """What a configuration may set under `task`.

    Attributes:
        look_at: What of a response is compared: all, first_line or last_line.
        contained: Right is also a response that contains the answer.
    """

    max_new_tokens: int = 32
    stop: list[str] = field(default_factory=lambda: ["\n"])
    look_at: str = "all"
    contained: bool = False


def build(options: Options) -> DataTask:
    """The task, with the score `exact_match`; a list in the answer's column holds several right answers."""
    if options.look_at not in _PLACES:
        raise UsageError(f"task.look_at={options.look_at}: unknown; known are {', '.join(_PLACES)}")

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        said = bare(_part(response.text, options.look_at))
        right = [bare(answer) for answer in problem.answer.split("\n")]
        found = any(answer in said for answer in right) if options.contained else said in right
        return {"exact_match": float(found)}

    return DataTask(options, Scoring((Objective("exact_match"),), TEXTS, score))


def bare(text: str) -> str:
    """A text without what does not matter: width of characters (NFKC), case, punctuation at its ends, white space."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    bared = folded.strip("".join({mark for mark in folded if unicodedata.category(mark).startswith("P")}))
    if not bared:  # it is nothing but marks
        return folded
    before = folded[: folded.index(bared)]
    return f"-{bared}" if before.endswith("-") and bared[0].isdecimal() else bared


def _part(text: str, which: str) -> str:
    lines = text.strip().splitlines()
    if which == "all" or not lines:
        return text
    return lines[0] if which == "first_line" else lines[-1]
