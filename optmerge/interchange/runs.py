"""Layers that follow each other and are merged alike, and the filters that tell tensors within a layer apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optmerge.interchange.resolution import TensorValues
from optmerge.models.layers import layer_of, rest_of


@dataclass(frozen=True)
class Run:
    """Layers of the merged model that are merged alike, and come from layers that follow each other in each source.

    Attributes:
        first: The first of them.
        count: How many there are.
        layers: Alias to that source's first layer.
    """

    first: int
    count: int
    layers: Mapping[str, int]


def runs_of(tensors: Mapping[str, TensorValues], layers: Sequence[Mapping[str, int]]) -> list[Run]:
    """Cut a model into runs, as long as they can be.

    Args:
        tensors: Its tensors.
        layers: For each layer, alias to that source's layer.
    """
    alike: dict[int, dict[str, object]] = {}
    for name, values in tensors.items():
        layer = layer_of(name)
        if layer is not None:
            alike.setdefault(layer, {})[rest_of(name)] = values.key()
    runs: list[Run] = []
    for number, places in enumerate(layers):
        last = runs[-1] if runs else None
        follows = last is not None and places == {alias: start + last.count for alias, start in last.layers.items()}
        if last is not None and follows and alike[number] == alike[last.first]:
            runs[-1] = Run(last.first, last.count + 1, last.layers)
        else:
            runs.append(Run(number, 1, dict(places)))
    return runs


def setting_for(values: Mapping[str, float]) -> Any:
    """A number, or filters that give each tensor its number; the most frequent one goes without a filter.

    Args:
        values: Tensor name to number; layers are not told apart.
    """
    counted = Counter(values.values())
    most = max(counted, key=lambda value: (counted[value], -value))
    if len(counted) == 1:
        return most
    filters = [{"filter": text, "value": value} for text, value in _filters(values).items() if value != most]
    return [*filters, {"value": most}]


def _filters(values: Mapping[str, float]) -> dict[str, float]:
    """Filter to number, for everything that has another number than something of a similar name."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        rest = rest_of(name)
        part = rest.partition(".")[0] if layer_of(name) is not None else rest
        parts.setdefault(part, {})[rest] = value
    filters: dict[str, float] = {}
    for part, members in parts.items():
        if len(set(members.values())) == 1:
            filters[_text(part, members, values)] = next(iter(members.values()))
        else:
            filters.update({f".{rest}": value for rest, value in members.items()})
    return filters


def _text(part: str, members: Mapping[str, float], values: Mapping[str, float]) -> str:
    """The shortest text that is part of the names of these tensors, and of no others' of another number."""
    value = next(iter(members.values()))
    short = part.removesuffix(".weight").rpartition(".")[2]
    whole = part if part in members else f".{part}."
    return next((text for text in (short, whole) if all(v == value for n, v in values.items() if text in n)), whole)
