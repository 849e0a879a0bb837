"""Genes: the searched values, and their form in Optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from optmerge.recipe import Recipe

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
    """

    name: str
    kind: Kind = "float"
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()
    initial: Value | None = None
    sigma: float | None = None
    active_if: str | None = None

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

    def decode(self, genome: Mapping[str, Value]) -> Recipe: ...
