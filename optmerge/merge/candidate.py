"""Recipes made available to an engine: their tensors, merged on demand, one at a time."""

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from optmerge.errors import OptmergeError, UsageError
from optmerge.merge.kernels import Kernels
from optmerge.merge.sweep import Sweeper
from optmerge.merge.tensors import merge_tensors
from optmerge.method import get_method
from optmerge.models import Adapter, Checkpoint, Fit
from optmerge.models.layers import layer_in, layer_of, layers_of, renamed, stacked_names
from optmerge.recipe import CheckpointNode, Group, MergeNode, Node, PathNode, Recipe, node_sha256


class Workbench:
    """The sources, opened, and the tensors that models merged from them have.

    Args:
        checkpoints: Node hash to checkpoint, for every leaf of the recipes to come.
        fit: Names and shapes of the sources' tensors.
        device: Where to merge.
        resident: Keep all sources in the device's memory; otherwise they are read from their files.
        kernels: Compiles what is worth it; None for plain PyTorch.
        keep_facts: Remember what does not depend on a recipe's parameters, such as the magnitudes that occur in a
            tensor, for the next candidate.
        keep_sources: Keep what is read for the next candidate: what is mapped takes no memory that others cannot have,
            rows in another order do. What adapters compute is not kept.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        fit: Fit,
        device: torch.device,
        *,
        resident: bool = False,
        kernels: Kernels | None = None,
        keep_facts: bool = False,
        keep_sources: bool = False,
    ) -> None:
        self.fit = fit
        self.device = device
        self._checkpoints = checkpoints
        self._sweeper = Sweeper(kernels)
        self._keep_sources = keep_sources
        self._owners: dict[int, tuple[MergeNode, Mapping[str, str]]] = {}
        self._facts: dict[Any, Any] | None = {} if keep_facts else None
        self._known: dict[tuple[str, str], Tensor] = {}
        if resident:
            for key in checkpoints:
                for name in fit.names:
                    self._known[key, name] = self._read(key, name)

    def candidate(self, recipe: Recipe) -> "MergeCandidate":
        """Make a recipe available; nothing is computed yet.

        Raises:
            UsageError: If one of its sources is not on this bench, or its groups do not cover every tensor once.
        """
        self._owners.clear()
        self.check(recipe.root)
        return MergeCandidate(recipe, self)

    def final(self, recipe: Recipe) -> "MergeCandidate":
        """Make a recipe available as the model that is kept in the end: here, the same as in a trial."""
        return self.candidate(recipe)

    def names(self, node: Node) -> tuple[str, ...]:
        """The tensors of a node, sorted."""
        if isinstance(node, MergeNode) and node.layers:
            # All sources of a node have the same tensors in each of their layers.
            below = self.names(node.sources[min(node.sources)])
            return _stacked(below, tuple(layers_of(node.layers, min(node.sources))))
        return tuple(self.fit.names)

    def tensor(self, node: Node, name: str, out: Tensor | None = None) -> Tensor:
        """One tensor of a node, on the bench's device: a checkpoint's as stored, a merge's in its own type.

        Args:
            node: A node of a recipe that was made available.
            name: The tensor.
            out: Where a merge is to write it, of the merge's type; otherwise it is a new tensor.
        """
        if isinstance(node, MergeNode):
            return self._merged(node, name, out)
        key = _key(node)
        known = self._known.get((key, name))
        if known is None:
            known = self._read(key, name)
            if self._keep_sources and not isinstance(self._checkpoints[key], Adapter):
                self._known[key, name] = known
        return known

    def config(self, node: CheckpointNode) -> Mapping[str, Any]:
        """The config.json of a checkpoint."""
        return self._checkpoints[_key(node)].config

    def _read(self, key: str, name: str) -> Tensor:
        return self.fit.tensor(self._checkpoints[key], name).to(self.device)

    def _merged(self, node: MergeNode, name: str, out: Tensor | None) -> Tensor:
        group = node.groups[self._groups(node)[name]]
        if out is None:
            shape = self.fit.shapes[self.leaf_name(node, name)]
            out = torch.empty(shape, dtype=getattr(torch, node.dtype), device=self.device)
        if group.source is not None:
            out.copy_(self._below(node, group.source, name))
        else:
            self._merge(node, group, name, out)
        if not _is_finite(out):
            raise OptmergeError(f"merging gives NaN or infinity in {name}")
        return out

    def _groups(self, node: MergeNode) -> Mapping[str, str]:
        """Which group each tensor of a node is in."""
        if id(node) not in self._owners:
            # The node is kept beside the answer, so that no other can have its place in memory.
            self._owners[id(node)] = node, _group_of(self.names(node), _patterns(node))
        return self._owners[id(node)][1]

    def _merge(self, node: MergeNode, group: Group, name: str, out: Tensor) -> None:
        method = get_method(node.method)
        aliases = sorted(group.parameters)
        base = node.base if method.base != "ignored" else None
        merge_tensors(
            node.method,
            [self._below(node, alias, name) for alias in aliases],
            base=None if base is None else self._below(node, base, name),
            aliases=aliases,
            seed=node.seed,
            name=name,
            out=out,
            sweeper=self._sweeper,
            facts=self._facts,
            identities=[_identity(node, alias, name) for alias in (*aliases, *([] if base is None else [base]))],
            **{key: [group.parameters[alias][key] for alias in aliases] for key in method.per_source()},
            **{key: group.shared[key] for key in method.shared() if key in group.shared},
            **node.options,
        )

    def _below(self, node: MergeNode, alias: str, name: str) -> Tensor:
        return self.tensor(node.sources[alias], _name_below(node, alias, name))

    def leaf_name(self, node: Node, name: str) -> str:
        """What a tensor is called in a checkpoint far below: where its shape is known."""
        while isinstance(node, MergeNode):
            alias = min(node.sources)
            name = _name_below(node, alias, name)
            node = node.sources[alias]
        return name

    def check(self, node: Node) -> None:
        if isinstance(node, CheckpointNode):
            if _key(node) not in self._checkpoints:
                raise UsageError(
                    f"the recipe's source {node.location} (weights {node.weights_sha256[:12]}) is not open"
                )
            return
        if isinstance(node, PathNode):
            raise UsageError("a path is no source of a merge: write it as a model first, with export format=fold")
        method = get_method(node.method)
        method.check_options(node.options, "options")
        for group_name, group in node.groups.items():
            if group.source is None:
                _check_group(node, group_name, group)
        self._groups(node)
        for source in node.sources.values():
            self.check(source)


@dataclass(frozen=True)
class MergeCandidate:
    """A merged model, not yet computed."""

    recipe: Recipe
    workbench: Workbench
    path: None = None  # a model merged in parameter space takes its layers in their usual order

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The model's tensors, sorted."""
        return self.workbench.names(self.recipe.root)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        bench, root = self.workbench, self.recipe.root
        return {name: bench.fit.shapes[bench.leaf_name(root, name)] for name in self.names}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by name, in name order, merged as it is asked for."""
        for name in self.names:
            yield name, self.workbench.tensor(self.recipe.root, name)

    def write_into(self, targets: Mapping[str, Tensor]) -> None:
        """Merge every tensor right into the memory of a live model.

        Args:
            targets: Name to tensor, for every tensor of this model, of its shape; a tensor of another type or on
                another device gets a copy.

        Raises:
            OptmergeError: If a merge cannot be done, such as by weights that cancel.
        """
        dtype = getattr(torch, self.recipe.root.dtype)
        for name in self.names:
            target = targets[name].detach()
            if target.dtype == dtype and target.device == self.workbench.device:
                self.workbench.tensor(self.recipe.root, name, out=target)
            else:
                target.copy_(self.workbench.tensor(self.recipe.root, name))


def _is_finite(tensor: Tensor) -> bool:
    # What is no number stays so in a sum, which is the cheapest way to look; but a sum can overflow by itself.
    return math.isfinite(tensor.sum()) or bool(torch.isfinite(tensor).all())


def _check_group(node: MergeNode, group_name: str, group: Group) -> None:
    method, where = get_method(node.method), f"group {group_name}"
    if not group.parameters:
        raise UsageError(f"{where} has no sources")
    method.check_sources(len(group.parameters), node.base is not None, where)
    for alias, values in group.parameters.items():
        for parameter in method.per_source():
            if parameter not in values:
                raise UsageError(f"{where}: {alias} has no {parameter}")
        for parameter, value in values.items():
            method.check_value(parameter, value, f"{where}, {alias}")
            if parameter in method.shared():
                raise UsageError(f"{where}: {parameter} has one value for all sources, and {alias} has one of its own")
    for parameter, value in group.shared.items():
        method.check_value(parameter, value, where)
        if parameter in method.per_source():
            raise UsageError(f"{where}: {parameter} has a value for each source, and stands among the shared ones")


def _name_below(node: MergeNode, alias: str, name: str) -> str:
    """What a tensor of a node is called in one of its sources."""
    layer = layer_of(name) if node.layers else None
    if layer is None:
        return name
    return renamed(name, layer_in(node.layers[layer], alias))


def _identity(node: MergeNode, alias: str, name: str) -> tuple[str, str]:
    """What tells a tensor from all others: the node that it is of, and its name there."""
    return _key(node.sources[alias]), _name_below(node, alias, name)


@lru_cache(maxsize=4096)
def _checkpoint_key(node: CheckpointNode) -> str:
    return node_sha256(node)


def _key(node: Node) -> str:
    return _checkpoint_key(node) if isinstance(node, CheckpointNode) else node_sha256(node)


@lru_cache(maxsize=64)
def _stacked(names: tuple[str, ...], layers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(stacked_names(names, layers))


def _patterns(node: MergeNode) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, node.groups[name].tensors) for name in sorted(node.groups))


@lru_cache(maxsize=64)
def _group_of(names: Sequence[str], groups: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[str, str]:
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
