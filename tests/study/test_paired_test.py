"""Paired tests against chances worked by hand, and against simulated equals."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from optmerge.study.paired_test import paired_p_value


def scores(lost: int, won: int, same: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.r_[np.zeros(lost), np.ones(won), np.ones(same)], np.r_[np.ones(lost), np.zeros(won), np.ones(same)]


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (6, 1), (3, 3), (1, 4)])
def test_in_general_the_lost_are_binomial(lost: int, won: int) -> None:
    both = lost + won
    expected = sum(math.comb(both, i) for i in range(lost, both + 1)) / 2**both
    assert paired_p_value(*scores(lost, won, 10)) == pytest.approx(expected)


@pytest.mark.parametrize(("lost", "won", "of"), [(5, 0, 40), (6, 2, 40), (4, 4, 80)])
def test_of_so_many_the_lost_are_hypergeometric(lost: int, won: int, of: int) -> None:
    """Twenty problems are seen; of all that differ, in proportion, two equals would lose half."""
    both = lost + won
    half = (both * of // 20) // 2
    ways = [math.comb(half, i) * math.comb(half, both - i) for i in range(both + 1)]
    expected = (Fraction(sum(ways[lost + 1 :])) + Fraction(ways[lost], 2)) / sum(ways)
    assert paired_p_value(*scores(lost, won, 20 - both), of=of) == pytest.approx(float(expected))


def test_what_has_seen_more_of_all_is_surer() -> None:
    found = [paired_p_value(*scores(8, 4, 28), of=of) for of in (40, 60, 120, 10_000)]
    assert found == sorted(found)
    assert found[0] == 0.0  # nothing can change any more
    assert paired_p_value(*scores(4, 4, 32), of=40) == 1.0
    # Very many are as good as unlimited: the binomial's mid-p.
    chances = [math.comb(12, i) / 2**12 for i in range(13)]
    assert found[-1] == pytest.approx(sum(chances[9:]) + chances[8] / 2, rel=0.02)


def test_graded_scores_are_compared_by_the_mean_of_their_differences() -> None:
    """Differences of -1, -2, -3, -4: mean -2.5, standard error 0.6455, t of three degrees of freedom -3.873."""
    found = paired_p_value(np.array([0.0, 0, 0, 0]), np.array([1.0, 2, 3, 4]))
    assert found == pytest.approx(0.0152, abs=1e-4)  # as tables have it


def test_with_a_share_unseen_the_standard_error_is_that_much_less() -> None:
    rng = np.random.default_rng(3)
    reference = rng.random(60)
    candidate = reference - 0.02 + 0.1 * rng.standard_normal(60)
    plain = paired_p_value(candidate, reference)
    assert paired_p_value(candidate, reference, of=10**6) == pytest.approx(plain, rel=1e-3)
    assert paired_p_value(candidate, reference, of=70) < paired_p_value(candidate, reference, of=120) < plain
    assert paired_p_value(candidate, reference, of=60) == 0.0


@pytest.mark.parametrize(("by", "expected"), [(-0.25, 0.0), (0.25, 1.0)])
def test_what_differs_by_the_same_everywhere_is_clear(by: float, expected: float) -> None:
    reference = np.arange(8.0)
    assert paired_p_value(reference + by, reference) == expected


def test_many_small_losses_for_a_few_large_gains_are_no_defeat() -> None:
    """A candidate that is a little worse on most problems and much better on some has the higher mean."""
    reference = np.full(100, 0.5)
    candidate = reference - 0.01
    candidate[:10] = 0.75
    assert candidate.mean() > reference.mean()
    assert paired_p_value(candidate, reference, of=200) > 0.5


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("seen", [40, 100, 160])
def test_equals_are_called_worse_about_as_often_as_the_level_says(seen: int, graded: bool) -> None:
    """Two that come out equal over all 200 problems, of which some are seen in random order."""
    rng, level, runs = np.random.default_rng(seen), 0.1, 2000
    differences = np.r_[np.ones(40), -np.ones(40), np.zeros(120)]
    if graded:
        # Gains of any size; losses all alike and more.
        differences = np.r_[rng.random(40) ** 3, -0.1 * np.ones(100), np.zeros(60)]
        differences[:40] *= -differences[40:].sum() / differences[:40].sum()
    called = 0
    for _ in range(runs):
        drawn = rng.permutation(differences)[:seen]
        reference = (drawn < 0).astype(float)
        called += paired_p_value(reference + drawn, reference, of=200) < level
    # Where few of many skewed differences are seen, Student's test keeps its level roughly.
    assert 0.05 < called / runs < (0.25 if graded and seen == 40 else 0.15)
