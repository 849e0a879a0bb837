"""The model's best point, against functions whose best is known by hand."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from optmerge.space import Gene, Value
from optmerge.study.database import Database
from optmerge.study.mirrored import Floats
from optmerge.study.response_surface import best_point, highest, trials_for
from study.studies import begin, genomes, proposer, scored, search


def drawn(trials: int, genes: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((trials, genes))


def test_a_quadratic_function_is_known_exactly_once_there_are_more_trials_than_coefficients() -> None:
    best = np.array([0.5, -0.3, 0.2, 0.1])
    bends = np.array([[4.0, 1, 0, 0], [1, 3, 0, 0], [0, 0, 2, -1], [0, 0, -1, 1]])
    trials = trials_for(4, 17)  # 15 coefficients
    points = drawn(trials, 4)
    fitness = np.array([7 - (x - best) @ bends @ (x - best) for x in points])
    assert trials == 17
    assert best_point(points, fitness) == pytest.approx(best, abs=1e-9)


def test_with_fewer_trials_genes_are_taken_to_be_independent() -> None:
    best = np.array([0.5, -0.3, 0.2, 0.1])
    trials = trials_for(4, 16)  # 9 coefficients
    points = drawn(trials, 4)
    fitness = -(np.array([1.0, 2, 3, 4]) * (points - best) ** 2).sum(axis=1)
    assert trials == 16
    assert best_point(points, fitness) == pytest.approx(best, abs=1e-9)


def test_with_fewer_still_it_goes_uphill_as_far_as_random_points_lie() -> None:
    points = drawn(trials_for(4, 9), 4)
    assert len(points) == 9
    assert best_point(points, points @ [3.0, 0, 4, 0]) == pytest.approx([1.2, 0, 1.6, 0], abs=1e-9)


def test_of_many_trials_the_last_are_taken_and_of_too_few_none() -> None:
    assert trials_for(4, 10**6) == 4 * 15
    assert trials_for(100, 10**6) == 4 * 201, "products of a hundred genes would be 5000 coefficients"
    assert trials_for(4, 5) == 0
    assert best_point(drawn(trials_for(4, 5), 4), np.zeros(0)) is None


def test_equal_scores_say_nothing() -> None:
    assert best_point(drawn(60, 4), np.full(60, 0.25)) is None


def test_noise_is_averaged_out() -> None:
    """The best of the trials themselves is 0.5 and more from the true best."""
    best, noise = np.array([0.4, -0.2, 0.3]), np.random.default_rng(1).normal(0, 0.5, 40)
    found = []
    for seed in range(20):
        points = drawn(40, 3, seed)
        found.append(best_point(points, -((points - best) ** 2).sum(axis=1) + np.roll(noise, seed)))
    assert np.linalg.norm(np.mean(found, axis=0) - best) < 0.1
    assert np.mean([np.linalg.norm(point - best) for point in found]) < 0.35


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), genes=st.integers(1, 5), radius=st.floats(0.1, 10))
def test_no_point_within_the_radius_is_higher(seed: int, genes: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    slope, half = rng.standard_normal(genes), rng.standard_normal((genes, genes))
    curvature = half + half.T  # a saddle as a rule

    def height(x: Floats) -> float:
        return float(slope @ x + x @ curvature @ x / 2)

    found = highest(slope, curvature, radius)
    assert np.linalg.norm(found) <= radius * (1 + 1e-9)
    for start in rng.standard_normal((10, genes)) * radius / genes:
        inside = {"type": "ineq", "fun": lambda x: radius**2 - x @ x}
        other = minimize(lambda x: -height(x), start, constraints=[inside]).x
        if np.linalg.norm(other) <= radius * (1 + 1e-9):
            assert height(found) >= height(other) - 1e-6 * (1 + abs(height(found)))


# In a search

GENES = [Gene(f"g{i}") for i in range(4)]
BEST = np.array([0.2, 0.4, 0.6, 0.8])


def fitness(genome: Mapping[str, Value]) -> float:
    x = np.array([float(value) for value in genome.values()]) - BEST
    return -float((np.array([1, 10, 100, 1000]) * x**2).sum() + x.sum() ** 2)


@pytest.mark.parametrize("variant", ["full", "separable"])
def test_the_last_genome_of_a_generation_is_the_best_that_the_trials_before_let_one_know(
    database: Database, variant: str
) -> None:
    trials = {
        surrogate: search(begin(database, proposing, name=str(surrogate)), proposing, scored(fitness), 48)
        for surrogate in (True, False)
        for proposing in [proposer("cmaes", GENES, variant=variant, surrogate=surrogate)]
    }
    best = {surrogate: max(one.value for one in found) for surrogate, found in trials.items()}
    assert best[True] > -1e-6 > -1e-2 > best[False]


def test_genes_that_are_not_all_numbers_have_no_model(database: Database) -> None:
    genes = [*GENES, Gene("on", "switch")]
    found = []
    for surrogate in (True, False):
        proposing = proposer("cmaes", genes, surrogate=surrogate)
        opened = begin(database, proposing, name=str(surrogate))
        found.append(genomes(search(opened, proposing, scored(lambda genome: -float(genome["g0"])), 60)))
    assert found[0] == found[1]
