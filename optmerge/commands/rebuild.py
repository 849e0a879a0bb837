"""The rebuild command: from a recipe to the weights that were scored, or to the proof that they are the same."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.percent import percent
from optmerge.errors import OptmergeError, UsageError
from optmerge.recipe import CheckpointNode, MergeNode, Node, Recipe, load_recipe, node_sha256

RECIPE = "recipe.yaml"


def rebuild(recipe_path: Path, out: Path, locations: Mapping[str, str], console: Console) -> None:
    """Write the model of a recipe into a new folder.

    Args:
        recipe_path: The recipe.
        out: Where to; it must not exist, or be empty.
        locations: Alias to folder, for sources that are no longer where the recipe says.
        console: Where to say what was done.

    Raises:
        UsageError: If the recipe or one of its sources cannot be had.
        OptmergeError: If the weights are not those that were scored.
    """
    recipe = load_recipe(recipe_path)
    workbench, like = open_sources(recipe, locations)
    sha256 = write_model(recipe, workbench, like, out, report=percent(console.print, f"writing {out}"))
    if recipe.weights_sha256 and sha256 != recipe.weights_sha256:
        raise OptmergeError(
            f"{out} was written, but its weights ({sha256[:12]}) are not those that were scored "
            f"({recipe.weights_sha256[:12]})"
        )
    proven = "the weights that were scored" if recipe.weights_sha256 else "the recipe names no weights to compare with"
    console.print(
        f"{out}: recipe {recipe.sha256[:12]}, weights {sha256[:12]}: {proven}", highlight=False, soft_wrap=True
    )


def check(recipe_path: Path, locations: Mapping[str, str], console: Console) -> None:
    """Merge a recipe without writing it, and compare the weights' hash with the recipe's.

    Raises:
        UsageError: If the recipe or one of its sources cannot be had, or it names no weights.
        OptmergeError: If the weights differ.
    """
    from optmerge.models import weights_sha256

    recipe = load_recipe(recipe_path)
    if recipe.weights_sha256 is None:
        raise UsageError(f"{recipe_path} has no weights_sha256 to compare with: its model was not kept")
    workbench, _ = open_sources(recipe, locations)
    sha256 = weights_sha256(workbench.candidate(recipe).tensors())
    if sha256 != recipe.weights_sha256:
        raise OptmergeError(
            f"{recipe_path}: rebuilt weights {sha256[:12]} differ from those that were scored "
            f"({recipe.weights_sha256[:12]})"
        )
    console.print(
        f"{recipe_path}: recipe {recipe.sha256[:12]} rebuilds the weights that were scored, {sha256}",
        highlight=False,
        soft_wrap=True,
    )


def open_sources(recipe: Recipe, locations: Mapping[str, str]) -> tuple[Any, Any]:
    """A bench with the recipe's sources, each proven by hash to be the one that the recipe names.

    Returns:
        The bench, and the checkpoint that gives tokenizer and configuration.

    Raises:
        UsageError: If a source cannot be found, is another than the recipe's, or they do not fit together.
    """
    import torch

    from optmerge.merge import Workbench
    from optmerge.models import Checkpoint, check_fit, missing, resolve, scan

    leaves = _leaves(recipe.root)
    for alias in locations:
        if alias not in leaves:
            raise UsageError(f"sources.{alias}: the recipe has no such source; it has {', '.join(sorted(leaves))}")
    found = {alias: (locations.get(alias, leaf.location), leaf) for alias, leaf in leaves.items()}
    lines = [missing(location, leaf.revision) for location, leaf in found.values()]
    absent = [f"{alias}: {line}" for alias, line in zip(found, lines, strict=True) if line]
    if absent:
        hint = "say where a source is now with sources.ALIAS=FOLDER"
        raise UsageError(f"sources of the recipe are missing ({hint})\n  " + "\n  ".join(absent))
    checkpoints = {
        alias: Checkpoint.open(resolve(location, leaf.revision), alias) for alias, (location, leaf) in found.items()
    }
    for alias, (location, leaf) in found.items():
        sha256 = scan(checkpoints[alias]).weights_sha256
        if sha256 != leaf.weights_sha256:
            raise UsageError(
                f"{alias}: {location} holds other weights ({sha256[:12]}) than the recipe's {leaf.weights_sha256[:12]}"
            )
    root = recipe.root
    tokenizer = _tokenizer_leaf(root)
    fit = check_fit(checkpoints, base=None, tokenizer=tokenizer)
    opened = {node_sha256(leaf): checkpoints[alias] for alias, (_, leaf) in found.items()}
    return Workbench(opened, fit, torch.device("cpu")), checkpoints[tokenizer]


def write_model(
    recipe: Recipe,
    workbench: Any,
    like: Any,
    out: Path,
    *,
    replace: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> str:
    """Write a recipe's model as a checkpoint, the recipe beside it, whole or not at all.

    Args:
        recipe: What to write.
        workbench: Merges it.
        like: The checkpoint that gives tokenizer and configuration.
        out: The folder to make.
        replace: Whether a folder that is there may be replaced.
        report: Called with the bytes written so far and in all.

    Returns:
        The hash of the weights, which the recipe beside them names too.
    """
    import torch

    from optmerge.models import write_checkpoint

    return write_checkpoint(
        out,
        workbench.candidate(recipe).tensors(),
        like=like,
        shapes=workbench.fit.shapes,
        dtype=getattr(torch, recipe.root.dtype),
        replace=replace,
        report=report,
        companions=lambda sha256: {RECIPE: recipe.with_weights(sha256).to_yaml()},
    )


def _leaves(node: Node, alias: str = "") -> dict[str, CheckpointNode]:
    if isinstance(node, CheckpointNode):
        return {alias: node}
    leaves: dict[str, CheckpointNode] = {}
    for name, source in node.sources.items():
        for leaf_alias, leaf in _leaves(source, name).items():
            if leaves.setdefault(leaf_alias, leaf).content() != leaf.content():
                raise UsageError(f"the recipe has two different sources called {leaf_alias}")
    return leaves


def _tokenizer_leaf(node: MergeNode) -> str:
    source = node.sources[node.tokenizer]
    return node.tokenizer if isinstance(source, CheckpointNode) else _tokenizer_leaf(source)
