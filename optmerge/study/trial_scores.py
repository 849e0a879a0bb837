"""The score of every problem that a trial saw, as it is kept with the trial and read back.

Unseen is missing, not 0. Scores that are all 0 or 1 take a bit a problem, others 16 bits before compression: a trial of
1000 problems right or wrong leaves under 200 bytes a metric. Encoded scores are one text of a letter, the number of
problems, and fields in base 64, between colons:

    b:1000:BITS        right or wrong, all seen
    b:1000:BITS:SEEN   right or wrong, some seen
    h:1000:ZLIB        half-precision floating-point numbers (IEEE 754), NaN where unseen
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from optmerge.tasks import Objective

# What a trial leaves behind, as user attributes.
SCORES = "scores"  # metric to encoded scores of the search problems, in their order
PROBLEMS = "problems"  # how many problems it answered
RECIPE = "recipe_sha256"
SECONDS = "seconds"  # phase to seconds
TOKENS = "tokens"  # generated, or scored where likelihoods were asked for; without those remembered from before
PEAK_MEMORY = "peak_memory"  # bytes, see `optmerge.study.peak_memory`
SAME_AS = "same_recipe_as"  # number of the trial whose recipe it has, and whose scores it took over
ESTIMATE = "estimate"  # of a beaten trial: what its fitness might have been; it only orders the beaten
ESTIMATE_ERROR = "estimate_error"  # the standard error of that

_MOST = 65504.0  # the largest number of 16 bits

Encoded = str


def encode(scores: NDArray[np.float64]) -> Encoded:
    """Scores in a form that fits a JSON attribute of a trial."""
    seen = ~np.isnan(scores)
    if not np.isin(scores[seen], (0, 1)).all():
        halves = np.clip(scores, -_MOST, _MOST).astype("<f2")
        return f"h:{len(scores)}:{_text(zlib.compress(halves.tobytes(), 9))}"
    fields = [_text(np.packbits(np.nan_to_num(scores).astype(bool)).tobytes())]
    if not seen.all():
        fields.append(_text(np.packbits(seen).tobytes()))
    return ":".join(["b", str(len(scores)), *fields])


def decode(encoded: Encoded) -> NDArray[np.float64]:
    """The inverse of `encode`, but for what 16 bits cannot hold; NaN where unseen."""
    kind, count, *fields = encoded.split(":")
    if kind == "h":
        return np.frombuffer(zlib.decompress(_bytes(fields[0])), "<f2").astype(np.float64)
    right, *seen = (np.unpackbits(np.frombuffer(_bytes(field), np.uint8), count=int(count)) for field in fields)
    scores: NDArray[np.float64] = right.astype(np.float64)
    if seen:
        scores[seen[0] == 0] = np.nan
    return scores


def kept(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as they are read back: for comparisons with others that were kept."""
    return decode(encode(scores))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


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


def value_of(trial: FrozenTrial, goal: Objective) -> float | None:
    """What a trial scores by the measure that results are told in; None if it did not run to the end.

    With one objective that is its value. With several, the mean of a score of its own, which weighs them.
    """
    if trial.state != TrialState.COMPLETE or trial.values is None:
        return None
    if len(trial.values) == 1:
        return float(trial.values[0])
    return float(np.nanmean(decode(trial.user_attrs[SCORES][goal.name])))


def score_matrix(kept_scores: Mapping[int, Mapping[str, Encoded]], metric: str) -> Mapping[int, NDArray[np.float64]]:
    """Trial number to its scores of every search problem, NaN where unseen, for all trials that saw any.

    Args:
        kept_scores: Trial number to its attribute `SCORES`, as `Database.attributes` gives them in one query.
        metric: Name of the score.
    """
    return {number: decode(scores[metric]) for number, scores in kept_scores.items()}
