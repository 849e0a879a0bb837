"""Recipes made available to an engine: their tensors, merged on demand, one at a time."""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from optmerge.errors import OptmergeError, UsageError
from optmerge.merge.tensors import merge_tensors
from optmerge.method import get_method
from optmerge.models import Checkpoint, Fit, read_row_cut
from optmerge.recipe import CheckpointNode, MergeNode, Node, Recipe, node_sha256


class Workbench:
    """The sources, opened, and the tensors that models merged from them have.

    Args:
        checkpoints: Node hash to checkpoint, for every leaf of the recipes to come.
        fit: Names and shapes of the merged tensors.
        device: Where to merge.
        resident: Keep all sources in the device's memory; otherwise they are read from memory-mapped files.
    """

    def __init__(
        self, checkpoints: Mapping[str, Checkpoint], fit: Fit, device: torch.device, resident: bool = False
    ) -> None:
        self.fit = fit
        self.device = device
        self._checkpoints = checkpoints
        self._resident: dict[tuple[str, str], Tensor] = {}
        if resident:
            for key in checkpoints:
                for name in fit.names:
                    self._resident[key, name] = self._read(key, name)

    def candidate(self, recipe: Recipe) -> "MergeCandidate":
        """Make a recipe available; nothing is computed yet.

        Raises:
            UsageError: If one of its sources is not on this bench, or its groups do not cover every tensor once.
        """
        _check_node(recipe.root, self._checkpoints, tuple(self.fit.names))
        return MergeCandidate(recipe, self)

    def tensor(self, node: Node, name: str) -> Tensor:
        """One tensor of a node, on the bench's device: a checkpoint's as stored, a merge's in its own type."""
        if isinstance(node, MergeNode):
            return self._merged(node, name)
        key = node_sha256(node)
        resident = self._resident.get((key, name))
        return self._read(key, name) if resident is None else resident

    def _read(self, key: str, name: str) -> Tensor:
        return read_row_cut(self._checkpoints[key], name, self.fit.shapes[name]).to(self.device)

    def _merged(self, node: MergeNode, name: str) -> Tensor:
        method = get_method(node.method)
        group = node.groups[_group_of(tuple(self.fit.names), _patterns(node))[name]]
        aliases = sorted(group.parameters)
        parameters: dict[str, object] = {
            key: [group.parameters[alias][key] for alias in aliases] for key in method.parameters
        }
        merged = merge_tensors(
            node.method,
            [self.tensor(node.sources[alias], name) for alias in aliases],
            base=None if node.base is None else self.tensor(node.sources[node.base], name),
            aliases=aliases,
            seed=node.seed,
            name=name,
            **parameters,
            **node.options,
        ).to(getattr(torch, node.dtype))
        if not torch.isfinite(merged).all():
            raise OptmergeError(f"merging gives NaN or infinity in {name}")
        return merged


@dataclass(frozen=True)
class MergeCandidate:
    """A merged model, not yet computed."""

    recipe: Recipe
    workbench: Workbench
    path: None = None  # a model merged in parameter space takes its layers in their usual order

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by name, in name order, merged as it is asked for."""
        for name in self.workbench.fit.names:
            yield name, self.workbench.tensor(self.recipe.root, name)


def _patterns(node: MergeNode) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, node.groups[name].tensors) for name in sorted(node.groups))


@lru_cache(maxsize=64)
def _group_of(names: tuple[str, ...], groups: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[str, str]:
    """Tensor name to group name; a search's recipes all share one answer."""
    owner: dict[str, str] = {}
    for group, patterns in groups:
        for name in {name for pattern in patterns for name in fnmatch.filter(names, pattern)}:
            if name in owner:
                raise UsageError(f"tensor {name} is in two groups: {owner[name]} and {group}")
            owner[name] = group
    for name in names:
        if name not in owner:
            raise UsageError(f"tensor {name} is in no group")
    return owner


def _check_node(node: Node, checkpoints: Mapping[str, Checkpoint], names: tuple[str, ...]) -> None:
    if isinstance(node, CheckpointNode):
        if node_sha256(node) not in checkpoints:
            raise UsageError(f"the recipe's source {node.location} (weights {node.weights_sha256[:12]}) is not open")
        return
    method = get_method(node.method)
    method.check_options(node.options, "options")
    if method.base == "required" and node.base is None:
        raise UsageError(f"{node.method} needs a base")
    for group_name, group in node.groups.items():
        if not group.parameters:
            raise UsageError(f"group {group_name} has no sources")
        for alias, values in group.parameters.items():
            for parameter in method.parameters:
                if parameter not in values:
                    raise UsageError(f"group {group_name}: {alias} has no {parameter}")
            for parameter, value in values.items():
                method.check_value(parameter, value, f"group {group_name}, {alias}")
    _group_of(names, _patterns(node))
    for source in node.sources.values():
        _check_node(source, checkpoints, names)
