"""Recipes of paths made available: run over resident layers, or folded into the tensors of an ordinary model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from optmerge.errors import OptmergeError, UsageError
from optmerge.flow.families import Family, family_of
from optmerge.flow.fold import Folds, fold, folded, folded_outside
from optmerge.flow.layer_types import layer_types
from optmerge.flow.path import LiveHop, LivePath
from optmerge.merge import Workbench
from optmerge.merge.candidate import MergeCandidate
from optmerge.models import Fit
from optmerge.models.layers import depth, layer_of, rest_of, stacked_config, stem_of
from optmerge.recipe import UNION, CheckpointNode, Node, PathNode, Recipe, node_sha256


class PathBench:
    """A bench that also knows paths.

    Args:
        workbench: Gives the sources' tensors.
        stand_ins: Alias to what its tensors are read from, for sources that are recipes themselves and were written.
    """

    def __init__(
        self,
        workbench: Workbench,
        stand_ins: Mapping[str, CheckpointNode] | None = None,
    ) -> None:
        self.workbench = workbench
        self._layer_types: dict[str, tuple[str, ...] | None] = {}  # of node hashes
        self._stand_ins = stand_ins or {}
        names, (some, *_) = workbench.fit.names, workbench.fit.sources.values()
        self.family: Family = family_of(str(some.config.get("model_type")))
        self.outside = [name for name in names if layer_of(name) is None]
        self.stem = next(stem for name in names if (stem := stem_of(name)))
        self.rests = sorted({rest_of(name) for name in names if layer_of(name) is not None})

    @property
    def fit(self) -> Fit:
        return self.workbench.fit

    @property
    def device(self) -> torch.device:
        return self.workbench.device

    def candidate(self, recipe: Recipe) -> "PathCandidate | MergeCandidate":
        """Make a recipe available; a path, to be run over the sources' layers.

        Raises:
            UsageError: If one of its sources is not on this bench, or it names layers that are not there.
        """
        if not isinstance(recipe.root, PathNode):
            return self.workbench.candidate(recipe)
        for alias in recipe.root.sources:
            self.workbench.check(self.source(recipe.root, alias))
        used = {hop.source for hop in recipe.root.hops}
        depths = {alias: depth(self.workbench.names(self.source(recipe.root, alias))) for alias in used}
        for number, hop in enumerate(recipe.root.hops):
            if not 0 <= hop.layer < depths[hop.source]:
                raise UsageError(f"hop {number} is layer {hop.layer} of {hop.source}, which has {depths[hop.source]}")
        return PathCandidate(recipe, recipe.root, self)

    def source(self, node: PathNode, alias: str) -> Node:
        """What the tensors of a source are read from."""
        return self._stand_ins.get(alias, node.sources[alias])

    def layer_types(self, node: Node, sha256: str) -> tuple[str, ...] | None:
        """Which attention mask each layer of a source takes."""
        if sha256 not in self._layer_types:
            leaf = node
            while not isinstance(leaf, CheckpointNode):
                leaf = leaf.sources[min(leaf.sources) if leaf.tokenizer == UNION else leaf.tokenizer]
            self._layer_types[sha256] = layer_types(self.workbench.config(leaf))
        return self._layer_types[sha256]

    def final(self, recipe: Recipe) -> "FoldedCandidate | MergeCandidate":
        """Make a recipe available as the model that is kept in the end."""
        candidate = self.candidate(recipe)
        return FoldedCandidate(candidate) if isinstance(candidate, PathCandidate) else candidate


@dataclass(frozen=True)
class PathCandidate:
    """A path that is run over the sources' layers."""

    recipe: Recipe
    node: PathNode
    bench: PathBench

    @cached_property
    def path(self) -> LivePath:
        keys = {alias: node_sha256(source) for alias, source in self.node.sources.items()}
        types = {alias: self.bench.layer_types(self.bench.source(self.node, alias), key) for alias, key in keys.items()}
        hops = tuple(
            LiveHop(f"{keys[hop.source]}/{hop.layer}", hop.layer, hop.scale, types[hop.source])
            for hop in self.node.hops
        )
        return LivePath(hops, self.node.scale_target, f"{keys[self.node.embeddings]}/{keys[self.node.head]}")

    def layer(self, hop: LiveHop) -> dict[str, Tensor]:
        """The tensors of a hop's layer, by their names within it."""
        number = self.path.hops.index(hop)
        return {rest: self.tensor(number, rest) for rest in self.bench.rests}

    def outside(self) -> dict[str, Tensor]:
        """The tensors outside of layers, by name."""
        return {name: self._outside(name) for name in self.bench.outside}

    def tensor(self, number: int, rest: str) -> Tensor:
        """A tensor of a hop's layer, by its name within it, as the source has it."""
        hop = self.node.hops[number]
        return self.bench.workbench.tensor(
            self.bench.source(self.node, hop.source), f"{self.bench.stem}{hop.layer}.{rest}"
        )

    def _outside(self, name: str) -> Tensor:
        # What comes after the layers is of the head; a tied head is the embeddings, and has no tensor of its own.
        final_norm, _, _ = self.bench.family.final_norm.rpartition(".")
        after = name.rpartition(".")[0].endswith((final_norm, "lm_head"))
        alias = self.node.head if after else self.node.embeddings
        return self.bench.workbench.tensor(self.bench.source(self.node, alias), name)


