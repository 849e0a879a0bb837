"""The samplers in real studies of a sphere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import truncnorm

from optmerge.errors import UsageError
from optmerge.space import Gene, Value
from optmerge.study.database import Database
from optmerge.study.slots import slot_of
from study.studies import begin, genomes, proposer, sampler, scored, search

NAMES = ["cmaes", "nsgaii", "optuna_cmaes", "random", "tpe"]
OF_EVERY_KIND = [
    Gene("a"),
    Gene("b", "int", 1, 3),
    Gene("c", "switch"),
    Gene("d", "choice", choices=("x", "y")),
]


@dataclass
class Sphere:
    """Distance from (0.8, 0.8, ...), to be minimized."""

    count: int = 5
    seed: int = 0
    high: float = 1.0
    genes: Sequence[Gene] = field(init=False)

    def __post_init__(self) -> None:
        self.genes = [Gene(f"g{i}", high=self.high) for i in range(self.count)]

    def value(self, genome: Mapping[str, Value]) -> float:
        return float(sum((float(value) - 0.8) ** 2 for value in genome.values()))


def run(database: Database, sphere: Sphere, name: str, trials: int, **settings: Any) -> list[FrozenTrial]:
    """The trials of a new study."""
    number = len(database.get_all_studies())
    proposing = proposer(name, sphere.genes, seed=sphere.seed, **settings)
    opened = begin(database, proposing, name=f"study-{number}", maximize=(False,))
    return search(opened, proposing, scored(sphere.value), trials)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_genomes(database: Database, name: str) -> None:
    first, second = (genomes(run(database, Sphere(), name, 25)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_genomes(database: Database, name: str) -> None:
    first, second = (genomes(run(database, Sphere(seed=seed), name, 15)) for seed in range(2))
    assert not any(genome in second[1:] for genome in first[1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_search_does_not_repeat_itself(database: Database, name: str) -> None:
    # NSGA-II copies parents at times; the others have no reason to draw a genome twice.
    drawn = {tuple(genome.values()) for genome in genomes(run(database, Sphere(), name, 25))}
    assert len(drawn) == 25


@pytest.mark.parametrize("name", NAMES)
def test_the_first_genome_is_the_start_of_every_gene(database: Database, name: str) -> None:
    assert genomes(run(database, Sphere(count=2), name, 1)) == [{"g0": 0.5, "g1": 0.5}]


@pytest.mark.parametrize("name", NAMES)
def test_genomes_that_are_given_come_first(database: Database, name: str) -> None:
    starts = [{"g0": 0.25, "g1": 0.75}, {"g0": 0.125, "g1": 1.0}, {"g0": 0.5, "g1": 0.0}]
    proposing = proposer(name, Sphere(count=2).genes, starts=starts)
    trials = search(begin(database, proposing, starts=starts), proposing, scored(Sphere().value), 5)
    assert genomes(trials[:3]) == starts
    assert not any(genome in starts for genome in genomes(trials[3:]))


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_has_the_next_slot(database: Database, name: str) -> None:
    size = proposer(name, Sphere().genes).population
    trials = run(database, Sphere(), name, 2 * size + 1)
    assert [tuple(slot_of(trial)) for trial in trials] == [divmod(i, size) for i in range(2 * size + 1)]


@pytest.mark.parametrize("name", ["nsgaii", "random", "tpe"])
def test_a_sampler_that_learns_from_slots_of_no_kind_waits_for_nobody(name: str) -> None:
    assert proposer(name, Sphere().genes).lag is None


@pytest.mark.parametrize(
    ("high", "settings", "sigma"), [(1.0, {}, 1 / 6), (4.0, {}, 4 / 6), (2.0, {"sigma": 0.05}, 0.1)]
)
def test_cmaes_of_optuna_begins_in_the_middle_with_the_step_of_the_paper(
    database: Database, high: float, settings: dict[str, float], sigma: float
) -> None:
    genes, seeds = 40, 8
    spheres = [Sphere(genes, seed, high) for seed in range(seeds)]
    second = np.array([list(run(database, one, "optuna_cmaes", 2, **settings)[1].params.values()) for one in spheres])
    # Samples outside the range are drawn again, which narrows the normal distribution.
    edge = high / 2 / sigma
    expected = truncnorm(-edge, edge, loc=high / 2, scale=sigma)
    assert abs(second.mean() - high / 2) < 5 * expected.std() / (genes * seeds) ** 0.5
    assert second.std() == pytest.approx(expected.std(), rel=5 / (2 * genes * seeds) ** 0.5)


@pytest.mark.parametrize(("genes", "population"), [(3, 7), (20, 12)])
def test_cmaes_of_optuna_has_the_population_of_its_rule(database: Database, genes: int, population: int) -> None:
    assert population == 4 + int(3 * np.log(genes))
    trials = run(database, Sphere(genes), "optuna_cmaes", 2 * population + 2)
    generations = [trial.system_attrs.get("cma:generation") for trial in trials[1:]]  # the first is no sample
    assert generations == [0] * population + [1] * population + [2]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cmaes", {}),
        ("cmaes", {"variant": "separable"}),
        ("cmaes", {"population": 6}),
        ("optuna_cmaes", {}),
        ("optuna_cmaes", {"separable": True}),
    ],
)
def test_cmaes_finds_its_way_on_a_sphere(database: Database, name: str, settings: dict[str, Any]) -> None:
    values = [trial.value for trial in run(database, Sphere(count=5), name, 150, **settings)]
    # Uniform genomes are 5 * (0.3^2 + 1 / 12) = 0.87 away on average.
    assert np.mean(values[-20:]) < 0.02 and values[0] == pytest.approx(5 * 0.3**2)  # type: ignore[arg-type]


def test_tpe_learns_from_earlier_trials(database: Database) -> None:
    values = [trial.value for trial in run(database, Sphere(count=3), "tpe", 60)]
    assert np.mean(values[-20:]) < 0.5 * np.mean(values[1:11])  # type: ignore[arg-type]


def test_cmaes_of_optuna_refuses_genes_that_are_not_numbers() -> None:
    with pytest.raises(UsageError, match="cannot search on, a gene of kind switch; these can: cmaes, nsgaii, random"):
        sampler("optuna_cmaes").check([Gene("weight"), Gene("on", kind="switch")])


@pytest.mark.parametrize("name", ["cmaes", "nsgaii", "random", "tpe"])
def test_the_others_search_every_kind_of_gene(database: Database, name: str) -> None:
    sampler(name).check(OF_EVERY_KIND)
    proposing = proposer(name, OF_EVERY_KIND)
    trials = search(begin(database, proposing), proposing, scored(lambda genome: 0.0), 20)
    drawn = {gene.name: {trial.params[gene.name] for trial in trials} for gene in OF_EVERY_KIND}
    assert len(drawn["a"]) > 10 and drawn["b"] <= {1, 2, 3} and drawn["d"] == {"x", "y"}
    assert drawn["c"] == {False, True} and all(type(trial.params["c"]) is bool for trial in trials)


@pytest.mark.parametrize(
    ("settings", "workers", "population", "lag"),
    [
        ({}, 1, 8, 0),  # 4 + floor(3 ln 5)
        ({}, 4, 8, 0),
        ({}, 5, 8, 1),
        ({}, 12, 8, 2),
        ({}, 32, 16, 2),
        ({"pipeline": 0}, 12, 12, 0),
        ({"pipeline": 1}, 2, 8, 1),
        ({"pipeline": 1}, 32, 16, 1),
        ({"population": 6}, 12, 6, 2),
        ({"population": 6, "pipeline": 0}, 12, 6, 0),
        ({"population": 24}, 12, 24, 0),
        ({"population": 6}, 1000, 6, 2),
    ],
)
def test_many_workers_have_larger_generations_unless_these_are_given(
    settings: dict[str, Any], workers: int, population: int, lag: int
) -> None:
    assert proposer("cmaes", Sphere().genes, **settings).arrangement(workers) == (population, lag)


def test_workers_change_nothing_where_no_sampler_knows_of_generations() -> None:
    proposing = proposer("tpe", Sphere().genes)
    assert proposing.arrangement(64) == (proposing.population, None)


def test_optuna_samplers_see_what_the_trials_before_came_to(database: Database) -> None:
    """As in Optuna's own loop: NSGA-II and TPE rank by values, whatever the way they are asked."""
    sphere = Sphere(count=3)
    trials = run(database, sphere, "nsgaii", 60, population=10)
    values = [trial.value for trial in trials]
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    assert np.mean(values[-10:]) < np.mean(values[:10])  # type: ignore[arg-type]
