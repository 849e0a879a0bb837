"""The samplers in real studies of a sphere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.stats import truncnorm

from optmerge.config import options_of
from optmerge.errors import UsageError
from optmerge.space import Gene
from optmerge.study.search import Sampler, search

NAMES = ["cmaes", "nsgaii", "random", "tpe"]


@dataclass
class Space:
    """Genes without recipes."""

    genes: Sequence[Gene]


@dataclass
class Sphere:
    """Distance from (0.8, 0.8, ...), to be minimized."""

    genes: int = 5
    seed: int = 0
    high: float = 1.0
    space: Space = field(init=False)

    def __post_init__(self) -> None:
        self.space = Space([Gene(f"g{i}", high=self.high) for i in range(self.genes)])

    def __call__(self, trial: optuna.Trial, genome_index: int) -> float:
        return float(sum((value - 0.8) ** 2 for value in trial.params.values()))


def sampler(name: str, **settings: Any) -> Sampler:
    return Sampler(*options_of("sampler", {"name": name, **settings}, "optmerge.study.samplers"))


def run(sphere: Sphere, chosen: Sampler, trials: int) -> optuna.Study:
    study = optuna.create_study()
    list(search(study, sphere, chosen, trials))  # type: ignore[arg-type]
    return study


def genomes(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_genomes(name: str) -> None:
    first, second = (genomes(run(Sphere(), sampler(name), 25)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_genomes(name: str) -> None:
    first, second = (genomes(run(Sphere(seed=seed), sampler(name), 25)) for seed in range(2))
    assert first[1:] != second[1:]


@pytest.mark.parametrize("name", NAMES)
def test_a_search_does_not_repeat_itself(name: str) -> None:
    # NSGA-II copies parents at times; the others have no reason to draw a genome twice.
    drawn = {tuple(genome.values()) for genome in genomes(run(Sphere(), sampler(name), 25))}
    assert len(drawn) == 25


@pytest.mark.parametrize("name", NAMES)
def test_the_first_genome_is_the_start_of_every_gene(name: str) -> None:
    assert genomes(run(Sphere(genes=2), sampler(name), 1)) == [{"g0": 0.5, "g1": 0.5}]


@pytest.mark.parametrize(
    ("high", "settings", "sigma"), [(1.0, {}, 1 / 6), (4.0, {}, 4 / 6), (2.0, {"sigma": 0.05}, 0.1)]
)
def test_cmaes_begins_in_the_middle_with_the_step_of_the_paper(
    high: float, settings: dict[str, float], sigma: float
) -> None:
    genes, seeds = 20, 30
    sphere = [Sphere(genes, seed, high) for seed in range(seeds)]
    second = np.array([list(run(one, sampler("cmaes", **settings), 2).trials[1].params.values()) for one in sphere])
    # Samples outside the range are drawn again, which narrows the normal distribution.
    edge = high / 2 / sigma
    expected = truncnorm(-edge, edge, loc=high / 2, scale=sigma)
    assert abs(second.mean() - high / 2) < 5 * expected.std() / (genes * seeds) ** 0.5
    assert second.std() == pytest.approx(expected.std(), rel=5 / (2 * genes * seeds) ** 0.5)


def test_cmaes_begins_where_a_gene_says() -> None:
    genes = [Gene("near", initial=0.1), Gene("far", initial=0.9), Gene("middle")]
    module, options = options_of("sampler", {"name": "cmaes", "sigma": 0.01}, "optmerge.study.samplers")
    study = optuna.create_study(sampler=module.build(options, genes, 0))
    for _ in range(2):
        trial = study.ask({gene.name: gene.distribution() for gene in genes})
        study.tell(trial, 0.0)
    assert trial.params == pytest.approx({"near": 0.1, "far": 0.9, "middle": 0.5}, abs=0.06)


@pytest.mark.parametrize(("genes", "population"), [(3, 7), (6, 9), (20, 12)])
def test_cmaes_has_the_population_of_its_rule(genes: int, population: int) -> None:
    assert population == 4 + int(3 * np.log(genes))
    study = run(Sphere(genes), sampler("cmaes"), 2 * population + 2)
    generations = [trial.system_attrs.get("cma:generation") for trial in study.trials[1:]]  # the first is no sample
    assert generations == [0] * population + [1] * population + [2]


@pytest.mark.parametrize("settings", [{}, {"separable": True}, {"population": 6}])
def test_cmaes_finds_its_way_on_a_sphere(settings: dict[str, Any]) -> None:
    values = [trial.value for trial in run(Sphere(genes=5), sampler("cmaes", **settings), 150).trials]
    # Uniform genomes are 5 * (0.3^2 + 1 / 12) = 0.87 away on average.
    assert np.mean(values[-20:]) < 0.02 and values[0] == pytest.approx(5 * 0.3**2)


def test_tpe_learns_from_earlier_trials() -> None:
    values = [trial.value for trial in run(Sphere(genes=3), sampler("tpe"), 60).trials]
    assert np.mean(values[-20:]) < 0.5 * np.mean(values[1:11])


def test_cmaes_refuses_genes_that_are_not_numbers() -> None:
    space = Space([Gene("weight"), Gene("on", kind="switch")])
    with pytest.raises(UsageError, match="sampler=cmaes cannot search on, a gene of kind switch"):
        sampler("cmaes").check(space.genes)


@pytest.mark.parametrize("name", ["nsgaii", "random", "tpe"])
def test_the_others_accept_every_kind_of_gene(name: str) -> None:
    space = Space([Gene("a"), Gene("b", "int", 1, 3), Gene("c", "switch"), Gene("d", "choice", choices=("x", "y"))])
    sampler(name).check(space.genes)
    drawn = sampler(name).for_trial(space, 0, 0)  # type: ignore[arg-type]
    trial = optuna.create_study(sampler=drawn).ask({gene.name: gene.distribution() for gene in space.genes})
    assert set(trial.params) == {"a", "b", "c", "d"}
