"""Search distributions: what they draw, and what they learn, held against formulas and the `cmaes` package itself."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import cmaes
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from optmerge.space import Gene, Value
from optmerge.study.evolution import Coordinates, Distribution, Full, Mixed, Separable, default_population

Floats = NDArray[np.float64]
Genome = dict[str, Value]

FLOATS = [Gene("a"), Gene("b", low=-1.0, high=3.0), Gene("c", sigma=0.02), Gene("d", initial=0.6), Gene("e", high=0.5)]
STEP = 0.05  # of the range: the bounds are ten steps away
WIDE = [Gene(f"w{i}", low=-50.0 - i, high=50.0, sigma=0.01) for i in range(5)]  # and here fifty
MIXED = [
    Gene("sources", "choice", choices=("a", "a+b", "b"), initial="a+b"),
    Gene("x"),
    Gene("layers", "int", 2, 9),
    Gene("on", "switch"),
    Gene("y", low=-1.0, high=3.0, sigma=0.02),
    Gene("kind", "choice", choices=("p", "q", "r", "s")),
]


def start(genes: Sequence[Gene]) -> Genome:
    return {gene.name: gene.start() for gene in genes}


def distribution(form: Callable[..., Distribution], genes: Sequence[Gene] = FLOATS, population: int = 8) -> Any:
    return form(Coordinates(genes, STEP), start(genes), population)


def vectors(genes: Sequence[Gene], genomes: Sequence[Genome], step: float = STEP) -> Floats:
    """Genomes as vectors, by the formula: distance from the lower bound in units of the first step."""
    unit = [(gene.high - gene.low) * (gene.sigma or step) for gene in genes]
    return np.array([[(float(one[g.name]) - g.low) / u for g, u in zip(genes, unit, strict=True)] for one in genomes])


def drawn(of: Distribution, count: int, seed: int = 0) -> list[Genome]:
    rngs = [np.random.default_rng([seed, i]) for i in range(count)]
    return [of.sample(rng.standard_normal(of.dimensions), rng) for rng in rngs]


def teach(learner: Any, ranked: Sequence[Genome]) -> None:
    """Let a distribution learn from samples of its own."""
    learner.tell(ranked, learner)


def loss(genome: Genome) -> float:
    """An ellipse that is not parallel to the axes."""
    x = np.array([float(value) for value in genome.values()])
    return float(((x - 0.3) ** 2).sum() + (x.sum() - 1) ** 2)


# Learning


def theirs(form: Callable[..., Any], genes: Sequence[Gene], population: int) -> Any:
    """The package's own, told how much less a mean of mirrored pairs wanders."""
    optimizer = {Full: cmaes.CMA, Separable: cmaes.SepCMA}[form]
    package = optimizer(vectors(genes, [start(genes)])[0], 1.0, population_size=population, seed=3)
    squares = 1 / package._mu_eff
    package._mu_eff = 1 / (squares - (1 - squares) / (population - 1))
    return package


@pytest.mark.parametrize("form", [Full, Separable])
def test_what_is_learnt_is_what_the_package_learns_from_the_same_points(form: Callable[..., Any]) -> None:
    ours, package = distribution(form, WIDE), theirs(form, WIDE, 8)
    coordinates = Coordinates(WIDE, STEP)
    for _ in range(12):
        points = [package.ask() for _ in range(8)]
        genomes = [coordinates.genome(point) for point in points]
        np.testing.assert_allclose(vectors(WIDE, genomes), points, rtol=1e-9)
        values = [loss(genome) for genome in genomes]
        package.tell(list(zip(points, values, strict=True)))
        teach(ours, [genomes[i] for i in np.argsort(values)])
        package._eigen_decomposition()
        for name in ("_mean", "_sigma", "_C", "_p_sigma", "_pc"):
            np.testing.assert_allclose(getattr(ours._cma, name), getattr(package, name), rtol=1e-9, atol=1e-9)


