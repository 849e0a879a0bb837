"""A search distribution that knows that a number matters only where its switch is on.

Switches are independent coin flips whose probabilities follow the natural gradient, as in CatCMA (Hamano et al., 2024);
numbers are normal with a variance each, as in separable CMA-ES (Ros and Hansen, 2008). What is not done otherwise
anywhere: a genome teaches a number only if its switch was on. The others say nothing of it, and to learn from them
moves it at random; here they count as if they had not been drawn, for the mean, the variances, and the length that the
evolution path is compared with.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from optmerge.space.gene import Gene, Value
from optmerge.study.evolution import MOVED_ALONG, Coordinates
from optmerge.study.mirrored import Floats, paired, selection_mass


class Conditional:
    """The distribution.

    Args:
        genes: The genes, in order: numbers and switches.
        step: First step size in units of the range.
        start: The first mean, and the switches' likelier sides.
        population: Genomes of a generation.
    """

    def __init__(self, genes: Sequence[Gene], step: float, start: Mapping[str, Value], population: int) -> None:
        self._order = [gene.name for gene in genes]
        self._switches = [gene.name for gene in genes if gene.kind == "switch"]
        numbers = [gene for gene in genes if gene.kind in ("float", "int")]
        self._coordinates = Coordinates(numbers, step)
        column = {name: index for index, name in enumerate(self._switches)}
        self._column = np.array([column.get(gene.active_if or "", -1) for gene in numbers], dtype=int)
        self._probabilities = np.array([_probability(gene, start) for gene in genes if gene.kind == "switch"])
        self.mean: Floats = self._coordinates.vector(start)
        self._variances = np.ones(len(numbers))
        self.dimensions = len(numbers)
        self._sigma = 1.0
        self._path, self._expected = np.zeros(len(numbers)), np.zeros(len(numbers))
        self._stretch, self._stretched = np.zeros(len(numbers)), np.zeros(len(numbers))
        self._set_rates(population)

    def _set_rates(self, population: int) -> None:
        """Weights and learning rates: Hansen (2016), those of variances as Ros and Hansen (2008) raise them."""
        parents = max(1, population // 2)
        weights = math.log((population + 1) / 2) - np.log(np.arange(1, parents + 1)) if parents > 1 else np.ones(1)
        self._weights: Floats = weights / weights.sum()
        mass = 1 / float((self._weights**2).sum())
        n = max(1, len(self.mean))
        self._c_sigma = (mass + 2) / (n + mass + 5)
        self._damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + self._c_sigma
        self._c_path = (4 + mass / n) / (n + 4 + 2 * mass / n)
        faster = (n + 2) / 3
        one = 2 / ((n + 1.3) ** 2 + mass)
        self._c_one = min(0.5, faster * one)
        self._c_mu = max(0.0, min(1 - self._c_one, faster * 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass)))
        self._mass, self._paired = selection_mass(mass, population), paired(population)
        switches = max(2, len(self._switches))
        # So that chance alone, in as many generations as selection needs, takes no switch to its end: the population of
        # an algorithm of this kind must grow with sqrt(n) log(n).
        self._c_switch = mass / (mass + math.sqrt(switches) * math.log(switches))
        self._margin = 1 / (2 * switches)

    def sample(self, z: Floats, rng: np.random.Generator) -> dict[str, Value]:
        genome = self._coordinates.genome(self.mean + self._sigma * np.sqrt(self._variances) * z)
        on = rng.random(len(self._switches)) < self._probabilities
        genome |= dict(zip(self._switches, on.tolist(), strict=True))
        return {name: genome[name] for name in self._order}

    def deviates_of(self, genomes: Sequence[Mapping[str, Value]]) -> None:
        return None

    def tell(self, ranked: Sequence[Mapping[str, Value]], parent: Self) -> None:
        best = ranked[: len(self._weights)]
        weights = self._weights[: len(best), None]
        on = np.array([[bool(genome[name]) for name in self._switches] for genome in best]).reshape(len(best), -1)
        self._learn_switches(weights, on)
        if not len(self.mean):
            return
        moved = MOVED_ALONG * (self.mean - parent.mean)
        steps = np.array([self._coordinates.vector(genome) for genome in best]) + moved - self.mean
        always = np.ones((len(best), 1), dtype=bool)
        active = np.concatenate([on, always], axis=1)[:, self._column]  # the last column is that of index -1
        self._learn_numbers(weights * active, steps / self._sigma)

    def _learn_switches(self, weights: Floats, on: np.ndarray) -> None:
        if self._switches:
            self._probabilities += self._c_switch * (weights * (on - self._probabilities)).sum(axis=0)
            self._probabilities = np.clip(self._probabilities, self._margin, 1 - self._margin)

    def _learn_numbers(self, weights: Floats, steps: Floats) -> None:
        """Learn from steps in units of sigma, of which those count that have a weight."""
        deviations = np.sqrt(self._variances)
        toward = (weights * steps).sum(axis=0)
        # What a path's square would be if selection did nothing: less where few of the genomes said anything.
        squares = (weights**2).sum(axis=0)
        share = self._mass * (squares - self._paired * (weights.sum(axis=0) ** 2 - squares))
        c = self._c_sigma
        self._path = (1 - c) * self._path + math.sqrt(c * (2 - c) * self._mass) * toward / deviations
        self._expected = (1 - c) ** 2 * self._expected + c * (2 - c) * share
        c = self._c_path
        self._stretch = (1 - c) * self._stretch + math.sqrt(c * (2 - c) * self._mass) * toward
        self._stretched = (1 - c) ** 2 * self._stretched + c * (2 - c) * share
        self.mean = self.mean + self._sigma * toward
        rank_mu = (weights * (steps**2 - self._variances)).sum(axis=0)
        rank_one = self._stretch**2 - self._stretched * self._variances
        self._variances = np.maximum(1e-12, self._variances + self._c_mu * rank_mu + self._c_one * rank_one)
        expected, n = float(self._expected.sum()), len(self.mean)
        if expected > 0:
            usual = math.sqrt(expected) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # the mean length of normal vectors
            length = math.sqrt(float((self._path**2).sum())) / usual
            self._sigma = min(4.0, self._sigma * math.exp(min(1.0, self._c_sigma / self._damping * (length - 1))))


def _probability(gene: Gene, start: Mapping[str, Value]) -> float:
    """How likely a switch is on at first."""
    if gene.initial is None:
        return 0.5
    likely = 2 / 3 if gene.likely is None else gene.likely
    return likely if start[gene.name] else 1 - likely
