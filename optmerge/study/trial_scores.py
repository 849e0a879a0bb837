"""The score of every problem that a trial saw, as it is kept with the trial and read back.

Unseen is missing, not 0. Scores that are all 0 or 1 are kept as one character a problem (`-` for unseen), others as a
list with `null` for unseen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

# What a trial leaves behind, as user attributes.
SCORES = "scores"  # metric to encoded scores of the search problems, in their order
PROBLEMS = "problems"  # how many problems it answered
RECIPE = "recipe_sha256"
SECONDS = "seconds"  # phase to seconds
SAME_AS = "same_path_as"  # number of the trial whose path it has, and whose scores it took over
ESTIMATE = "estimate"  # of a beaten trial: what its fitness might have been; it only orders the beaten

Encoded = str | list[float | None]


def encode(scores: NDArray[np.float64]) -> Encoded:
    """Scores in a form that fits a JSON attribute of a trial."""
    seen = ~np.isnan(scores)
    if np.isin(scores[seen], (0, 1)).all():
        return "".join("-" if np.isnan(score) else str(int(score)) for score in scores)
    return [None if np.isnan(score) else float(score) for score in scores]


def decode(encoded: Encoded) -> NDArray[np.float64]:
    """The inverse of `encode`; NaN where unseen."""
    if isinstance(encoded, str):
        return np.array([np.nan if score == "-" else float(score) for score in encoded])
    return np.array([np.nan if score is None else score for score in encoded])


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that ran to the end.

    Attributes:
        number: Its number in the study.
        value: Its fitness, turned so that higher is better.
        encoded: Its score of every search problem.
        sign: 1 where higher scores are better, else -1.
    """

    number: int
    value: float
    encoded: Encoded
    sign: float

    def scores(self) -> NDArray[np.float64]:
        """One score a problem, turned so that higher is better."""
        return self.sign * decode(self.encoded)


def finished_trials(
    trials: Sequence[FrozenTrial], metric: str, direction: Literal["maximize", "minimize"]
) -> list[FinishedTrial]:
    """The trials that ran to the end, oldest first."""
    sign = 1.0 if direction == "maximize" else -1.0
    return [
        FinishedTrial(trial.number, sign * trial.value, trial.user_attrs[SCORES][metric], sign)
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.value is not None
    ]


def score_matrix(trials: Sequence[FrozenTrial], metric: str) -> Mapping[int, NDArray[np.float64]]:
    """Trial number to its scores of every search problem, NaN where unseen, for all trials that saw any."""
    return {trial.number: decode(trial.user_attrs[SCORES][metric]) for trial in trials if SCORES in trial.user_attrs}
