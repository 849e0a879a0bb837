"""Of several objectives: what is better, and which are the best compromises. Higher is better in all of them."""

import math
from collections.abc import Sequence

import numpy as np

Point = Sequence[float]


def covers(one: Point, other: Point) -> bool:
    """Whether one is at least as good as the other in everything."""
    return all(mine >= theirs for mine, theirs in zip(one, other, strict=True))


def front(points: Sequence[Point]) -> list[int]:
    """The Pareto front: positions of the points that nothing else is better than; of equal points the first."""
    values = np.array(points, dtype=np.float64)
    found = []
    for i, point in enumerate(values):
        as_good = np.flatnonzero((values >= point).all(axis=1))
        if not (values[as_good] > point).any() and as_good[0] == i:
            found.append(i)
    return found


def spread(points: Sequence[Point], count: int, first: int) -> list[int]:
    """So many points that are far apart, by crowding distance (Deb et al., 2002).

    Args:
        points: A Pareto front.
        count: How many; at least one.
        first: The position of one that is to be among them; after it come the ends of every objective.

    Returns:
        Their positions, in order.
    """
    kept = list(range(len(points)))
    while len(kept) > count:  # the most crowded leaves, and its neighbours have more room
        distance = dict.fromkeys(kept, 0.0)
        for objective in range(len(points[0])):
            order = sorted(kept, key=lambda i: points[i][objective])
            width = points[order[-1]][objective] - points[order[0]][objective]
            distance[order[0]] = distance[order[-1]] = math.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distance[i] += (points[after][objective] - points[before][objective]) / (width or 1.0)
        kept.remove(min((i for i in reversed(kept) if i != first), key=distance.__getitem__))
    return kept
