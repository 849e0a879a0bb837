"""Racing: stopping trials that are beaten."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from optmerge.study.pruners.racing import Options, RacingPruner, build, paired_p_value
from optmerge.study.trial_scores import FinishedTrial, encode

Scores = NDArray[np.float64]


def trial(scores: Scores, number: int = 0) -> FinishedTrial:
    return FinishedTrial(number, float(scores.mean()), encode(scores), 1.0)


def pruner(problems: int = 200, **options: float) -> RacingPruner:
    """A pruner that was asked for its batches, as the objective does."""
    racing = build(Options(**{"window": 3, "rank": 2, **options}))  # type: ignore[arg-type]
    racing.batch_sizes(problems)
    return racing


def beginning(scores: Scores, seen: int) -> Scores:
    """The scores of a trial that has seen so many problems."""
    partial = np.full(len(scores), np.nan)
    partial[:seen] = scores[:seen]
    return partial


def window(accuracy: float, problems: int = 200, count: int = 3) -> list[FinishedTrial]:
    """Trials that are right on the same first problems."""
    scores = (np.arange(problems) < accuracy * problems).astype(float)
    return [trial(np.random.default_rng(0).permutation(scores), number) for number in range(count)]


def test_p_value_is_the_chance_of_so_many_losses_among_equals() -> None:
    candidate = np.array([0.0, 0, 0, 0, 0, 1, 1, 0])
    reference = np.array([1.0, 1, 1, 1, 1, 0, 1, 0])
    # Of six problems that differ it lost five; two coins of six show five heads or more seven times of 64.
    assert paired_p_value(candidate, reference) == pytest.approx((math.comb(6, 5) + math.comb(6, 6)) / 2**6)


def test_p_value_of_graded_scores_is_that_of_the_signed_ranks() -> None:
    candidate = np.array([0.1, 0.2, 0.3, 0.4])
    reference = candidate + np.array([0.1, 0.2, 0.3, 0.4])
    # Of the 2^4 equally likely signs only one is as bad as losing all four.
    assert paired_p_value(candidate, reference) == pytest.approx(1 / 2**4)


def test_equal_scores_give_no_evidence() -> None:
    scores = np.array([1.0, 0.0, 1.0])
    assert paired_p_value(scores, scores) == 1.0


def test_a_winner_is_not_beaten() -> None:
    assert paired_p_value(np.ones(20), np.zeros(20)) == 1.0


def test_batches_hold_every_problem_and_are_alike() -> None:
    sizes = build(Options(batch=40)).batch_sizes(210)
    assert sum(sizes) == 210 and len(sizes) == 5 and max(sizes) - min(sizes) <= 1


def test_a_much_worse_trial_is_stopped() -> None:
    assert pruner().is_beaten(beginning(np.zeros(200), 40), window(0.6), look=1)


def test_an_equal_trial_is_not_stopped() -> None:
    finished = window(0.6)
    assert not pruner().is_beaten(beginning(finished[0].scores(), 160), finished, look=4)


def test_a_better_trial_is_not_stopped() -> None:
    assert not pruner().is_beaten(beginning(np.ones(200), 160), window(0.6), look=4)


def test_nothing_is_stopped_before_the_window_is_full() -> None:
    assert not pruner().is_beaten(beginning(np.zeros(200), 40), window(1.0, count=2), look=1)


def test_nothing_is_stopped_when_it_has_seen_everything() -> None:
    assert not pruner(200).is_beaten(np.zeros(200), window(1.0), look=5)


def test_nothing_is_stopped_that_has_seen_everything_in_one_batch() -> None:
    assert not pruner(24).is_beaten(np.zeros(24), window(1.0, problems=24), look=1)


def test_problems_that_were_not_seen_do_not_count() -> None:
    # The reference is right only where the trial has not been.
    reference = np.r_[np.zeros(40), np.ones(160)]
    finished = [trial(reference, number) for number in range(3)]
    assert not pruner().is_beaten(beginning(np.zeros(200), 40), finished, look=1)


@pytest.mark.parametrize(("rank", "beaten"), [(1, True), (2, False), (3, False)])
def test_reference_is_of_the_given_rank_among_the_last(rank: int, beaten: bool) -> None:
    perfect, middling, bad = np.ones(200), np.r_[np.ones(100), np.zeros(100)], np.zeros(200)
    # Of the last three the best is perfect, the second middling; of all five the second would be perfect too.
    finished = [trial(scores, number) for number, scores in enumerate((perfect, perfect, bad, perfect, middling))]
    assert pruner(rank=rank).is_beaten(beginning(middling, 160), finished, look=4) == beaten


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_equals_are_stopped_less_often_than_the_level(spread: float) -> None:
    """Trials as good as the reference, on problems of unlike difficulty, looked at four times each."""
    random = np.random.default_rng(5)
    runs, level, problems = 400, 0.1, 200
    racing = pruner(problems, level=level, window=1, rank=1)
    stopped = 0
    for _ in range(runs):
        chance = np.clip(0.5 + spread * random.standard_normal(problems), 0, 1)
        reference, candidate = ((random.random(problems) < chance).astype(float) for _ in range(2))
        stopped += any(
            racing.is_beaten(beginning(candidate, 40 * look), [trial(reference)], look) for look in range(1, 5)
        )
    # Three standard errors of a share of 0.1 over 400 runs are 0.045.
    assert stopped / runs < level + 3 * math.sqrt(level * (1 - level) / runs)


def test_clearly_worse_trials_are_mostly_stopped() -> None:
    random = np.random.default_rng(6)
    racing = pruner(200, window=1, rank=1)
    stopped = 0
    for _ in range(100):
        reference = (random.random(200) < 0.6).astype(float)
        candidate = (random.random(200) < 0.2).astype(float)
        stopped += any(
            racing.is_beaten(beginning(candidate, 40 * look), [trial(reference)], look) for look in range(1, 5)
        )
    assert stopped > 90
