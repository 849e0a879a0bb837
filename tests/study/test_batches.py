"""Batches hold every problem once, are alike, and are as hard as one another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from optmerge.study.batches import dealt


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 99), st.booleans())
def test_every_problem_comes_once_in_batches_of_the_wanted_sizes(
    problems: int, count: int, seed: int, known: bool
) -> None:
    sizes = [problems // count + (i < problems % count) for i in range(count)]
    ease = rng(seed).integers(0, 3, 100).astype(float) if known else None
    batches = dealt(np.arange(100)[-problems:], ease, sizes, rng(seed))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(i for batch in batches for i in batch) == list(range(100 - problems, 100))


def test_each_batch_has_its_share_of_the_easy_ones() -> None:
    ease = rng().permutation([1.0] * 30 + [0.5] * 20 + [0.0] * 150)
    batches = dealt(np.arange(200), ease, [40] * 5, rng())
    shares = [[float((ease[batch] == level).sum()) for level in (1.0, 0.5, 0.0)] for batch in batches]
    assert shares == [[6, 4, 30]] * 5


def test_a_stratified_batch_says_more_of_the_whole_than_a_random_one() -> None:
    """Scores follow the ease: the spread of a first batch's mean, over many generations."""
    ease = rng(1).random(200)
    scores = (rng(2).random(200) < ease).astype(float)

    def spread(known: bool) -> float:
        first = [dealt(np.arange(200), ease if known else None, [40] * 5, rng(seed))[0] for seed in range(300)]
        return float(np.std([scores[batch].mean() for batch in first]))

    assert spread(True) < 0.85 * spread(False)


def test_the_order_follows_from_the_seed_and_another_seed_gives_another() -> None:
    ease = np.zeros(50)
    orders = [dealt(np.arange(50), ease, [25, 25], rng(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_problems_of_a_batch_are_not_sorted_by_ease() -> None:
    (batch,) = dealt(np.arange(100), np.arange(100.0), [100], rng())
    assert abs(np.corrcoef(batch, np.arange(100))[0, 1]) < 0.3