def test_mixed_learns_what_the_package_learns_from_the_same_solutions() -> None:
    genes = [gene for gene in MIXED if gene.kind != "int"]  # theirs tell whole numbers by their hidden place
    mixed = Mixed(genes, STEP, start(genes), 10)
    package = copy.deepcopy(mixed._cma)
    package.reseed_rng(3)
    x, y = Gene("x"), next(gene for gene in genes if gene.name == "y")
    for _ in range(12):
        solutions = [package.ask() for _ in range(10)]
        genomes = []
        for solution in solutions:
            taken = [int(row.argmax()) for row in solution.c]
            genomes.append(
                {
                    "sources": ("a", "a+b", "b")[taken[0]],
                    "x": float(solution.x[0]) * STEP,
                    "on": (False, True)[taken[1]],
                    "y": -1.0 + float(solution.x[1]) * 4.0 * 0.02,
                    "kind": ("p", "q", "r", "s")[taken[2]],
                }
            )
        np.testing.assert_allclose(vectors([x, y], genomes), [s.x for s in solutions], rtol=1e-9)
        values = [abs(one["x"] - 0.4) + (one["kind"] != "r") + one["on"] for one in genomes]  # type: ignore[operator]
        order = sorted(range(10), key=lambda i: values[i])
        package.tell([(solutions[i], float(rank)) for rank, i in enumerate(order)])
        teach(mixed, [genomes[i] for i in order])
        for name in ("_mean", "_sigma", "_C", "_A", "_q", "_p_sigma", "_pc"):
            np.testing.assert_allclose(getattr(mixed._cma, name), getattr(package, name), rtol=1e-9, atol=1e-9)
    assert mixed._cma._q[2, 2] > 0.5  # "r" is the kind that pays


@pytest.mark.parametrize("form", [Full, Separable])
def test_the_mean_moves_to_the_weighted_mean_of_the_better_half(form: Callable[..., Any]) -> None:
    population, learner = 9, distribution(form, population=9)
    ranked = sorted(drawn(learner, population), key=loss)
    half = population // 2
    top = (population + 1) / 2 if form is Full else half + 1  # Hansen, 2016, eq. 49; Ros and Hansen, 2008
    weights = np.array([math.log(top) - math.log(i + 1) for i in range(half)])
    expected = (weights / weights.sum()) @ vectors(FLOATS, ranked)[:half]
    teach(learner, ranked)
    np.testing.assert_allclose(learner._cma.mean, expected, rtol=1e-9)


@pytest.mark.parametrize("form", [Full, Separable])
def test_genomes_of_an_older_distribution_are_moved_along_with_the_mean(form: Callable[..., Any]) -> None:
    """In a pipelined search: by 0.6 of the way that the mean has gone since."""
    learner, package = taught(form, 3), taught(form, 3)._cma
    parent = copy.deepcopy(learner)
    teach(learner, sorted(drawn(learner, 8, seed=50), key=loss))
    lesson = sorted(drawn(parent, 8, seed=51), key=loss)
    package.tell([(x, float(i)) for i, x in enumerate(vectors(FLOATS, sorted(drawn(parent, 8, seed=50), key=loss)))])
    moved = 0.6 * (package.mean - parent._cma.mean)
    assert np.abs(moved).max() > 0.05
    package.tell([(x + moved, float(i)) for i, x in enumerate(vectors(FLOATS, lesson))])
    learner.tell(lesson, parent)
    np.testing.assert_allclose(learner._cma.mean, package.mean, rtol=1e-9)
    np.testing.assert_allclose(learner._cma._C, package._C, rtol=1e-9, atol=1e-12)


