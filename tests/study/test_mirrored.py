"""Mirrored, orthogonal deviates, and that selection by chance neither shrinks nor widens a search that draws them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from optmerge.space import Gene
from optmerge.study.conditional import Conditional
from optmerge.study.evolution import Coordinates, Full, Mixed, Separable
from optmerge.study.mirrored import deviates, selection_mass
from optmerge.study.slots import Slot


def generation(number: int, population: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.array([deviates(seed, Slot(number, member), dimensions) for member in range(population)])


@pytest.mark.parametrize(("population", "dimensions"), [(16, 12), (11, 40), (10, 3), (6, 1), (7, 2)])
def test_members_come_in_mirrored_pairs(population: int, dimensions: int) -> None:
    members = generation(3, population, dimensions)
    paired = population - population % 2
    np.testing.assert_array_equal(members[1:paired:2], -members[:paired:2])
    assert len(np.unique(members.round(9), axis=0)) == population


@pytest.mark.parametrize(("population", "dimensions"), [(16, 12), (12, 40), (10, 3)])
def test_pairs_are_orthogonal_as_many_as_there_are_dimensions(population: int, dimensions: int) -> None:
    pairs = generation(5, population, dimensions)[::2]
    for first in range(0, len(pairs), dimensions):
        block = pairs[first : first + dimensions]
        products = block @ block.T
        np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-9)


def test_every_member_by_itself_is_normal() -> None:
    for member in (0, 1, 6, 9):
        drawn = np.array([deviates(1, Slot(number, member), 4) for number in range(2000)])
        assert all(kstest(column, "norm").pvalue > 1e-3 for column in drawn.T)
        np.testing.assert_allclose(np.cov(drawn.T), np.eye(4), atol=0.12)


def test_seeds_and_generations_are_independent() -> None:
    first = generation(0, 8, 5)
    np.testing.assert_array_equal(first, generation(0, 8, 5))
    for other in (generation(1, 8, 5), generation(0, 8, 5, seed=1)):
        assert not np.isclose(first, other).any()


def test_nothing_is_drawn_where_no_number_is_searched() -> None:
    assert deviates(0, Slot(0, 3), 0).shape == (0,)


@pytest.mark.parametrize("population", [3, 8, 11, 32])
def test_selection_mass_is_what_a_mean_by_chance_is_worth(population: int) -> None:
    """Against many generations whose members are ranked by chance."""
    half = max(1, population // 2)
    weights = np.log((population + 1) / 2) - np.log(np.arange(1, half + 1))
    weights /= weights.sum()
    rng = np.random.default_rng(0)
    steps = [weights @ generation(number, population, 6)[rng.permutation(population)[:half]] for number in range(700)]
    assert np.mean(np.square(steps)) == pytest.approx(1 / selection_mass(1 / (weights**2).sum(), population), rel=0.08)


GENES = [Gene(f"g{i}", low=-500.0, high=500.0, sigma=0.001) for i in range(8)]
SWITCHED = [
    gene
    for i in range(8)
    for gene in (Gene(f"s{i}", "switch"), Gene(f"g{i}", low=-500.0, sigma=0.001, active_if=f"s{i}"))
]


def start(genes: list[Gene]) -> dict[str, Any]:
    return {gene.name: gene.start() for gene in genes}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Full(Coordinates(GENES, 1 / 6), start(GENES), 16),
        lambda: Separable(Coordinates(GENES, 1 / 6), start(GENES), 16),
        lambda: Mixed(GENES, 1 / 6, start(GENES), 16),
        lambda: Conditional(SWITCHED, 1 / 6, start(SWITCHED), 16),
    ],
    ids=["full", "separable", "mixed", "conditional"],
)
def test_step_size_does_not_shrink_where_nothing_is_selected(make: Callable[[], Any]) -> None:
    """Without the corrected mass it halves every 15 generations or so."""
    drifts = []
    for seed in range(10):
        distribution, rng = make(), np.random.default_rng(seed)
        for number in range(40):
            z = generation(number, 16, distribution.dimensions, seed)
            genomes = [distribution.sample(one, rng) for one in z]
            distribution.tell([genomes[i] for i in rng.permutation(16)], distribution)
        learnt = distribution if isinstance(distribution, Conditional) else distribution._cma
        drifts.append(math.log(learnt._sigma))
    assert abs(np.mean(drifts)) < 0.6
