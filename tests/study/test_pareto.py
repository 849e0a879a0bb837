"""What is better in several objectives, on points whose front is plain to see."""

import itertools

import numpy as np
import pytest

from optmerge.study.pareto import covers, front, spread


def test_to_cover_is_to_be_at_least_as_good_in_everything() -> None:
    assert covers((1, 2), (1, 2)) and covers((1, 3), (1, 2))
    assert not covers((1, 3), (2, 1)) and not covers((2, 1), (1, 3))


def test_the_front_is_what_nothing_is_better_than() -> None:
    #        ^  a
    #        |     c  b       d and e are worse than b; f is b again
    #        |     d  e  g
    points = [(0, 3), (2, 2), (1, 2), (1, 1), (2, 1), (2, 2), (3, 1)]
    assert front(points) == [0, 1, 6]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_front_of_random_points_is_that_of_its_definition(objectives: int) -> None:
    points = [tuple(row) for row in np.random.default_rng(objectives).integers(0, 6, (60, objectives)).tolist()]
    found = {points[i] for i in front(points)}
    better = {
        point
        for point in points
        if not any(other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in points)
    }
    assert found == better and len(front(points)) == len(found)


def test_those_far_apart_are_kept_and_so_are_the_ends() -> None:
    points = [(0, 10), (1, 9), (1.1, 8.9), (1.2, 8.8), (5, 5), (10, 0)]
    assert spread(points, 6, first=0) == [0, 1, 2, 3, 4, 5]
    assert spread(points, 2, first=0) == [0, 5]
    kept = spread(points, 4, first=0)
    assert {0, 4, 5} < set(kept) and len(kept) == 4


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_one_that_is_to_be_kept_is(count: int) -> None:
    points = [(0, 10), (1, 9), (1.1, 8.9), (1.2, 8.8), (5, 5), (10, 0)]
    kept = spread(points, count, first=2)
    assert 2 in kept and len(kept) == count


def test_objectives_of_any_scale_count_alike() -> None:
    points = [(0, 10), (2, 9), (4, 6), (7, 5), (10, 0)]
    for one, other in itertools.product((1, 1000), repeat=2):
        scaled = [(x * one, y * other) for x, y in points]
        assert spread(scaled, 3, first=0) == spread(points, 3, first=0)
