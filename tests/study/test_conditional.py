"""The distribution that knows that a number matters only where its switch is on."""

import statistics
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from optmerge.space import Gene, Value
from optmerge.study.conditional import Conditional
from optmerge.study.evolution import Mixed
from optmerge.study.mirrored import deviates
from optmerge.study.slots import Slot

COUNT, POPULATION = 12, 16
SWITCHES = [Gene(f"{i}/on", "switch") for i in range(COUNT)]
SCALES = [Gene(f"{i}/scale", low=0.5, high=1.5, initial=1.0, active_if=f"{i}/on") for i in range(COUNT)]
GENES = [*SWITCHES, *SCALES]
START = {gene.name: gene.start() for gene in GENES}
Make = Callable[[], Conditional | Mixed]


def conditional() -> Conditional:
    return Conditional(GENES, 1 / 6, START, POPULATION)


def drawn(of: Conditional | Mixed, rng: np.random.Generator) -> dict[str, Value]:
    return of.sample(rng.standard_normal(of.dimensions), rng)


def loss(genome: Mapping[str, Value]) -> float:
    """Even slots belong on, at scales of their own; what is off has none."""
    total = 0.0
    for i in range(COUNT):
        wanted, scale = i % 2 == 0, float(genome[f"{i}/scale"])
        total += float(genome[f"{i}/on"] != wanted)
        if genome[f"{i}/on"]:
            total += 10 * (scale - (0.7 + 0.05 * i)) ** 2
    return total


def evaluations(make: Make, seed: int, target: float, most: int = 400) -> int:
    """Evaluations until one is better than the target."""
    distribution = make()
    for generation in range(most):
        slots = [Slot(generation, member) for member in range(POPULATION)]
        genomes = [
            distribution.sample(deviates(seed, slot, distribution.dimensions), np.random.default_rng([seed, *slot]))
            for slot in slots
        ]
        if min(map(loss, genomes)) < target:
            return generation * POPULATION
        distribution.tell(sorted(genomes, key=loss), distribution)  # type: ignore[arg-type]
    return most * POPULATION


def test_optimum_is_found_in_fewer_evaluations_than_by_one_that_does_not_know() -> None:
    ours = statistics.median(evaluations(conditional, seed, 1e-5) for seed in range(7))
    theirs = statistics.median(
        evaluations(lambda: Mixed(GENES, 1 / 6, START, POPULATION), seed, 1e-5) for seed in range(7)
    )
    assert ours < 0.8 * theirs
    assert ours < 1500


def test_scale_of_a_slot_that_nobody_took_is_not_learnt() -> None:
    distribution = conditional()
    rng = np.random.default_rng(0)
    genomes = [{**drawn(distribution, rng), "3/on": False, "4/on": True} for _ in range(POPULATION)]
    before = distribution.mean.copy()
    distribution.tell(sorted(genomes, key=lambda genome: float(genome["4/scale"])), distribution)
    assert distribution.mean[3] == before[3]
    assert distribution.mean[4] < before[4]


def test_scale_does_not_depend_on_those_that_did_not_take_it() -> None:
    rng = np.random.default_rng(1)
    genomes = [drawn(conditional(), rng) for _ in range(POPULATION)]
    one, other = conditional(), conditional()
    one.tell(genomes, one)
    other.tell([{**g, "5/scale": 0.5} if not g["5/on"] else g for g in genomes], other)
    again = np.random.default_rng(2)
    assert drawn(one, again) == drawn(other, np.random.default_rng(2))


def test_switch_that_the_better_half_has_on_becomes_likely() -> None:
    distribution = conditional()
    for generation in range(30):
        genomes = [drawn(distribution, np.random.default_rng([3, generation, i])) for i in range(POPULATION)]
        distribution.tell(sorted(genomes, key=lambda genome: not genome["7/on"]), distribution)
    on = [drawn(distribution, np.random.default_rng([4, i]))["7/on"] for i in range(200)]
    assert sum(on) > 180


def test_every_value_stays_possible() -> None:
    """No switch is ever sure: one that was wrongly taken for useless can come back."""
    distribution = conditional()
    for generation in range(200):
        genomes = [drawn(distribution, np.random.default_rng([5, generation, i])) for i in range(POPULATION)]
        distribution.tell(sorted(genomes, key=lambda genome: bool(genome["7/on"])), distribution)
    on = [drawn(distribution, np.random.default_rng([6, i]))["7/on"] for i in range(1000)]
    assert 10 < sum(on) < 120  # a probability of 1 / 24


@pytest.mark.parametrize(("likely", "share"), [(None, 2 / 3), (0.977, 0.977)])
def test_declared_start_is_likely_at_first(likely: float | None, share: float) -> None:
    genes = [Gene("on", "switch", initial=True, likely=likely), Gene("x", active_if="on")]
    distribution = Conditional(genes, 1 / 6, {"on": True, "x": 0.5}, 8)
    rng = np.random.default_rng(0)
    assert statistics.mean(bool(drawn(distribution, rng)["on"]) for _ in range(4000)) == pytest.approx(share, abs=0.03)