def test_numbers_of_an_older_mixed_distribution_are_moved_along_but_whole_ones_stay() -> None:
    mixed = Mixed(MIXED, 1 / 6, start(MIXED), 8)
    parent = copy.deepcopy(mixed)
    teach(mixed, drawn(mixed, 8))
    lesson = drawn(parent, 8, seed=1)
    package = copy.deepcopy(mixed._cma)
    unit = np.array([1 / 6, 4 * 0.02])
    moved = 0.6 * (package._mean - parent._cma._mean)[:2] * unit
    by_hand = [{**genome, "x": float(genome["x"]) + moved[0], "y": float(genome["y"]) + moved[1]} for genome in lesson]
    twin = copy.deepcopy(mixed)
    teach(twin, by_hand)
    mixed.tell(lesson, parent)
    np.testing.assert_allclose(mixed._cma._mean, twin._cma._mean, rtol=1e-9)
    np.testing.assert_allclose(mixed._cma._q, twin._cma._q)


@pytest.mark.parametrize("form", [Full, Separable])
def test_the_order_of_ranks_is_heeded_to_the_last(form: Callable[..., Any]) -> None:
    genomes = drawn(distribution(form), 8)
    first, second = distribution(form), distribution(form)
    teach(first, genomes)
    teach(second, genomes[::-1])
    assert not np.allclose(first._cma.mean, second._cma.mean)


@pytest.mark.parametrize(
    "make",
    [
        lambda: distribution(Full, [Gene(f"g{i}") for i in range(12)]),
        lambda: distribution(Separable, [Gene(f"g{i}") for i in range(12)]),
        lambda: Mixed(MIXED, STEP, start(MIXED), 8),
    ],
    ids=["full", "separable", "mixed"],
)
def test_a_copy_learns_the_same_bit_for_bit_whether_or_not_anything_was_drawn_before(
    make: Callable[[], Distribution],
) -> None:
    """Workers copy a distribution before they teach it, some after they drew from it, some before."""
    one, other = make(), make()
    for generation in range(8):
        lesson = sorted(drawn(one, 8, seed=generation), key=lambda genome: str(sorted(map(str, genome.values()))))
        one, other = copy.deepcopy(one), copy.deepcopy(other)
        teach(one, lesson)
        teach(other, lesson)
    assert drawn(one, 5) == drawn(other, 5)


def test_whole_numbers_and_categories_are_learnt() -> None:
    mixed = Mixed(MIXED, 1 / 6, start(MIXED), 16)
    for generation in range(40):
        genomes = drawn(mixed, 16, seed=generation)
        genomes.sort(
            key=lambda g: abs(int(g["layers"]) - 8) + (g["sources"] != "b") + (not g["on"]) + (g["kind"] != "r")
        )
        teach(mixed, genomes)
    last = drawn(mixed, 200, seed=99)
    for name, best in (("layers", 8), ("sources", "b"), ("on", True), ("kind", "r")):
        assert np.mean([genome[name] == best for genome in last]) > 0.6, name


# Drawing


def taught(form: Callable[..., Distribution], lessons: int = 6, genes: Sequence[Gene] = FLOATS) -> Any:
    learner: Any = distribution(form, genes)
    for generation in range(lessons):
        teach(learner, sorted(drawn(learner, 8, seed=1 + generation), key=loss))
    return learner


@pytest.mark.parametrize("lessons", [0, 6])
@pytest.mark.parametrize("form", [Full, Separable])
def test_samples_have_the_mean_and_covariance_of_the_distribution(form: Callable[..., Any], lessons: int) -> None:
    learner, count = taught(form, lessons, WIDE), 6000  # what is set on a bound has not the variance it was drawn with
    found = vectors(WIDE, drawn(learner, count))
    cma = learner._cma
    expected = cma._sigma**2 * (cma._C if form is Full else np.diag(cma._C))
    scale = np.sqrt(np.diag(expected))
    # Five standard errors of a mean, of a variance and of a correlation.
    assert (abs(found.mean(axis=0) - cma.mean) < 5 * scale / count**0.5).all()
    errors = (np.cov(found.T) - expected) / np.outer(scale, scale)
    assert abs(errors).max() < 5 * (2 / count) ** 0.5


