"""Recipes: the complete, portable description of a merged model, as a value.

A recipe is a small graph. Its leaves are checkpoints; its inner nodes are merges of tensors, or paths over layers. A
source of an inner node is a checkpoint or another inner node. In a file every node is written once, under its content
hash:

    format: optmerge-recipe
    version: 1
    root: 9b1c...                # the node that is the merged model
    weights_sha256: 77ab...      # of the weights that were scored; only for models that are kept
    nodes:
      9b1c...: {kind: merge, method: dare_ties, dtype: bfloat16, ...}
      02d4...: {kind: checkpoint, location: ../models/ja, weights_sha256: ...}

The hash of a checkpoint covers its weights, not where it lies: a recipe moves between machines, and its sources may
be listed in any order.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from optmerge.errors import UsageError

RECIPE = "recipe.yaml"
"""What a recipe is called beside the weights that it describes."""
RECIPE_KEY = "optmerge_recipe"
"""Where a recipe stands in the metadata of the weights themselves."""

FORMAT = "optmerge-recipe"
VERSION = 1
DTYPES = ("float32", "bfloat16", "float16")
SCALE_TARGETS = ("hidden", "branch")
UNION = "union"
"""Stands for the vocabulary of all sources, where else an alias says whose tokenizer is used."""

Option = bool | float | str

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CheckpointNode:
    """A leaf: a checkpoint on disk or on the hub.

    Attributes:
        location: Folder or hub id where it was found; not part of its identity.
        weights_sha256: Hash of its tensors, see `optmerge.models.weights_sha256`.
        revision: Commit on the hub; not part of its identity either, as the weights say it all.
        component: Which part of the checkpoint takes part.
        over: For an adapter: the checkpoint that it is merged into. `weights_sha256` is then the adapter's alone, see
            `optmerge.models.Adapter.identity`.
        tokens_sha256: Hash of its tokens' ids, see `optmerge.models.tokens_sha256`; only where the sources'
            vocabularies differ, as the merged rows then depend on it.
        licence: What it was under when it was found, if that was known; not part of its identity.
    """

    location: str
    weights_sha256: str
    revision: str | None = None
    component: str = "model"
    over: "CheckpointNode | None" = None
    tokens_sha256: str | None = None
    licence: str | None = None

    def content(self) -> dict[str, Any]:
        content = {"kind": "checkpoint", "component": self.component, "weights_sha256": self.weights_sha256}
        if self.tokens_sha256 is not None:
            content["tokens_sha256"] = self.tokens_sha256
        return content if self.over is None else content | {"over": node_sha256(self.over)}


@dataclass(frozen=True)
class Group:
    """Tensors that share their parameters.

    Attributes:
        tensors: Shell patterns over tensor names, such as `model.layers.7.*`.
        parameters: Source alias to parameter name to value; the sources that take part, and no others.
        shared: Parameters of the method that have one value for all sources, such as the `t` of slerp.
        source: Alias of the source whose tensors are taken as they are; nothing is merged then, and there are no
            parameters.
    """

    tensors: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = {"tensors": sorted(self.tensors)}
        if self.source is not None:
            return content | {"source": self.source}
        content["parameters"] = {
            alias: {name: float(value) for name, value in values.items()} for alias, values in self.parameters.items()
        }
        if self.shared:
            content["shared"] = {name: float(value) for name, value in self.shared.items()}
        return content


@dataclass(frozen=True)
class MergeNode:
    """An inner node: sources merged tensor by tensor.

    Attributes:
        method: Name of a merge method.
        sources: Alias to node; the base among them, if there is one.
        base: Alias of the checkpoint that task vectors are measured from.
        tokenizer: Alias of the source that gives tokenizer, configuration and vocabulary rows; or `union`, for the
            vocabulary of all sources.
        dtype: Type in which the merged tensors are stored; rounding to it is part of the value.
        groups: Group name to group. Every tensor of the model is in exactly one.
        options: Options of the method, such as `normalize`.
        seed: Seed of random masks.
        layers: Which layer of each source becomes each layer of the merged model: one mapping of alias to layer for
            each. Empty where every layer is merged from its namesakes.
        vocabulary_base: Alias of the source whose rows stand in for tokens that others lack, where vocabularies differ;
            by default `base`. It is told apart because a merge without a base fills rows like one with it.
        pad_vocabulary_to: Vocabulary rows are rounded up to a multiple of this.
    """

    method: str
    sources: Mapping[str, "Node"]
    base: str | None
    tokenizer: str
    dtype: str
    groups: Mapping[str, Group]
    options: Mapping[str, Option] = field(default_factory=dict)
    seed: int = 0
    layers: tuple[Mapping[str, int], ...] = ()
    vocabulary_base: str | None = None
    pad_vocabulary_to: int | None = None

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "kind": "merge",
            "method": self.method,
            "sources": {alias: node_sha256(node) for alias, node in self.sources.items()},
            "base": self.base,
            "tokenizer": self.tokenizer,
            "dtype": self.dtype,
            "groups": {name: group.content() for name, group in self.groups.items()},
            "options": dict(self.options),
            "seed": self.seed,
        }
        if self.layers:
            content["layers"] = [dict(sorted(layer.items())) for layer in self.layers]
        if self.vocabulary_base is not None:
            content["vocabulary_base"] = self.vocabulary_base
        if self.pad_vocabulary_to is not None:
            content["pad_vocabulary_to"] = self.pad_vocabulary_to
        return content


@dataclass(frozen=True)
class Hop:
    """A step of a data-flow path.

    Attributes:
        source: Alias of a source.
        layer: One of its layers, counted from 0.
        scale: What its input is multiplied by, see `PathNode.scale_target`.
    """

    source: str
    layer: int
    scale: float = 1.0


@dataclass(frozen=True)
class PathNode:
    """An inner node: layers of sources, one after the other (Akiba et al., 2025, data-flow space).

    Its weights are those of an ordinary model with as many layers as there are hops, into which the scales are folded,
    see `optmerge.flow.fold`.

    Attributes:
        sources: Alias to node.
        hops: The path.
        tokenizer: Alias of the source that gives tokenizer and configuration.
        embeddings: Alias of the source that gives the embeddings.
        head: Alias of the source that gives the final norm and the output head.
        dtype: Type in which the tensors are stored; rounding to it after folding is part of the value.
        scale_target: `hidden` if a scale multiplies all that reaches its hop, as the paper says; `branch` if, after the
            first hop, it multiplies only what the last block of the hop before has added, as the code published with
            the paper does.
    """

    sources: Mapping[str, "Node"]
    hops: tuple[Hop, ...]
    tokenizer: str
    embeddings: str
    head: str
    dtype: str
    scale_target: str = "hidden"

    @property
    def path_sha256(self) -> str:
        """Hash of the path alone: hops, scales, and what they multiply."""
        content = self.content()
        return _sha256({key: content[key] for key in ("hops", "scale_target")})

    def content(self) -> dict[str, Any]:
        return {
            "kind": "path",
            "sources": {alias: node_sha256(node) for alias, node in self.sources.items()},
            "hops": [[hop.source, hop.layer, float(hop.scale)] for hop in self.hops],
            "tokenizer": self.tokenizer,
            "embeddings": self.embeddings,
            "head": self.head,
            "dtype": self.dtype,
            "scale_target": self.scale_target,
        }


Node = CheckpointNode | MergeNode | PathNode


@dataclass(frozen=True)
class Recipe:
    """A merged model.

    Attributes:
        root: The node that it is.
        weights_sha256: Hash of its weights, where they were kept.
        merged_on: Kind of the device that merged those, such as `cpu` or `cuda`.
    """

    root: MergeNode | PathNode
    weights_sha256: str | None = None
    merged_on: str | None = None

    @property
    def sha256(self) -> str:
        """Content hash: equal for recipes that describe the same model, whatever the order of their sources."""
        return node_sha256(self.root)

    def document(self) -> dict[str, Any]:
        """The recipe as plain data."""
        nodes: dict[str, dict[str, Any]] = {}
        _collect(self.root, nodes)
        document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "root": self.sha256}
        if self.weights_sha256:
            document["weights_sha256"] = self.weights_sha256
        if self.merged_on:
            document["merged_on"] = self.merged_on
        return document | {"nodes": nodes}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.document(), sort_keys=False, allow_unicode=True, width=120)

    def embedded(self) -> str:
        """The recipe as it stands in weights that travel: in one line, and without folders of this machine."""
        return json.dumps(self.portable().document(), separators=(",", ":"), ensure_ascii=False)

    def portable(self) -> "Recipe":
        """The same recipe, in which a source that lies in a folder is called by the folder's name alone."""
        root = _portable(self.root)
        assert not isinstance(root, CheckpointNode)
        return replace(self, root=root)

    def save(self, path: Path) -> None:
        path.write_text(self.to_yaml(), encoding="utf-8")

    def with_weights(self, weights_sha256: str, merged_on: str) -> "Recipe":
        return replace(self, weights_sha256=weights_sha256, merged_on=merged_on)


