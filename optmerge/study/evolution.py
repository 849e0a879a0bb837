"""Search distributions that are sampled slot by slot and taught generation by generation.

All are of the `cmaes` package. Three things are done otherwise than there. A sample is `m + sigma B D B^T z`, in which
the signs of the eigenvectors cancel: linear algebra libraries choose them as they like, so that `m + sigma B D z`
differs from machine to machine. What falls outside the bounds is set on the bound, where the package samples up to a
hundred times again at the cost of a matrix product each. And the z of a generation come in mirrored pairs
(`optmerge.study.mirrored`), which the selection mass allows for after the learning rates were set.

Coordinates are genes in units of their first step size: the start's distance to the lower bound of a gene on [0, 1]
that begins at 0.5 with a step of 1/6 is 3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import cmaes
import numpy as np

from optmerge.space.gene import Gene, Value
from optmerge.study.mirrored import Floats, selection_mass

STEP = 1 / 6  # of the range: the first step size (Akiba et al., 2025)
_RARE = 0.02  # least probability of a category at first

# Where a generation was sampled before those before it were learnt from, its genomes are moved along by this share of
# the way that the mean has gone since. Without, each generation would take the mean back to where its parents left it:
# two searches, each at half the pace. With all of it the steps add up, and can diverge. Measured with one generation
# under way on ellipsoids of 12 and 40 genes, populations 11 to 32, evaluations to a target against those at 0: 0.82 at
# 0.5, 0.79 at 0.6, 0.77 at 0.7. With two, on that of 12 genes, against those at 0.6: 1.1 at 0.4, 1.2 at 0.8.
MOVED_ALONG = 0.6


class Distribution(Protocol):
    """A search distribution.

    Attributes:
        dimensions: Normal deviates that a sample takes.
    """

    dimensions: int

    def sample(self, z: Floats, rng: np.random.Generator) -> dict[str, Value]:
        """A genome.

        Args:
            z: Its normal deviates, of shape (dimensions,).
            rng: For whatever else is drawn.
        """

    def deviates_of(self, genomes: Sequence[Mapping[str, Value]]) -> Floats | None:
        """The deviates that give some genomes, shape (genomes, dimensions); None if not all genes are numbers."""

    def tell(self, ranked: Sequence[Mapping[str, Value]], parent: Self) -> None:
        """Learn from the genomes of a generation, best first.

        Args:
            ranked: The genomes.
            parent: The distribution that they are samples of; in a pipelined search it is older than this one.
        """


class Coordinates:
    """Genes that are numbers, as a vector.

    Args:
        genes: The genes, in order; all of kind float or int.
        step: First step size in units of the range, of genes that have none of their own.
    """

    def __init__(self, genes: Sequence[Gene], step: float) -> None:
        self.genes = genes
        self._low = np.array([gene.low for gene in genes], dtype=np.float64)
        high = np.array([gene.high for gene in genes], dtype=np.float64)
        self._unit = (high - self._low) * np.array([gene.sigma or step for gene in genes])
        self.upper = (high - self._low) / self._unit

    def vector(self, genome: Mapping[str, Value]) -> Floats:
        values = np.array([float(genome[gene.name]) for gene in self.genes])
        vector: Floats = (values - self._low) / self._unit
        return vector

    def genome(self, vector: Floats) -> dict[str, Value]:
        """The genome at a vector, with what is out of bounds set on the bound, and whole numbers rounded."""
        values = self._low + np.clip(vector, 0.0, self.upper) * self._unit
        return {
            gene.name: round(value) if gene.kind == "int" else min(gene.high, max(gene.low, value))
            for gene, value in zip(self.genes, values.tolist(), strict=True)
        }

    def whole(self, index: int) -> list[float]:
        """The coordinates of a whole-number gene's values."""
        gene = self.genes[index]
        numbers = np.arange(int(gene.low), int(gene.high) + 1)
        return [float(value) for value in (numbers - self._low[index]) / self._unit[index]]


class Full:
    """CMA-ES (Hansen, 2016): learns all covariances.

    Args:
        coordinates: The genes.
        start: The first mean.
        population: Genomes of a generation.
    """

    def __init__(self, coordinates: Coordinates, start: Mapping[str, Value], population: int) -> None:
        self._coordinates = coordinates
        self._cma = cmaes.CMA(coordinates.vector(start), 1.0, population_size=population)
        self._cma._mu_eff = selection_mass(self._cma._mu_eff, population)
        self.dimensions = self._cma.dim

    def sample(self, z: Floats, rng: np.random.Generator) -> dict[str, Value]:
        cma = self._cma
        axes, lengths = cma._eigen_decomposition()
        return self._coordinates.genome(cma.mean + cma._sigma * (axes @ (lengths * (axes.T @ z))))

    def deviates_of(self, genomes: Sequence[Mapping[str, Value]]) -> Floats | None:
        axes, lengths = self._cma._eigen_decomposition()
        z: Floats = _steps(genomes, self._coordinates, self._cma) @ axes / lengths @ axes.T
        return z

    def tell(self, ranked: Sequence[Mapping[str, Value]], parent: Self) -> None:
        moved = MOVED_ALONG * (self._cma.mean - parent._cma.mean)
        self._cma.tell([(self._coordinates.vector(genome) + moved, float(rank)) for rank, genome in enumerate(ranked)])
        # The package rounds otherwise where it is copied before its axes are known than where it is copied after.
        self._cma._eigen_decomposition()


