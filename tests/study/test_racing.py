"""Racing: stopping trials that are beaten."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from optmerge.study.paired_test import paired_p_value
from optmerge.study.pruners import none
from optmerge.study.pruners.racing import Options, RacingPruner, build
from optmerge.study.trial_scores import FinishedTrial

Scores = NDArray[np.float64]


def pruner(problems: int = 200, **options: float) -> RacingPruner:
    """A pruner that was asked for its batches, as the objective does."""
    racing = build(Options(**options))  # type: ignore[arg-type]
    racing.batch_sizes(problems)
    return racing


def beginning(scores: Scores, seen: int) -> Scores:
    """The scores of a trial that has seen so many problems."""
    partial = np.full(len(scores), np.nan)
    partial[:seen] = scores[:seen]
    return partial


def right_on(accuracy: float, problems: int = 200) -> Scores:
    """Scores that are right on so many problems, the same ones whenever asked."""
    return np.random.default_rng(0).permutation((np.arange(problems) < accuracy * problems).astype(float))


def test_p_value_is_the_chance_of_so_many_losses_among_equals() -> None:
    candidate = np.array([0.0, 0, 0, 0, 0, 1, 1, 0])
    reference = np.array([1.0, 1, 1, 1, 1, 0, 1, 0])
    # Of six problems that differ it lost five; two coins of six show five heads or more seven times of 64.
    assert paired_p_value(candidate, reference) == pytest.approx((math.comb(6, 5) + math.comb(6, 6)) / 2**6)


def test_equal_scores_give_no_evidence() -> None:
    scores = np.array([1.0, 0.0, 1.0])
    assert paired_p_value(scores, scores) == 1.0


def test_a_winner_is_not_beaten() -> None:
    assert paired_p_value(np.ones(20), np.zeros(20)) == 1.0


def test_batches_hold_every_problem_and_are_alike() -> None:
    sizes = build(Options(batch=40)).batch_sizes(210)
    assert sum(sizes) == 210 and len(sizes) == 5 and max(sizes) - min(sizes) <= 1


def test_a_much_worse_trial_is_stopped() -> None:
    assert pruner().is_beaten(beginning(np.zeros(200), 40), right_on(0.6), look=1)


def test_an_equal_trial_is_not_stopped() -> None:
    reference = right_on(0.6)
    assert not pruner().is_beaten(beginning(reference, 160), reference, look=4)


def test_a_better_trial_is_not_stopped() -> None:
    assert not pruner().is_beaten(beginning(np.ones(200), 160), right_on(0.6), look=4)


def test_nothing_is_stopped_when_it_has_seen_everything() -> None:
    assert not pruner(200).is_beaten(np.zeros(200), right_on(1.0), look=5)


def test_nothing_is_stopped_that_has_seen_everything_in_one_batch() -> None:
    assert not pruner(24).is_beaten(np.zeros(24), right_on(1.0, problems=24), look=1)


def test_problems_that_were_not_seen_do_not_count() -> None:
    # The reference is right only where the trial has not been.
    reference = np.r_[np.zeros(40), np.ones(160)]
    assert not pruner().is_beaten(beginning(np.zeros(200), 40), reference, look=1)


@pytest.mark.parametrize(("lost", "beaten"), [(3, False), (4, True), (40, True)])
def test_a_trial_is_stopped_from_the_loss_on_that_is_unlikely_among_equals(lost: int, beaten: bool) -> None:
    # Of 5 lost ones a problem, equals would lose half in all; four looks share the level of 0.1. Of a fifth of the
    # problems all that differ are lost, by two that are equal in the end, with the chance of drawing so many of one
    # colour from an urn of five times as many, half of each; half of that is the mid-p.
    half = round(5 * lost / 2)
    assert (math.comb(half, lost) / math.comb(2 * half, lost) / 2 < 0.1 / 4) == beaten
    reference, scores = np.zeros(200), np.full(200, np.nan)
    reference[:lost], scores[:40] = 1.0, 0.0
    assert pruner(level=0.1).is_beaten(scores, reference, look=1) == beaten


# The reference


def of_values(*values: float) -> list[FinishedTrial]:
    return [FinishedTrial(number, value, "", 1.0) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "population", "middle"),
    [
        ((0.5, 0.9), 2, 0.9),
        ((0.5, 0.9, 0.1), 3, 0.9),
        ((0.5, 0.9, 0.1, 0.7), 4, 0.7),
        ((0.5, 0.9, 0.1, 0.7, 0.3, 0.2), 6, 0.5),
        ((0.5, 0.9, 0.1), 12, 0.1),  # fewer survived than would be recombined
    ],
)
def test_reference_is_the_last_that_cma_es_recombines(
    values: tuple[float, ...], population: int, middle: float
) -> None:
    chosen = pruner().reference(of_values(*values), population)
    assert chosen is not None and chosen.value == middle


@pytest.mark.parametrize(("rank", "value"), [(1, 0.9), (2, 0.7), (4, 0.1), (9, 0.1)])
def test_reference_may_be_of_another_rank(rank: int, value: float) -> None:
    chosen = pruner(rank=rank).reference(of_values(0.5, 0.9, 0.1, 0.7), 8)
    assert chosen is not None and chosen.value == value


def test_of_equals_the_first_slot_is_the_reference() -> None:
    chosen = pruner(rank=2).reference(of_values(0.5, 0.5, 0.5, 0.5), 4)
    assert chosen is not None and chosen.number == 1


def test_without_survivors_nobody_is_raced() -> None:
    assert pruner().reference([], 8) is None
    assert none.build(none.Options()).reference(of_values(0.5), 8) is None


# The estimate


def test_estimate_of_a_trial_like_the_reference_follows_the_reference() -> None:
    reference = right_on(0.6)
    # Seen were the problems on which the reference is right, and as many others: better than all of them.
    scores = np.full(200, np.nan)
    right, wrong = np.flatnonzero(reference == 1)[:40], np.flatnonzero(reference == 0)[:10]
    scores[right], scores[wrong] = 1.0, 0.0
    seen = ~np.isnan(scores)
    spread = ((reference[seen] - reference[seen].mean()) ** 2).sum()
    expected = 0.8 + spread / (spread + 1) * (0.6 - 0.8)
    assert pruner().estimate(scores, reference)[0] == pytest.approx(expected)
    assert abs(pruner().estimate(scores, reference)[0] - 0.6) < 0.03 < abs(np.nanmean(scores) - 0.6)


def test_estimate_of_a_trial_unlike_the_reference_is_its_mean() -> None:
    reference = right_on(0.6)
    scores = beginning(1 - reference, 80)  # it fails where the reference does not: the slope is kept at 0
    assert pruner().estimate(scores, reference)[0] == pytest.approx(float(np.nanmean(scores)))


def test_estimate_where_the_reference_says_nothing_is_the_mean() -> None:
    scores = beginning(right_on(0.4), 40)
    assert pruner().estimate(scores, np.ones(200))[0] == pytest.approx(float(np.nanmean(scores)))


def test_the_standard_error_is_that_of_many_repetitions() -> None:
    """Of a trial that was not stopped for its scores: half of its problems were drawn, again and again."""
    random = np.random.default_rng(3)
    reference = right_on(0.6)
    whole = np.where(random.random(200) < 0.3, 1 - reference, reference)
    found = []
    for _ in range(400):
        seen = whole.copy()
        seen[random.permutation(200)[:100]] = np.nan
        found.append(pruner().estimate(seen, reference))
    estimates, errors = np.array(found).T
    assert estimates.mean() == pytest.approx(whole.mean(), abs=0.01)
    assert np.median(errors) == pytest.approx(estimates.std(), rel=0.15)


def test_estimates_are_nearer_to_the_truth_than_partial_means() -> None:
    """On problems of unlike difficulty, which trial and reference find alike hard."""
    random = np.random.default_rng(7)
    errors = np.zeros((300, 2))
    for i in range(300):
        difficulty = random.random(200)
        reference, scores = ((random.random(200) < difficulty**4).astype(float) for _ in range(2))
        seen = beginning(scores, 40)
        errors[i] = (
            pruner().estimate(seen, reference)[0] - scores.mean(),
            float(np.nanmean(seen)) - scores.mean(),
        )
    estimated, partial = np.sqrt((errors**2).mean(axis=0))
    assert estimated < 0.95 * partial


# How often


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_equals_are_stopped_less_often_than_the_level(spread: float) -> None:
    """Trials that draw level with the reference, on problems of unlike difficulty, looked at four times each."""
    random = np.random.default_rng(5)
    runs, level, problems = 400, 0.1, 200
    racing = pruner(problems, level=level)
    stopped = 0
    for _ in range(runs):
        chance = np.clip(0.5 + spread * random.standard_normal(problems), 0, 1)
        reference, candidate = ((random.random(problems) < chance).astype(float) for _ in range(2))
        while reference.sum() != candidate.sum():  # one problem more or less, until they are level
            behind = reference if reference.sum() < candidate.sum() else candidate
            behind[random.choice(np.flatnonzero(behind == 0))] = 1.0
        stopped += any(racing.is_beaten(beginning(candidate, 40 * look), reference, look) for look in range(1, 5))
    # Three standard errors of a share of 0.1 over 400 runs are 0.045.
    assert stopped / runs < level + 3 * math.sqrt(level * (1 - level) / runs)


def test_clearly_worse_trials_are_mostly_stopped() -> None:
    random = np.random.default_rng(6)
    racing = pruner(200)
    stopped = 0
    for _ in range(100):
        reference = (random.random(200) < 0.6).astype(float)
        candidate = (random.random(200) < 0.2).astype(float)
        stopped += any(racing.is_beaten(beginning(candidate, 40 * look), reference, look) for look in range(1, 5))
    assert stopped > 90