def node_sha256(node: Node) -> str:
    """SHA-256 of a node's canonical JSON, in which its sources stand as their own hashes."""
    return _sha256(node.content())


def _sha256(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _collect(node: Node, nodes: dict[str, dict[str, Any]]) -> None:
    key = node_sha256(node)
    if key in nodes:
        return
    nodes[key] = node.content()
    if isinstance(node, CheckpointNode):
        nodes[key]["location"] = node.location
        if node.revision:
            nodes[key]["revision"] = node.revision
        if node.licence:
            nodes[key]["licence"] = node.licence
        if node.over:
            _collect(node.over, nodes)
    else:
        for source in node.sources.values():
            _collect(source, nodes)


def _portable(node: Node) -> Node:
    if isinstance(node, CheckpointNode):
        over = None if node.over is None else _portable(node.over)
        assert over is None or isinstance(over, CheckpointNode)
        return replace(node, location=portable_location(node.location), over=over)
    return replace(node, sources={alias: _portable(source) for alias, source in node.sources.items()})


def portable_location(location: str) -> str:
    """Where a source is, in words that mean something elsewhere: a hub id, or `./NAME` for what lies in a folder."""
    parts = Path(location).parts
    for place, part in enumerate(parts[:-2]):  # a folder of the hub's cache says what it is
        if part.startswith("models--") and parts[place + 1] == "snapshots":
            return part.removeprefix("models--").replace("--", "/")
    is_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", location) and location[0] not in "." and not Path(location).exists()
    return location if is_id else f"./{Path(location).name}"


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Node keys that are content hashes are checked against the content; a recipe written by hand may use any other
    keys.

    Raises:
        UsageError: If the file is not a recipe, is of another version, or was changed after it was written.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not a recipe: it is not YAML ({str(error).splitlines()[0]})") from error
    return read_recipe(document, path)


def read_recipe(document: object, path: Path | str) -> Recipe:
    """The recipe that plain data is.

    Args:
        document: As `Recipe.document` gives it.
        path: Where it comes from, for messages.

    Raises:
        UsageError: As `load_recipe` does.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f"{path} is not a recipe: it does not begin with 'format: {FORMAT}'")
    if document.get("version") != VERSION:
        raise UsageError(f"{path} has recipe version {document.get('version')!r}; this optmerge reads {VERSION}")
    try:
        root = _read_node(str(document["root"]), document["nodes"], ())
        weights_sha256 = document.get("weights_sha256")
        if weights_sha256 is not None and not _HASH.fullmatch(str(weights_sha256)):
            raise ValueError(f"weights_sha256 {weights_sha256!r}")
    except UsageError as error:
        raise UsageError(f"{path} is not a whole recipe: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is not a whole recipe: missing or malformed {error}") from error
    if isinstance(root, CheckpointNode):
        raise UsageError(f"{path}: its root is a checkpoint, not a merge or a path")
    merged_on = document.get("merged_on")
    return Recipe(root, weights_sha256, None if merged_on is None else str(merged_on))


def _read_node(key: str, nodes: Mapping[str, Any], above: tuple[str, ...]) -> Node:
    if key in above:
        raise UsageError(f"node {key[:12]} is its own source")
    if key not in nodes:
        raise UsageError(f"node {key[:12]} is not in it")
    entry = nodes[key]
    node: Node
    if entry["kind"] == "checkpoint":
        node = CheckpointNode(
            location=str(entry["location"]),
            weights_sha256=str(entry["weights_sha256"]),
            revision=None if entry.get("revision") is None else str(entry["revision"]),
            component=str(entry.get("component", "model")),
            over=None if entry.get("over") is None else _read_over(key, str(entry["over"]), nodes, above),
            tokens_sha256=None if entry.get("tokens_sha256") is None else str(entry["tokens_sha256"]),
            licence=None if entry.get("licence") is None else str(entry["licence"]),
        )
    elif entry["kind"] == "merge":
        node = _read_merge(key, entry, nodes, above)
    elif entry["kind"] == "path":
        node = _read_path(key, entry, nodes, above)
    else:
        raise UsageError(f"node {key[:12]} is of unknown kind {entry['kind']!r}")
    if _HASH.fullmatch(key) and node_sha256(node) != key:
        raise UsageError(
            f"node {key[:12]} was changed after it was written; to use it as it stands, give the node a name of your "
            "own in place of its hash, and remove weights_sha256"
        )
    return node


def _read_over(key: str, over: str, nodes: Mapping[str, Any], above: tuple[str, ...]) -> CheckpointNode:
    node = _read_node(over, nodes, (*above, key))
    if not isinstance(node, CheckpointNode) or node.over is not None:
        raise UsageError(f"node {key[:12]} lies over node {over[:12]}, which is not a whole checkpoint")
    return node


def _read_merge(key: str, entry: Mapping[str, Any], nodes: Mapping[str, Any], above: tuple[str, ...]) -> MergeNode:
    groups = {
        str(name): Group(
            tensors=tuple(str(pattern) for pattern in group["tensors"]),
            parameters={
                str(alias): {str(parameter): _finite(value) for parameter, value in values.items()}
                for alias, values in group.get("parameters", {}).items()
            },
            shared={str(parameter): _finite(value) for parameter, value in group.get("shared", {}).items()},
            source=None if group.get("source") is None else str(group["source"]),
        )
        for name, group in entry["groups"].items()
    }
    node = MergeNode(
        method=str(entry["method"]),
        sources={
            str(alias): _read_node(str(source), nodes, (*above, key)) for alias, source in entry["sources"].items()
        },
        base=entry["base"],
        tokenizer=str(entry["tokenizer"]),
        dtype=str(entry["dtype"]),
        groups=groups,
        options=dict(entry.get("options") or {}),
        seed=int(entry.get("seed", 0)),
        layers=tuple(
            {str(alias): int(layer) for alias, layer in layers.items()} for layers in entry.get("layers") or ()
        ),
        vocabulary_base=None if entry.get("vocabulary_base") is None else str(entry["vocabulary_base"]),
        pad_vocabulary_to=None if entry.get("pad_vocabulary_to") is None else int(entry["pad_vocabulary_to"]),
    )
    if UNION in node.sources:
        raise UsageError(f"node {key[:12]} has a source called {UNION!r}, the word for the vocabulary of all")
    for alias in {
        *([node.tokenizer] if node.tokenizer != UNION else []),
        *([node.base] if node.base else []),
        *([node.vocabulary_base] if node.vocabulary_base else []),
        *(alias for group in groups.values() for alias in group.parameters),
        *(group.source for group in groups.values() if group.source is not None),
        *(alias for layers in node.layers for alias in layers),
    }:
        if alias not in node.sources:
            raise UsageError(f"node {key[:12]} speaks of {alias!r}, which is not one of its sources")
    if node.pad_vocabulary_to is not None and node.pad_vocabulary_to < 1:
        raise UsageError(f"node {key[:12]} has pad_vocabulary_to {node.pad_vocabulary_to}; it must be at least 1")
    if node.dtype not in DTYPES:
        raise UsageError(f"node {key[:12]} has dtype {node.dtype!r}; known are {', '.join(DTYPES)}")
    return node


def _read_path(key: str, entry: Mapping[str, Any], nodes: Mapping[str, Any], above: tuple[str, ...]) -> PathNode:
    node = PathNode(
        sources={
            str(alias): _read_node(str(source), nodes, (*above, key)) for alias, source in entry["sources"].items()
        },
        hops=tuple(Hop(str(source), int(layer), _finite(scale)) for source, layer, scale in entry["hops"]),
        tokenizer=str(entry["tokenizer"]),
        embeddings=str(entry["embeddings"]),
        head=str(entry["head"]),
        dtype=str(entry["dtype"]),
        scale_target=str(entry.get("scale_target", "hidden")),
    )
    if not node.hops:
        raise UsageError(f"node {key[:12]} is a path without hops")
    for alias in {node.tokenizer, node.embeddings, node.head, *(hop.source for hop in node.hops)}:
        if alias not in node.sources:
            raise UsageError(f"node {key[:12]} speaks of {alias!r}, which is not one of its sources")
    for name, value, known in (("dtype", node.dtype, DTYPES), ("scale_target", node.scale_target, SCALE_TARGETS)):
        if value not in known:
            raise UsageError(f"node {key[:12]} has {name} {value!r}; known are {', '.join(known)}")
    return node


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"value {number}")
    return number
