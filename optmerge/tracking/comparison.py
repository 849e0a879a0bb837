"""Versions of a registered model held against one another, on the validation problems that they have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optmerge.study.paired_test import paired_p_value
from optmerge.tracking.problem_tables import ProblemTable
from optmerge.tracking.registry import CHAMPION, Version


@dataclass(frozen=True)
class Against:
    """A version against the champion.

    Attributes:
        champion: The champion's number.
        difference: Of the mean scores: its own less the champion's.
        p_value: Two-sided: the chance that equals differ as much in what they score problem by problem.
    """

    champion: int
    difference: float
    p_value: float


@dataclass(frozen=True)
class Compared:
    """A version among those that answered the same validation problems.

    Attributes:
        version: The version.
        against: Itself against the champion; None for the champion, and where there is nothing to compare.
        alone: Id and question of the problems that it solves and no other of them does; None where scores are not
            right or wrong.
    """

    version: Version
    against: Against | None
    alone: Sequence[tuple[str, str]] | None


@dataclass(frozen=True)
class Comparable:
    """Versions that answered the same validation problems, oldest first.

    Attributes:
        validation: Hash of the problems; None of those that were never validated, and cannot be compared.
        versions: The versions.
    """

    validation: str | None
    versions: Sequence[Compared]


def compared(versions: Sequence[Version], tables: Mapping[int, ProblemTable], first: str | None) -> list[Comparable]:
    """Versions by the validation problems that they answered, each held against the champion among them.

    Args:
        versions: Of one registered model.
        tables: Number of a version to what it scored on validation, where that is known.
        first: Hash of the problems that come first.
    """
    sets = dict.fromkeys(version.validation for version in versions)
    order = sorted(sets, key=lambda validation: (validation is None, validation != first))  # stable: else by age
    return [
        Comparable(validation, _of_one_set([one for one in versions if one.validation == validation], tables))
        for validation in order
    ]


def _of_one_set(versions: Sequence[Version], tables: Mapping[int, ProblemTable]) -> list[Compared]:
    goal = versions[0].goal  # what scores are made with is in the hash of the problems, so that all have the same
    scores: dict[int, NDArray[np.float64]] = {}
    if goal is not None and versions[0].validation is not None:
        scores = {number: table.scores[goal.name] for number, table in tables.items() if goal.name in table.scores}
        scores = {one.number: scores[one.number] for one in versions if one.number in scores}
    titled = (one.number for one in versions if any(alias.startswith(CHAMPION) for alias in one.aliases))
    champion = next(titled, None)
    # Problems are solved or not where each scores 1 or 0, and 1 is better.
    binary = all(np.isin(found[~np.isnan(found)], (0, 1)).all() for found in scores.values())
    solvable = binary and goal is not None and goal.direction == "maximize"
    return [
        Compared(
            version,
            _against(champion, version.number, scores),
            _alone(tables[version.number], version.number, scores) if solvable and version.number in scores else None,
        )
        for version in versions
    ]


def _against(champion: int | None, number: int, scores: Mapping[int, NDArray[np.float64]]) -> Against | None:
    if champion is None or champion == number or number not in scores or champion not in scores:
        return None
    mine, theirs = scores[number], scores[champion]
    both = ~(np.isnan(mine) | np.isnan(theirs))
    mine, theirs = mine[both], theirs[both]
    p_value = min(1.0, 2 * min(paired_p_value(mine, theirs), paired_p_value(theirs, mine)))
    return Against(champion, float(mine.mean() - theirs.mean()), p_value)


def _alone(table: ProblemTable, number: int, scores: Mapping[int, NDArray[np.float64]]) -> list[tuple[str, str]]:
    others = [found == 1 for other, found in scores.items() if other != number]
    alone = (scores[number] == 1) & ~np.any(others, axis=0) if others else np.zeros(len(table.ids), dtype=bool)
    return [(table.ids[i], table.questions[i]) for i in np.flatnonzero(alone).tolist()]
