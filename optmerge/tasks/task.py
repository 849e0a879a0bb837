"""What a task is: problems, what is asked of an engine, and how a response is scored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from optmerge.engines import Request, Response

# A score that sorts the problems of several tasks: by task, and then by how easy they are. It is nothing to look at.
SORTING, APART = "ease", 4.0  # more than eases of one task differ

Split = Literal["search", "validation", "test"]
SPLITS: tuple[Split, ...] = ("search", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Attributes:
        id: Follows from the question, and what else of the row the prompt shows, alone: it is the same in every file,
            order and selection.
        question: The question as its file has it.
        answer: The right answer; for a number its plain digits ("70000", "-5", "0.5").
        row: All columns of its file, for prompts and metrics that need more.
    """

    id: str
    question: str
    answer: str
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Objective:
    """A score that is searched for.

    Attributes:
        name: Its name among the scores.
        direction: Which values are better.
        aggregate: How the scores of problems are drawn together.
        share: Whether it is a share of something, from 0 to 1, which people like to see in percent.
    """

    name: str
    direction: Literal["maximize", "minimize"] = "maximize"
    aggregate: Literal["mean"] = "mean"
    share: bool = True

    @property
    def sign(self) -> float:
        """What turns its values so that higher is better."""
        return 1.0 if self.direction == "maximize" else -1.0

    def shown(self, value: float) -> str:
        """A value as people like to see it."""
        return f"{value:.1%}" if self.share else f"{value:.4g}"


@dataclass(frozen=True)
class Guard:
    """A score that must not fall.

    Attributes:
        name: What people call it.
        goal: The score, among those of problems.
        margin: How far below a source's mean a merge's mean may be.
        of: Alias of the source; None for the base, or the best of all where there is none.
    """

    name: str
    goal: Objective
    margin: float
    of: str | None


class Task(Protocol):
    """Problems in three disjoint splits, and how a response to one of them is scored."""

    @property
    def objectives(self) -> Sequence[Objective]:
        """The scores that are searched for."""
        ...

    @property
    def goal(self) -> Objective:
        """The score that results are told in and the winner is chosen by: the objective, or what weighs several."""
        ...

    @property
    def guards(self) -> Sequence[Guard]:
        """The scores that must not fall."""
        ...

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always in the same order."""
        ...

    def request(self, problem: Problem) -> Request:
        """What an engine is asked for a problem."""
        ...

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        """The scores of a response by name; every objective is among the names, but for problems of a guard."""
        ...

    @property
    def ease(self) -> str:
        """The score that tells easy problems from hard ones, such as the number alone where a language is asked too."""
        ...

    @property
    def facts(self) -> Mapping[str, object]:
        """What scores are made with that results should say, such as the identifier of languages; plain data."""
        ...

    def missing(self) -> Sequence[str]:
        """What keeps problems from being read now, a line each."""
        ...

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> Mapping[str, str]:
        """Hashes of everything that decides a score, by setting: a study goes on only where all are the same.

        Args:
            splits: Those whose problems are to be among it; others need not be there.
        """
        ...


def sha256_of(value: object) -> str:
    """SHA-256 in hexadecimal of a value of plain data (text, numbers, lists, mappings)."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
