"""How sure a score is."""

import numpy as np
import pytest

from optmerge.study.interval import bootstrap


@pytest.mark.parametrize(("right", "count"), [(300, 1000), (125, 250), (90, 100)])
def test_interval_of_right_and_wrong_is_near_the_normal_one(right: int, count: int) -> None:
    scores = (np.arange(count) < right).astype(float)
    found, share = bootstrap(scores), right / count
    half = 1.96 * (share * (1 - share) / count) ** 0.5
    assert found.score == pytest.approx(share)
    assert (found.low, found.high) == pytest.approx((share - half, share + half), abs=0.1 * half + 1 / count)


def test_interval_of_equal_scores_is_a_point() -> None:
    found = bootstrap(np.full(30, 0.5))
    assert (found.low, found.score, found.high) == (0.5, 0.5, 0.5)


def test_interval_is_the_same_every_time() -> None:
    scores = np.random.default_rng(0).random(50)
    assert bootstrap(scores) == bootstrap(scores)
