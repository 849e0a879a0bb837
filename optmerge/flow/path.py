"""A path over layers, as a live model runs it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LiveHop:
    """A hop.

    Attributes:
        key: Says which layer it is: of equal keys, all tensors are equal.
        layer: Its number in its source.
        scale: What its input is multiplied by.
        layer_types: For all layers of its source, which attention mask each takes; None where all take the same.
    """

    key: str
    layer: int
    scale: float
    layer_types: tuple[str, ...] | None

    @property
    def layer_type(self) -> str | None:
        return None if self.layer_types is None else self.layer_types[self.layer]


@dataclass(frozen=True)
class LivePath:
    """A path.

    Attributes:
        hops: Its hops.
        scale_target: See `optmerge.recipe.PathNode`.
        outside: Says which tensors lie outside of its layers: of equal values, all are equal.
        keep: Whether its layers are worth being kept for the next path.
    """

    hops: tuple[LiveHop, ...]
    scale_target: str
    outside: str
    keep: bool = True