@dataclass(frozen=True)
class FoldedCandidate:
    """A path written as an ordinary model, whose layers are its hops."""

    unfolded: PathCandidate

    @property
    def recipe(self) -> Recipe:
        return self.unfolded.recipe

    @cached_property
    def folds(self) -> Folds:
        return fold([hop.scale for hop in self.unfolded.node.hops], self.unfolded.node.scale_target)

    @cached_property
    def path(self) -> LivePath:
        """Its own layers, one after the other."""
        sha256, unfolded = self.recipe.sha256, self.unfolded.path
        hops = tuple(
            LiveHop(f"{sha256}/{number}", hop.layer, 1.0, hop.layer_types) for number, hop in enumerate(unfolded.hops)
        )
        return LivePath(hops, "hidden", sha256, keep=False)

    def layer(self, hop: LiveHop) -> dict[str, Tensor]:
        """The tensors of one of its layers, by their names within it."""
        number = int(hop.key.rpartition("/")[2])
        return {rest: self._layer_tensor(number, rest) for rest in self.unfolded.bench.rests}

    def outside(self) -> dict[str, Tensor]:
        """The tensors outside of layers, by name."""
        return {name: self._outside_tensor(name) for name in self.unfolded.bench.outside}

    def config(self, like: Mapping[str, Any]) -> dict[str, Any]:
        """The config.json of the model: another one with its own layers."""
        hops = self.unfolded.path.hops
        config = stacked_config(like, [hop.layer for hop in hops])
        if any(hop.layer_type is not None for hop in hops):
            config["layer_types"] = [hop.layer_type for hop in hops]
        return config

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        bench, first = self.unfolded.bench, f"{self.unfolded.bench.stem}0."
        shapes = bench.workbench.fit.shapes
        return {
            name: shapes[name if number is None else f"{first}{rest}"]
            for name, (number, rest) in sorted(self._places.items())
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by name, in name order, made as it is asked for."""
        for name, (number, rest) in sorted(self._places.items()):
            yield name, self._outside_tensor(name) if number is None else self._layer_tensor(number, rest)

    @cached_property
    def _places(self) -> dict[str, tuple[int | None, str]]:
        """Name to the hop that a tensor is of, if it is of one, and what it is called there."""
        bench = self.unfolded.bench
        inside: dict[str, tuple[int | None, str]] = {
            f"{bench.stem}{number}.{rest}": (number, rest)
            for number in range(len(self.unfolded.node.hops))
            for rest in bench.rests
        }
        return inside | {name: (None, name) for name in bench.outside}

    def _layer_tensor(self, number: int, rest: str) -> Tensor:
        tensor = self.unfolded.tensor(number, rest)
        return self._stored(folded(tensor, rest, number, self.folds, self.unfolded.bench.family), f"hop {number}")

    def _outside_tensor(self, name: str) -> Tensor:
        return self._stored(
            folded_outside(self.unfolded._outside(name), name, self.folds, self.unfolded.bench.family), name
        )

    def _stored(self, tensor: Tensor, where: str) -> Tensor:
        stored = tensor.to(getattr(torch, self.unfolded.node.dtype))
        if not torch.isfinite(stored).all():
            raise OptmergeError(f"folding the path's scales gives NaN or infinity in {where}")
        return stored
