"""Groups of tensors that are merged alike, under patterns and names that people can read."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from optmerge.errors import UsageError
from optmerge.interchange.resolution import TensorValues
from optmerge.models.layers import depth, layer_of, rest_of, stem_of
from optmerge.recipe import Group

_LONGEST_NAME = 48


def groups_of(tensors: Mapping[str, TensorValues]) -> dict[str, Group]:
    """Put tensors with the same values together.

    Returns:
        Group name, such as `layers.04-07.mlp`, to group.
    """
    alike: dict[object, list[str]] = {}
    for name in sorted(tensors):
        alike.setdefault(tensors[name].key(), []).append(name)
    names = sorted(tensors)
    groups: dict[str, Group] = {}
    for members in alike.values():
        values = tensors[members[0]]
        group = Group(patterns_of(members, names), values.parameters, values.shared)
        groups[_unused(describe(members, names), groups)] = group
    return dict(sorted(groups.items()))


def patterns_of(members: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Shell patterns that match these tensors and no others: the coarsest that there are.

    Args:
        members: The tensors.
        names: All tensors of the model.
    """
    wanted, remaining = set(members), set(members)
    found: list[str] = []
    for pattern in _candidates(members):
        matched = set(fnmatch.filter(names, pattern))
        if matched <= wanted and matched & remaining:
            found.append(pattern)
            remaining -= matched
        if not remaining:
            break
    return tuple(sorted(found))


def _candidates(members: Sequence[str]) -> Iterable[str]:
    """Patterns that match some of the members, those that may match most first."""
    yield "*"
    layered = [(stem_of(name), layer_of(name), rest_of(name)) for name in members if layer_of(name) is not None]
    stems = dict.fromkeys(stem for stem, _, _ in layered)
    parts = dict.fromkeys((stem, rest.partition(".")[0]) for stem, _, rest in layered)
    for stem in stems:
        yield f"{stem}*"
    for stem, layer in dict.fromkeys((stem, layer) for stem, layer, _ in layered):
        yield f"{stem}{layer}.*"
    for stem, part in parts:
        yield f"{stem}*.{part}.*"
    for stem, rest in dict.fromkeys((stem, rest) for stem, _, rest in layered):
        yield f"{stem}*.{rest}"
    for stem, layer, part in dict.fromkeys((stem, layer, rest.partition(".")[0]) for stem, layer, rest in layered):
        yield f"{stem}{layer}.{part}.*"
    yield from members


def describe(members: Sequence[str], names: Sequence[str]) -> str:
    """A short name for some tensors of a model, such as `layers.00-03.mlp+embed_tokens`."""
    if len(members) == len(names):
        return "model"
    of_layer: dict[int, list[str]] = {}
    for name in members:
        if (layer := layer_of(name)) is not None:
            of_layer.setdefault(layer, []).append(name)
    alike: dict[str, list[int]] = {}
    for layer, inside in sorted(of_layer.items()):
        whole = sum(layer_of(name) == layer for name in names) == len(inside)
        alike.setdefault("" if whole else f".{_parts(inside)}", []).append(layer)
    digits = len(str(depth(names) - 1))
    words = [
        ("layers" if len(layers) == depth(names) else f"layers.{_spans(layers, digits)}") + parts
        for parts, layers in alike.items()
    ]
    words += [name.removesuffix(".weight").rpartition(".")[2] for name in members if layer_of(name) is None]
    return "+".join(dict.fromkeys(words))


def _parts(names: Sequence[str]) -> str:
    """The parts of a layer that some of its tensors are of, such as `mlp`."""
    parts = (rest_of(name).partition(".")[0] for name in names)
    return "+".join(dict.fromkeys("norms" if "norm" in part else part for part in parts))


def _spans(layers: Sequence[int], digits: int) -> str:
    """Numbers as spans, such as `00-03,08`."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    width = max(2, digits)
    return ",".join(f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in spans)


def _unused(name: str, taken: Iterable[str]) -> str:
    name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 2] + ".."
    number = 1
    while (unused := name if number == 1 else f"{name}#{number}") in taken:
        number += 1
    return unused


def values_by_tensor(groups: Mapping[str, Group], names: Sequence[str]) -> dict[str, TensorValues]:
    """What the groups of a recipe say about each tensor of the merged model.

    Raises:
        UsageError: If a tensor is in no group, or in two.
    """
    owner: dict[str, str] = {}
    for group, patterns in ((name, group.tensors) for name, group in sorted(groups.items())):
        for name in {name for pattern in patterns for name in fnmatch.filter(names, pattern)}:
            if owner.setdefault(name, group) != group:
                raise UsageError(f"tensor {name} is in two groups: {owner[name]} and {group}")
    lost = [name for name in names if name not in owner]
    if lost:
        raise UsageError(f"tensor {lost[0]} is in no group")
    return {name: TensorValues(groups[owner[name]].parameters, groups[owner[name]].shared) for name in names}