class Separable:
    """Separable CMA-ES (Ros and Hansen, 2008): learns variances alone, for hundreds of genes; the same arguments."""

    def __init__(self, coordinates: Coordinates, start: Mapping[str, Value], population: int) -> None:
        self._coordinates = coordinates
        self._cma = cmaes.SepCMA(coordinates.vector(start), 1.0, population_size=population)
        self._cma._mu_eff = selection_mass(self._cma._mu_eff, population)
        self.dimensions = self._cma.dim

    def sample(self, z: Floats, rng: np.random.Generator) -> dict[str, Value]:
        cma = self._cma
        return self._coordinates.genome(cma.mean + cma._sigma * cma._eigen_decomposition() * z)

    def deviates_of(self, genomes: Sequence[Mapping[str, Value]]) -> Floats | None:
        z: Floats = _steps(genomes, self._coordinates, self._cma) / self._cma._eigen_decomposition()
        return z

    def tell(self, ranked: Sequence[Mapping[str, Value]], parent: Self) -> None:
        moved = MOVED_ALONG * (self._cma.mean - parent._cma.mean)
        self._cma.tell([(self._coordinates.vector(genome) + moved, float(rank)) for rank, genome in enumerate(ranked)])


def _steps(genomes: Sequence[Mapping[str, Value]], coordinates: Coordinates, cma: Any) -> Floats:
    """How far genomes are from the mean, in step sizes."""
    steps: Floats = (np.array([coordinates.vector(genome) for genome in genomes]) - cma.mean) / cma._sigma
    return steps


class Mixed:
    """CatCMA with margin (Hamano et al., 2025): numbers, whole numbers, and categories with probabilities.

    Args:
        genes: The genes, in order, of any kind.
        step: First step size in units of the range.
        start: The first mean, and the categories that are likelier at first.
        population: Genomes of a generation.
    """

    def __init__(self, genes: Sequence[Gene], step: float, start: Mapping[str, Value], population: int) -> None:
        floats = [gene for gene in genes if gene.kind == "float"]
        wholes = [gene for gene in genes if gene.kind == "int"]
        self._order = [gene.name for gene in genes]
        self._numbers = Coordinates([*floats, *wholes], step) if floats or wholes else None
        self._floats = len(floats)
        self._categories = [(gene, _categories(gene)) for gene in genes if gene.kind in ("switch", "choice")]
        given: dict[str, Any] = {}
        if self._numbers is not None:
            mean = self._numbers.vector(start)
            if floats:
                given["x_space"] = [[0.0, upper] for upper in self._numbers.upper[: self._floats].tolist()]
            if wholes:
                given["z_space"] = [self._numbers.whole(i) for i in range(self._floats, len(mean))]
            given |= {"mean": mean, "sigma": 1.0, "cov": np.eye(len(mean))}
        if self._categories:
            given["c_space"] = [len(values) for _, values in self._categories]
            given["cat_param"] = self._first_probabilities(start)
        self._cma = cmaes.CatCMAwM(population_size=population, **given)
        self._cma._mu_eff = selection_mass(self._cma._mu_eff, population)
        self.dimensions = len(floats) + len(wholes)

    def _first_probabilities(self, start: Mapping[str, Value]) -> Floats:
        """Even, but for a gene with a declared start: as likely as it says, or twice as likely as all the others."""
        table = np.zeros((len(self._categories), max(len(values) for _, values in self._categories)))
        for row, (gene, values) in zip(table, self._categories, strict=True):
            row[: len(values)] = 1 / len(values)
            if gene.initial is not None:
                row[: len(values)] = max(_RARE, (1 - (gene.likely or 2 / 3)) / max(1, len(values) - 1))
                row[values.index(start[gene.name])] = 0.0
                row[values.index(start[gene.name])] = 1 - row.sum()
        return table

    def sample(self, z: Floats, rng: np.random.Generator) -> dict[str, Value]:
        cma, genome = self._cma, dict[str, Value]()
        if self._numbers is not None:
            axes, lengths = cma._eigen_decomposition()
            vector = cma._mean + cma._sigma * cma._A * (axes @ (lengths * (axes.T @ z)))
            genome |= self._numbers.genome(vector)
        for row, (gene, values) in enumerate(self._categories):
            bounds = np.cumsum(cma._q[row, : len(values)])
            genome[gene.name] = values[min(int(np.searchsorted(bounds, rng.random(), side="right")), len(values) - 1)]
        return {name: genome[name] for name in self._order}

    def deviates_of(self, genomes: Sequence[Mapping[str, Value]]) -> None:
        return None

    def tell(self, ranked: Sequence[Mapping[str, Value]], parent: Self) -> None:
        moved = np.zeros(0)
        if self._numbers is not None:
            moved = MOVED_ALONG * (self._cma._mean - parent._cma._mean)
            moved[self._floats :] = 0.0  # a whole number stays one
        self._cma.tell([(self._solution(genome, moved), float(rank)) for rank, genome in enumerate(ranked)])

    def _solution(self, genome: Mapping[str, Value], moved: Floats) -> cmaes.CatCMAwM.Solution:
        vector = self._numbers.vector(genome) + moved if self._numbers is not None else None
        taken = None
        if self._categories:
            taken = np.zeros((len(self._categories), max(len(values) for _, values in self._categories)), dtype=bool)
            for row, (gene, values) in zip(taken, self._categories, strict=True):
                row[values.index(genome[gene.name])] = True
        if vector is None:
            return cmaes.CatCMAwM.Solution(c=taken)
        return cmaes.CatCMAwM.Solution(vector[: self._floats], vector[self._floats :], taken, vector.copy())


def _categories(gene: Gene) -> tuple[Value, ...]:
    return (False, True) if gene.kind == "switch" else gene.choices


def default_population(genes: int) -> int:
    """Candidates a generation (Hansen, 2016): `4 + floor(3 ln n)`."""
    return 4 + math.floor(3 * math.log(max(1, genes)))
