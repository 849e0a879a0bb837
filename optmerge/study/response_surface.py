"""Where a model of the fitness sees its best: a quadratic regression over the trials so far.

Selection by rank uses of a trial little more than its place in its generation, and half of a close ranking is the noise
of the problems. A regression over hundreds of trials averages that noise, and near an optimum, where every smooth
function is a quadratic one, it knows the way after about as many trials as it has coefficients. One genome of every
generation is therefore the model's; if the model is wrong, it ranks as any other bad genome does. Models, weights and
numbers of trials follow Hansen (2019), "A global surrogate assisted CMA-ES", which evaluates fewer genomes instead.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MOST = 500  # coefficients of a model with products of genes: beyond 30 genes, the regression would take seconds
_SURPLUS = 1.1  # least trials a coefficient
_KEPT = 4  # most trials a coefficient: older ones tell of regions that the search has left
_WEIGHT_OF_THE_BEST = 20.0  # against that of the worst, as the model is to be right where fitness is high


def trials_for(genes: int, known: int) -> int:
    """How many trials, the last ones, a model of so many genes is to be made of; 0 if too few are known for any."""
    fitting = (count for count in _coefficients(genes) if known >= _SURPLUS * count)
    return min(known, _KEPT * next(fitting, 0))


def best_point(points: Floats, fitness: Floats) -> Floats | None:
    """The point at which the model is highest, no farther from the origin than random points usually are.

    Args:
        points: Shape (trials, genes), as many trials as `trials_for` says; in units in which genomes are sampled from
            a standard normal distribution.
        fitness: Shape (trials,); higher is better.

    Returns:
        Shape (genes,), of a norm of at most sqrt(genes). None if all are equally fit.
    """
    trials, genes = points.shape
    if not trials or fitness.min() == fitness.max():
        return None
    count = next(count for count in _coefficients(genes) if trials >= _SURPLUS * count)
    squared = count > genes + 1
    left, right = np.triu_indices(genes, 1) if count > 2 * genes + 1 else (np.zeros(0, int), np.zeros(0, int))
    columns = [np.ones((trials, 1)), points, *([points**2] if squared else []), points[:, left] * points[:, right]]
    rank = np.argsort(np.argsort(-fitness, kind="stable"), kind="stable")
    weight = np.sqrt(np.linspace(_WEIGHT_OF_THE_BEST, 1.0, trials)[rank])
    found = np.linalg.lstsq(np.hstack(columns) * weight[:, None], fitness * weight, rcond=None)[0]
    curvature = np.zeros((genes, genes))
    if squared:
        np.fill_diagonal(curvature, 2 * found[genes + 1 : 2 * genes + 1])
        curvature[left, right] = curvature[right, left] = found[2 * genes + 1 :]
    return highest(found[1 : genes + 1], curvature, float(np.sqrt(genes)))


def highest(slope: Floats, curvature: Floats, radius: float) -> Floats:
    """The x within the radius that maximizes `slope x + x curvature x / 2`.

    That is `(t - curvature)^-1 slope` for the least t >= 0 that makes the matrix positive definite and the point near
    enough (Moré and Sorensen, 1983, "Computing a trust region step").
    """
    bends, axes = np.linalg.eigh(-curvature)
    along = axes.T @ slope
    if bends[0] > 0 and np.linalg.norm(along / bends) <= radius:
        inside: Floats = axes @ (along / bends)
        return inside
    least = max(0.0, -float(bends[0]))
    most = least + float(np.linalg.norm(along)) / radius + np.finfo(float).tiny
    for _ in range(100):  # halvings: as near as floating point comes
        middle = (least + most) / 2
        far = bool((bends + middle <= 0).any()) or np.linalg.norm(along / (bends + middle)) > radius
        least, most = (middle, most) if far else (least, middle)
    nearest: Floats = axes @ (along / (bends + most))
    return nearest


def _coefficients(genes: int) -> Iterator[int]:
    """How many coefficients models have: with squares and products of genes, with squares, and without."""
    whole = (genes + 1) * (genes + 2) // 2
    if whole <= _MOST:
        yield whole
    yield 2 * genes + 1
    yield genes + 1
