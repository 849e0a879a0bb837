"""How the hops of a path are scaled: genes, and the scales that they give."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from optmerge.errors import UsageError
from optmerge.space.gene import Gene, Value

if TYPE_CHECKING:
    from optmerge.space.path_space import PathSettings


SCALES = ("none", "hop", "transition", "network")


@dataclass(frozen=True, order=True)
class Layer:
    """A layer of a source."""

    source: str
    number: int

    def __str__(self) -> str:
        return f"{self.source}.{self.number:02}"


Stop = tuple[str, Layer]
"""A hop: the name of its slot, and its layer."""


class HopScales(Protocol):
    """Scales of a path's hops."""

    def genes(self, switch_of: Callable[[str], str | None]) -> list[Gene]:
        """The genes; `switch_of` names the switch by which a slot is on, if it may be off."""

    def of(self, genome: Mapping[str, Value], stops: Sequence[Stop]) -> list[float]:
        """The scale of each hop."""


def hop_scales(settings: "PathSettings", layers: Sequence[Layer], slots: Sequence[str]) -> HopScales:
    """The scales that the settings name.

    Args:
        settings: What paths there are.
        layers: All layers, in their row.
        slots: The names of all slots, in order.

    Raises:
        UsageError: If there is no such kind.
    """
    match settings.scales:
        case "none":
            return _None()
        case "hop":
            return _Hop(settings.low, settings.high, slots)
        case "transition":
            return _Transition(settings.low, settings.high, layers)
        case "network":
            return _Network(settings.low, settings.high, settings.width, layers, settings.max_hops)
    raise UsageError(f"space.path.scales={settings.scales}: unknown; known are {', '.join(SCALES)}")


class _None:
    def genes(self, switch_of: Callable[[str], str | None]) -> list[Gene]:
        return []

    def of(self, genome: Mapping[str, Value], stops: Sequence[Stop]) -> list[float]:
        return [1.0] * len(stops)


@dataclass(frozen=True)
class _Hop:
    """A gene a slot."""

    low: float
    high: float
    slots: Sequence[str]

    def genes(self, switch_of: Callable[[str], str | None]) -> list[Gene]:
        return [
            Gene(f"{slot}/scale", low=self.low, high=self.high, initial=1.0, active_if=switch_of(slot))
            for slot in self.slots
        ]

    def of(self, genome: Mapping[str, Value], stops: Sequence[Stop]) -> list[float]:
        return [float(genome[f"{slot}/scale"]) for slot, _ in stops]


@dataclass(frozen=True)
class _Transition:
    """W of the paper: a gene for each pair of layers that may follow each other."""

    low: float
    high: float
    layers: Sequence[Layer]

    def genes(self, switch_of: Callable[[str], str | None]) -> list[Gene]:
        return [
            Gene(f"{one}>{other}/scale", low=self.low, high=self.high, initial=1.0)
            for one in self.layers
            for other in self.layers
        ]

    def of(self, genome: Mapping[str, Value], stops: Sequence[Stop]) -> list[float]:
        between = [
            float(genome[f"{one}>{other}/scale"]) for (_, one), (_, other) in zip(stops, stops[1:], strict=False)
        ]
        return [1.0, *between]


@dataclass(frozen=True)
class _Network:
    """A network of the paper's form pi(i, j, t): of the places of both layers in the row, and of the hop's number.

    One hidden layer of tanh; its output is added to 1 and cut off at the range, so that all scales are 1 at first.
    """

    low: float
    high: float
    width: int
    layers: Sequence[Layer]
    hops: int

    def _names(self) -> list[str]:
        inputs = [f"network/{unit}/{name}" for unit in range(self.width) for name in ("i", "j", "t", "bias", "out")]
        return [*inputs, "network/bias"]

    def genes(self, switch_of: Callable[[str], str | None]) -> list[Gene]:
        return [Gene(name, low=-1.0, high=1.0, initial=0.0) for name in self._names()]

    def of(self, genome: Mapping[str, Value], stops: Sequence[Stop]) -> list[float]:
        place = {layer: 2 * number / max(1, len(self.layers) - 1) - 1 for number, layer in enumerate(self.layers)}
        theta = {name: float(genome[name]) for name in self._names()}
        scales = [1.0]
        for t, ((_, one), (_, other)) in enumerate(zip(stops, stops[1:], strict=False), start=1):
            inputs = {"i": place[one], "j": place[other], "t": 2 * t / self.hops - 1, "bias": 1.0}
            total = theta["network/bias"]
            for unit in range(self.width):
                reached = sum(theta[f"network/{unit}/{name}"] * value for name, value in inputs.items())
                # Weights of up to 3 let a unit turn within the range of its inputs.
                total += theta[f"network/{unit}/out"] * math.tanh(3 * reached)
            scales.append(min(self.high, max(self.low, 1 + total)))
        return scales
