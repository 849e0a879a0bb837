"""How sure a score is."""

import numpy as np
import pytest

from optmerge.study.interval import bootstrap


@pytest.mark.parametrize(("right", "count"), [(300, 1000), (125, 250), (90, 100)])
def test_interval_of_right_and_wrong_is_near_the_normal_one(right: int, count: int) -> None:
    scores = (np.arange(count) < right).astype(float)
    found, share = bootstrap({"acc": scores}, "acc"), right / count
    half = 1.96 * (share * (1 - share) / count) ** 0.5
    assert found.score == pytest.approx(share)
    assert (found.low, found.high) == pytest.approx((share - half, share + half), abs=0.1 * half + 1 / count)


def test_interval_of_equal_scores_is_a_point() -> None:
    found = bootstrap({"x": np.full(30, 0.5)}, "x")
    assert (found.low, found.score, found.high) == (0.5, 0.5, 0.5)


def test_interval_is_the_same_every_time() -> None:
    scores = np.random.default_rng(0).random(50)
    assert bootstrap({"x": scores}, "x") == bootstrap({"x": scores}, "x")


def test_how_many_problems_a_part_has_is_no_matter_of_chance() -> None:
    """Two parts on scales of their own, each with hardly any spread: the mean of both is as sure as each of them."""
    score = np.r_[np.full(50, 1.0), np.full(50, -5.0)] + 0.01 * np.random.default_rng(1).standard_normal(100)
    first = np.r_[np.ones(50), np.full(50, np.nan)]
    found = bootstrap({"score": score, "a/acc": first}, "score")
    assert found.score == pytest.approx(score.mean())
    assert found.high - found.low < 0.01
    pooled = bootstrap({"score": score}, "score")
    assert pooled.high - pooled.low > 1


def test_problems_without_the_score_are_left_out() -> None:
    found = bootstrap({"score": np.array([1.0, 0.0, np.nan]), "guard": np.array([np.nan, np.nan, 1.0])}, "score")
    assert found.score == 0.5