@pytest.mark.parametrize("gene", FLOATS, ids=[gene.name for gene in FLOATS])
def test_the_first_step_of_a_gene_is_its_own_or_that_of_all(gene: Gene) -> None:
    values = [float(genome[gene.name]) for genome in drawn(distribution(Full), 2000)]
    sigma = (gene.sigma or STEP) * (gene.high - gene.low)
    assert np.mean(values) == pytest.approx(float(gene.start()), abs=5 * sigma / 2000**0.5)
    assert np.std(values) == pytest.approx(sigma, rel=5 / 4000**0.5)


def test_mixed_draws_numbers_with_their_steps_and_categories_with_their_probabilities() -> None:
    found = drawn(Mixed(MIXED, 1 / 6, start(MIXED), 8), 4000)
    y = [float(genome["y"]) for genome in found]
    assert np.mean(y) == pytest.approx(1.0, abs=5 * 0.08 / 4000**0.5)
    assert np.std(y) == pytest.approx(0.08, rel=5 / 8000**0.5)
    # One with a declared start: twice as likely as all others together; the others even.
    for name, expected in (
        ("sources", {"a": 1 / 6, "a+b": 2 / 3, "b": 1 / 6}),
        ("on", {False: 1 / 2, True: 1 / 2}),
        ("kind", dict.fromkeys("pqrs", 1 / 4)),
    ):
        values = [genome[name] for genome in found]
        for value, share in expected.items():
            error = 5 * (share * (1 - share) / 4000) ** 0.5
            assert values.count(value) / 4000 == pytest.approx(share, abs=error), (name, value)


def test_whole_numbers_are_drawn_by_rounding_a_normal_one() -> None:
    gene = Gene("layers", "int", 2, 9)
    values = [int(genome["layers"]) for genome in drawn(Mixed([gene], 1 / 6, {"layers": 5}, 8), 4000)]
    for value in range(2, 10):
        # The ends take in what lies beyond them.
        low = -math.inf if value == 2 else value - 0.5
        high = math.inf if value == 9 else value + 0.5
        share = float(norm.cdf(high, 5, 7 / 6) - norm.cdf(low, 5, 7 / 6))
        error = 5 * (share * (1 - share) / 4000) ** 0.5 + 1e-3
        assert values.count(value) / 4000 == pytest.approx(share, abs=error)


@pytest.mark.parametrize("form", [Full, Separable])
def test_what_falls_out_of_bounds_is_set_on_the_bound(form: Callable[..., Any]) -> None:
    genes = [Gene("edge", initial=0.0), Gene("top", low=-2.0, high=2.0, initial=2.0), Gene("middle")]
    found = drawn(form(Coordinates(genes, 0.5), start(genes), 8), 2000)
    for gene in genes:
        values = np.array([float(genome[gene.name]) for genome in found])
        assert gene.low <= values.min() and values.max() <= gene.high
    for name, bound in (("edge", 0.0), ("top", 2.0)):
        share = np.mean([genome[name] == bound for genome in found])
        assert share == pytest.approx(0.5, abs=5 * 0.5 / 2000**0.5)


def flipped(learner: Any, signs: Sequence[int]) -> Any:
    twin = copy.deepcopy(learner)
    twin._cma._eigen_decomposition()
    twin._cma._B = twin._cma._B * np.array(signs)
    return twin


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["full", "mixed"])
def test_signs_of_the_axes_change_no_sample(kind: str, seed: int) -> None:
    """Linear algebra libraries choose them as they like."""
    learner: Any = taught(Full)
    if kind == "mixed":
        learner = Mixed(FLOATS, STEP, start(FLOATS), 8)
        for generation in range(6):
            teach(learner, sorted(drawn(learner, 8, seed=1 + generation), key=loss))
    signs = np.random.default_rng(seed).choice([-1, 1], size=len(FLOATS))
    twin = flipped(learner, signs.tolist())
    assert drawn(twin, 20) == drawn(learner, 20)
    # The package's own samples are others then.
    package, its_twin = copy.deepcopy(learner._cma), flipped(learner, [-1, 1, 1, 1, 1])._cma
    for one in (package, its_twin):
        one.reseed_rng(0)
    mine, its = (one.ask() if kind == "full" else one.ask().x for one in (package, its_twin))
    assert not np.allclose(mine, its)


