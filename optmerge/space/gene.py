"""Genes: the searched values, and their form in Optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from optmerge.recipe import Node, Recipe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Kind = Literal["float", "int", "switch", "choice"]
Value = float | int | str | bool


@dataclass(frozen=True)
class Gene:
    """One searched value.

    Attributes:
        name: `group/source/parameter`, such as `layers.07-11/math/density`; `group/parameter` where the sources share
            it; `method` and `sources` for the choice of these.
        kind: `switch` is on or off, `choice` one of `choices`.
        low: Least value of a number.
        high: Greatest value of a number.
        choices: Values of a choice.
        initial: Where the search starts; the middle of the range by default.
        sigma: First step size, in units of the range; the sampler's own by default. Only `cmaes` knows one a gene.
        active_if: A switch: this gene matters only where that one is on.
        likely: Of a switch or choice: the probability with which it is `initial` at first.
    """

    name: str
    kind: Kind = "float"
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()
    initial: Value | None = None
    sigma: float | None = None
    active_if: str | None = None
    likely: float | None = None

    def start(self) -> Value:
        """The value with which a search starts."""
        if self.initial is not None:
            return self.initial
        match self.kind:
            case "float":
                return (self.low + self.high) / 2
            case "int":
                return round((self.low + self.high) / 2)
            case "switch":
                return False
            case "choice":
                return self.choices[0]

    def distribution(self) -> "BaseDistribution":
        """The gene as an Optuna distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        match self.kind:
            case "float":
                return FloatDistribution(self.low, self.high)
            case "int":
                return IntDistribution(int(self.low), int(self.high))
            case "switch":
                return CategoricalDistribution([False, True])
            case "choice":
                return CategoricalDistribution(self.choices)


class SearchSpace(Protocol):
    """Declares the genes, and decodes a genome into a recipe."""

    @property
    def genes(self) -> Sequence[Gene]: ...

    @property
    def fixed(self) -> Mapping[str, float | None]:
        """Names of values that are not searched."""

    @property
    def sources(self) -> Mapping[str, Node]:
        """Alias to node."""

    def decode(self, genome: Mapping[str, Value]) -> Recipe: ...

    def source(self, alias: str) -> Recipe:
        """A source by itself."""

    def baselines(self) -> Mapping[str, Mapping[str, Recipe]]:
        """What people make without a search: name to its settings, of which the best on validation stands for it."""

    def ablations(self, recipe: Recipe) -> Mapping[str, Recipe]:
        """A winner without one of the things that were searched, by what it lacks."""

    def description(self) -> Mapping[str, Any]:
        """What all recipes of the space share, as plain data."""
