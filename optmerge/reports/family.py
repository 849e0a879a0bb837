"""The family tree of a model that optmerge has made: what was merged from what, and how, as plain data and in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optmerge.errors import UsageError
from optmerge.models.product import recipe_of
from optmerge.recipe import CheckpointNode, Hop, MergeNode, Node, PathNode, Recipe, node_sha256

_DEEPEST = 32  # generations; a folder that was copied into its own ancestor would have no end


def family(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a tree of plain data, each source of a node with its alias and its parts in the merge.

    A checkpoint that was made by optmerge itself, and still lies where the recipe says, has its own tree below it.
    """
    return {
        "recipe_sha256": recipe.sha256,
        "weights_sha256": recipe.weights_sha256,
        "merged_on": recipe.merged_on,
        "root": _node(recipe.root, 0),
    }


def _node(node: Node, depth: int) -> dict[str, Any]:
    if isinstance(node, CheckpointNode):
        return _checkpoint(node, depth)
    return _merge(node, depth) if isinstance(node, MergeNode) else _path(node, depth)


def _checkpoint(node: CheckpointNode, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": "checkpoint" if node.over is None else "adapter",
        "location": node.location,
        "revision": node.revision,
        "weights_sha256": node.weights_sha256,
        "licence": node.licence,
    }
    if node.over is not None:
        found["over"] = _node(node.over, depth + 1)
    maker = _maker(node) if depth < _DEEPEST else None
    if maker is not None:
        found["made_by"] = _node(maker.root, depth + 1)
    return found


def _maker(node: CheckpointNode) -> Recipe | None:
    """The recipe of a checkpoint that is one of ours."""
    folder = Path(node.location).expanduser()
    try:
        found = recipe_of(folder) if folder.is_dir() else None
    except UsageError:  # a source is what its hash says, whatever lies beside it
        return None
    return found[0] if found and found[0].weights_sha256 == node.weights_sha256 else None


def _merge(node: MergeNode, depth: int) -> dict[str, Any]:
    roles = {alias: ["base"] if alias == node.base else [] for alias in node.sources}
    if node.tokenizer in roles:
        roles[node.tokenizer].append("tokenizer")
    merged = {name: group for name, group in node.groups.items() if group.source is None}
    values: dict[str, dict[str, list[float]]] = {}
    for group in merged.values():
        for alias, parameters in group.parameters.items():
            for name, value in parameters.items():
                values.setdefault(alias, {}).setdefault(name, []).append(value)
    shared: dict[str, list[float]] = {}
    for group in merged.values():
        for name, value in group.shared.items():
            shared.setdefault(name, []).append(value)
    return {
        "kind": "merge",
        "sha256": node_sha256(node),
        "method": node.method,
        "dtype": node.dtype,
        "seed": node.seed,
        "options": dict(node.options),
        "groups": len(node.groups),
        "taken": {name: group.source for name, group in node.groups.items() if group.source is not None},
        "moved_layers": len(node.layers),
        "tokenizer": node.tokenizer,
        "shared": {name: _spread(found) for name, found in shared.items()},
        "sources": [
            {
                "alias": alias,
                "roles": roles[alias],
                "parameters": {name: _spread(found) for name, found in sorted(values.get(alias, {}).items())},
                **_node(source, depth + 1),
            }
            for alias, source in sorted(node.sources.items())
        ],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"low": min(values), "mean": sum(values) / len(values), "high": max(values), "groups": len(values)}


def _path(node: PathNode, depth: int) -> dict[str, Any]:
    ends = (("tokenizer", node.tokenizer), ("embeddings", node.embeddings), ("head", node.head))
    return {
        "kind": "path",
        "sha256": node_sha256(node),
        "dtype": node.dtype,
        "scale_target": node.scale_target,
        "hops": [[hop.source, hop.layer, hop.scale] for hop in node.hops],
        "sources": [
            {
                "alias": alias,
                "roles": [role for role, giver in ends if giver == alias],
                "hops": sum(hop.source == alias for hop in node.hops),
                **_node(source, depth + 1),
            }
            for alias, source in sorted(node.sources.items())
        ],
    }


def hops_in_words(hops: Sequence[Hop]) -> str:
    """A path as people would tell it: "ja 0 to 3, math 2 (x 0.9), ja 4 to 5 (x 1, 1.2)"."""
    runs: list[list[Hop]] = []
    for hop in hops:
        last = runs[-1][-1] if runs else None
        if last is not None and (hop.source, hop.layer) == (last.source, last.layer + 1):
            runs[-1].append(hop)
        else:
            runs.append([hop])
    return ", ".join(_run(run) for run in runs)


def _run(run: Sequence[Hop]) -> str:
    first, last = run[0], run[-1]
    layers = f"{first.layer}" if len(run) == 1 else f"{first.layer} to {last.layer}"
    scales = [_shown(hop.scale) for hop in run]
    times = "" if set(scales) == {"1"} else f" (x {scales[0] if len(set(scales)) == 1 else ', '.join(scales)})"
    return f"{first.source} {layers}{times}"


def parameters_in_words(parameters: Mapping[str, Mapping[str, float]]) -> str:
    """The parameters of a source as people would tell them: "weight 0.2 to 0.9, density 0.5"."""
    return ", ".join(f"{name} {_between(spread)}" for name, spread in parameters.items())


def _between(spread: Mapping[str, float]) -> str:
    low, high = _shown(spread["low"]), _shown(spread["high"])
    return low if low == high else f"{low} to {high}"


def _shown(value: float) -> str:
    return f"{value:.3g}"