@pytest.mark.parametrize(
    "make",
    [lambda: taught(Full), lambda: taught(Separable), lambda: Mixed(MIXED, STEP, start(MIXED), 8)],
    ids=["full", "separable", "mixed"],
)
def test_a_sample_depends_on_the_generator_alone(make: Callable[[], Distribution]) -> None:
    one = make()
    assert drawn(one, 5) == drawn(make(), 5) == drawn(one, 5)
    assert drawn(one, 5) != drawn(one, 5, seed=1)


# Vectors


def test_a_genome_comes_back_from_its_vector() -> None:
    genes = [*FLOATS, Gene("whole", "int", -3, 12)]
    coordinates = Coordinates(genes, 1 / 6)
    random = np.random.default_rng(0)
    for _ in range(100):
        genome = {gene.name: gene.low + float(random.random()) * (gene.high - gene.low) for gene in FLOATS}
        genome["whole"] = int(random.integers(-3, 13))
        back = coordinates.genome(coordinates.vector(genome))
        assert back == pytest.approx(genome, abs=1e-12)
        assert type(back["whole"]) is int


def test_bounds_come_back_exactly() -> None:
    genes = [Gene("a", low=0.1, high=0.7), Gene("b", low=-1 / 3, high=1e-3), Gene("c", "int", 1, 3)]
    coordinates = Coordinates(genes, 1 / 6)
    for bound in ("low", "high"):
        genome = {gene.name: getattr(gene, bound) for gene in genes}
        assert coordinates.genome(coordinates.vector(genome)) == genome
        beyond = coordinates.vector(genome) + (1 if bound == "high" else -1)
        assert coordinates.genome(beyond) == genome


def test_the_middle_of_the_range_is_three_first_steps_of_the_paper_away_from_the_bounds() -> None:
    coordinates = Coordinates([Gene("a", low=-4.0, high=8.0)], 1 / 6)
    assert coordinates.vector({"a": 2.0})[0] == pytest.approx(3.0)
    assert coordinates.upper[0] == pytest.approx(6.0)


def test_every_genome_of_mixed_kinds_can_be_told_and_holds_only_values_of_its_genes() -> None:
    mixed = Mixed(MIXED, 1 / 6, start(MIXED), 8)
    for generation in range(5):
        genomes = drawn(mixed, 8, seed=generation)
        for genome in genomes:
            assert list(genome) == [gene.name for gene in MIXED]
            assert genome["sources"] in ("a", "a+b", "b") and genome["kind"] in ("p", "q", "r", "s")
            assert type(genome["on"]) is bool and type(genome["layers"]) is int and 2 <= genome["layers"] <= 9
            assert 0 <= float(genome["x"]) <= 1 and -1 <= float(genome["y"]) <= 3
        teach(mixed, genomes)


@pytest.mark.parametrize(
    "genes",
    [[Gene("x")], [Gene("n", "int", 0, 3)], [Gene("on", "switch")], [Gene("c", "choice", choices=("a", "b", "c"))]],
    ids=["float", "int", "switch", "choice"],
)
def test_mixed_takes_one_gene_of_any_kind(genes: list[Gene]) -> None:
    mixed = Mixed(genes, 1 / 6, start(genes), 6)
    for generation in range(5):
        teach(mixed, drawn(mixed, 6, seed=generation))
    assert set(drawn(mixed, 1)[0]) == {genes[0].name}


@pytest.mark.parametrize(("genes", "population"), [(1, 4), (2, 6), (3, 7), (18, 12), (20, 12), (400, 21), (1000, 24)])
def test_the_population_is_that_of_the_rule(genes: int, population: int) -> None:
    assert default_population(genes) == population
