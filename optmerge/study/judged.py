"""What models answered after a search, problem by problem, so that those of other studies can be held against them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from optmerge.study.judge import evaluation_key
from optmerge.study.trial_scores import RECIPE, SAME_AS, decode
from optmerge.tasks import SORTING, SPLITS, Problem, Split, Task
from optmerge.tasks.task import sha256_of

Scores = Mapping[str, NDArray[np.float64]]
"""Metric to one score a problem, NaN where there is none."""


@dataclass(frozen=True)
class ProblemSet:
    """The problems of a split.

    Attributes:
        sha256: Hash of the problems and of all that decides their scores: models with scores of sets with the same
            hash can be compared, whatever study they are of.
        problems: The problems.
    """

    sha256: str
    problems: Sequence[Problem]


@dataclass(frozen=True)
class Finalist:
    """A trial that answered validation problems.

    Attributes:
        trial: The trial.
        scores: Its scores; one that left the race early has not seen all.
    """

    trial: FrozenTrial
    scores: Scores


@dataclass(frozen=True)
class Judged:
    """What was answered after a search.

    Attributes:
        winner: Split to the winner's scores.
        finalists: Those among whom the winner was chosen.
        tested: What has answered the test problems: hashes of the recipes of winners, baselines, ablations, and of
            sources themselves.
    """

    winner: Mapping[Split, Scores]
    finalists: Sequence[Finalist]
    tested: Sequence[str]


def problem_set(task: Task, split: Split, name: str, version: Mapping[str, str]) -> ProblemSet:
    """A split of a task, whose other splits need not be there.

    Args:
        task: The task.
        split: Which.
        name: The task's name.
        version: What tells versions of a task that is not ours apart.
    """
    problems = task.problems(split)
    asked = [(problem.id, problem.answer) for problem in problems]
    deciding = task.fingerprint((split,))
    return ProblemSet(sha256_of([name, dict(version), dataclasses.asdict(task.goal), deciding, asked]), problems)


def problem_sets(task: Task, name: str, version: Mapping[str, str]) -> dict[Split, ProblemSet]:
    """The splits of a task that have problems, see `problem_set`."""
    return {split: problem_set(task, split, name, version) for split in SPLITS if task.problems(split)}


def judged(study: optuna.Study, winner: int, trials: Sequence[FrozenTrial], sources: Mapping[str, str]) -> Judged:
    """What a study has kept of the scores of its last models.

    Args:
        study: The study.
        winner: Number of the winner's trial.
        trials: The trials that count.
        sources: Hash of the recipe that stands for a source in this study to that of the source: the same in others.
    """
    kept = study.user_attrs
    by_number = {trial.number: trial for trial in trials}

    def scores(split: Split, trial: FrozenTrial) -> Scores:
        encoded = kept.get(evaluation_key(split, str(trial.user_attrs.get(RECIPE))), {})
        return {name: decode(found) for name, found in encoded.items() if name != SORTING}

    # Of trials with one recipe the first stands for all, unless another of them is the winner.
    once = [t for t in trials if SAME_AS not in t.user_attrs or t.number == winner]
    finalists = [Finalist(trial, found) for trial in once if (found := scores("validation", trial))]
    of_winner = {split: found for split in SPLITS if (found := scores(split, by_number[winner]))}
    prefix = evaluation_key("test", "")
    # With a colon: a path that was run over its sources' layers, which is folded a model that was tested as well.
    tested = {sha256 for key in kept if key.startswith(prefix) and ":" not in (sha256 := key.removeprefix(prefix))}
    return Judged(of_winner, finalists, sorted(sources.get(sha256, sha256) for sha256 in tested))
