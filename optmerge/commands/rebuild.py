"""The rebuild command: from a recipe to the weights that were scored, or to the proof that they are the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from optmerge.commands.percent import percent
from optmerge.commands.proof import Proof
from optmerge.commands.publishing import papers_of, result_of
from optmerge.commands.recipe_places import recipe_file
from optmerge.commands.words import Parser, named, sorted_out
from optmerge.errors import OptmergeError, UsageError
from optmerge.recipe import (
    RECIPE,
    RECIPE_KEY,
    UNION,
    CheckpointNode,
    MergeNode,
    Node,
    PathNode,
    Recipe,
    load_recipe,
    node_sha256,
)

if TYPE_CHECKING:
    from torch import Tensor

_WORTH_COMPILING_ONCE = 2_000_000_000  # parameters


def run_rebuild(arguments: Sequence[str], console: Console) -> None:
    """Do what `rebuild RECIPE OUT` or `rebuild --check RECIPE` asks; a folder with a recipe stands for it.

    Raises:
        UsageError: If the recipe or one of its sources cannot be had.
        OptmergeError: If the weights are not those that were scored.
    """
    parser = Parser("rebuild")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    words, locations, _ = sorted_out(asked.words)
    if asked.check:
        (recipe,) = named("rebuild --check RECIPE [sources.ALIAS=FOLDER ...]", words, ["RECIPE"])
        check(recipe_file(Path(recipe)), locations, console)
    else:
        recipe, out = named("rebuild RECIPE OUT [sources.ALIAS=FOLDER ...]", words, ["RECIPE", "OUT"])
        rebuild(recipe_file(Path(recipe)), Path(out), locations, console)


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
    workbench, like = open_sources(recipe, locations, lambda text: console.print(text, highlight=False, soft_wrap=True))
    proof = Proof.of(recipe, recipe_path.parent)
    papers = papers_of(recipe, out.absolute().name, result_of(recipe, recipe_path.parent))
    report = percent(console.print, f"writing {out}")
    sha256 = write_model(recipe, workbench, like, out, proof=proof, papers=papers, report=report)
    try:
        verdict = proof.verdict(sha256)
    except OptmergeError as error:
        raise OptmergeError(f"{out} was written, but {error}") from error
    console.print(
        f"{out}: recipe {recipe.sha256[:12]}, weights {sha256[:12]}: {verdict}", highlight=False, soft_wrap=True
    )


def check(recipe_path: Path, locations: Mapping[str, str], console: Console) -> None:
    """Merge a recipe without writing it, and compare the weights with those that were scored.

    Raises:
        UsageError: If the recipe or one of its sources cannot be had, or it names no weights.
        OptmergeError: If the weights differ.
    """
    from optmerge.models import weights_sha256

    recipe = load_recipe(recipe_path)
    if recipe.weights_sha256 is None:
        raise UsageError(f"{recipe_path} has no weights_sha256 to compare with: its model was not kept")
    workbench, _ = open_sources(recipe, locations, lambda text: console.print(text, highlight=False, soft_wrap=True))
    proof = Proof.of(recipe, recipe_path.parent)
    sha256 = weights_sha256(proof.watch(ahead(workbench.final(recipe).tensors())))
    try:
        verdict = proof.verdict(sha256)
    except OptmergeError as error:
        raise OptmergeError(f"{recipe_path}: {error}") from error
    console.print(
        f"{recipe_path}: recipe {recipe.sha256[:12]} rebuilds {verdict}, {sha256}", highlight=False, soft_wrap=True
    )


def ahead(tensors: Iterator[tuple[str, "Tensor"]]) -> Iterator[tuple[str, "Tensor"]]:
    """The same tensors, each made while the one before is in use, by another thread."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    import torch

    # One core is left to what uses the tensors: threads that wait for one another on a core too few stand still.
    threads = max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1))
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as thread:
        coming = thread.submit(next, tensors, None)
        while (tensor := coming.result()) is not None:
            coming = thread.submit(next, tensors, None)
            yield tensor


def open_sources(
    recipe: Recipe, locations: Mapping[str, str], say: Callable[[str], None] = lambda text: None
) -> tuple[Any, Any]:
    """A bench with the recipe's sources, each proven by hash to be the one that the recipe names.

    Tensors are mapped as they are needed and then let go, so that memory does not grow with the model.

    Args:
        recipe: Whose sources.
        locations: Alias to folder, for sources that are no longer where the recipe says.
        say: Told when kernels are compiled.

    Returns:
        The bench, and what lies beside the weights: tokenizer and configuration.

    Raises:
        UsageError: If a source cannot be found, is another than the recipe's, or they do not fit together.
    """
    import torch

    from optmerge.merge import Kernels, Workbench
    from optmerge.models import check_fit, companions, missing, open_checkpoints, resolve, scan, tokens_sha256

    leaves = _leaves(recipe.root)
    needed, over = with_bases(leaves)
    for alias in locations:
        if alias not in needed:
            raise UsageError(f"sources.{alias}: the recipe has no such source; it has {', '.join(sorted(needed))}")
    found = {alias: (locations.get(alias, leaf.location), leaf) for alias, leaf in needed.items()}
    lines = [missing(location, leaf.revision) for location, leaf in found.values()]
    absent = [f"{alias}: {line}" for alias, line in zip(found, lines, strict=True) if line]
    if absent:
        hint = "say where a source is now with sources.ALIAS=FOLDER"
        raise UsageError(f"sources of the recipe are missing ({hint})\n  " + "\n  ".join(absent))
    folders = {alias: resolve(location, leaf.revision) for alias, (location, leaf) in found.items()}
    checkpoints = open_checkpoints(folders, over, kept=False)
    for alias, (location, leaf) in found.items():
        sha256 = scan(checkpoints[alias]).weights_sha256
        if sha256 != leaf.weights_sha256:
            raise UsageError(
                f"{alias}: {location} holds other weights ({sha256[:12]}) than the recipe's {leaf.weights_sha256[:12]}"
            )
        if leaf.tokens_sha256 not in (None, tokens_sha256(checkpoints[alias])):
            raise UsageError(f"{alias}: the tokenizer in {location} has other tokens or ids than the recipe's")
    root = recipe.root
    fit = check_fit(
        {alias: checkpoints[alias] for alias in leaves},
        base=_base_leaf(root),
        tokenizer=_tokenizer_leaf(root),
        pad_vocabulary_to=_padding(root),
        same_depth=not isinstance(root, PathNode),
    )
    if recipe.weights_sha256 and fit.alignment and not any(leaf.tokens_sha256 for leaf in leaves.values()):
        raise UsageError(
            "the recipe's sources had one vocabulary when it was scored, and now a tokenizer has other tokens or ids: "
            f"{fit.alignment.notice(fit.vocabulary)}"
        )
    opened = {node_sha256(leaf): checkpoints[alias] for alias, leaf in leaves.items()}
    # A single merge of a small model is over before a compiler has begun; kernels that are there already are used.
    kernels = Kernels(say, compile_missing=fit.parameters >= _WORTH_COMPILING_ONCE)
    bench = Workbench(opened, fit, torch.device("cpu"), kernels=kernels)
    if isinstance(root, PathNode):
        from optmerge.flow import PathBench

        return PathBench(bench), companions(fit)
    return bench, companions(fit)


def write_model(
    recipe: Recipe,
    workbench: Any,
    like: Any,
    out: Path,
    *,
    replace: bool = False,
    proof: Proof | None = None,
    papers: Mapping[str, str] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> str:
    """Write a recipe's model as a checkpoint, the recipe beside it, whole or not at all.

    Args:
        recipe: What to write.
        workbench: Merges it.
        like: Gives tokenizer and configuration.
        out: The folder to make.
        replace: Whether a folder that is there may be replaced.
        proof: Sees every tensor.
        papers: Its model card and what else is to lie beside it, by file name, if that is known already.
        report: Called with the bytes written so far and in all.

    Returns:
        The hash of the weights, which the recipe beside them names too.
    """
    import torch

    from optmerge.models import write_checkpoint

    candidate = workbench.final(recipe)
    tensors = ahead(candidate.tensors())
    return write_checkpoint(
        out,
        proof.watch(tensors) if proof else tensors,
        like=_with_layers(like, candidate),
        shapes=candidate.shapes(),
        dtype=getattr(torch, recipe.root.dtype),
        replace=replace,
        report=report,
        companions=lambda sha256: {
            RECIPE: recipe.with_weights(sha256, workbench.device.type).to_yaml(),
            **(papers or {}),
        },
        metadata=lambda sha256: {RECIPE_KEY: recipe.with_weights(sha256, workbench.device.type).embedded()},
    )


def _with_layers(like: Any, candidate: Any) -> Any:
    """What lies beside the weights, with a configuration that has the model's layers, where they were moved."""
    from optmerge.models import Companions
    from optmerge.models.layers import depth, layer_of, stacked_config

    if isinstance(candidate.recipe.root, PathNode):
        return Companions(like.folder, candidate.config(like.config), like)
    bench, root = candidate.workbench, candidate.recipe.root
    below = {layer_of(name): layer_of(bench.leaf_name(root, name)) for name in candidate.names}
    layers = [layer for number in range(depth(candidate.names)) if (layer := below[number]) is not None]
    if layers == list(range(depth(bench.fit.names))):
        return like
    return Companions(like.folder, stacked_config(like.config, layers), like)


def _leaves(node: Node, alias: str = "") -> dict[str, CheckpointNode]:
    if isinstance(node, CheckpointNode):
        return {alias: node}
    leaves: dict[str, CheckpointNode] = {}
    for name, source in node.sources.items():
        for leaf_alias, leaf in _leaves(source, name).items():
            if leaves.setdefault(leaf_alias, leaf).content() != leaf.content():
                raise UsageError(f"the recipe has two different sources called {leaf_alias}")
    return leaves


def with_bases(leaves: Mapping[str, CheckpointNode]) -> tuple[dict[str, CheckpointNode], dict[str, str]]:
    """The sources and what adapters among them lie over, by alias, and the alias of what each adapter lies over.

    What is no source itself is called ADAPTER.over, as in the configuration.
    """
    needed, over = dict(leaves), dict[str, str]()
    for alias, leaf in leaves.items():
        if leaf.over is not None:
            same = (other for other, node in leaves.items() if node.content() == leaf.over.content())
            below = next(same, f"{alias}.over")
            needed.setdefault(below, leaf.over)
            over[alias] = below
    return needed, over


def _tokenizer_leaf(node: MergeNode | PathNode) -> str:
    if node.tokenizer == UNION:
        return UNION
    source = node.sources[node.tokenizer]
    return node.tokenizer if isinstance(source, CheckpointNode) else _tokenizer_leaf(source)


def _base_leaf(node: Node, alias: str | None = None) -> str | None:
    """The checkpoint whose rows stand in for those that a source lacks."""
    if isinstance(node, CheckpointNode):
        return alias
    if isinstance(node, PathNode):
        merges = (source for _, source in sorted(node.sources.items()) if not isinstance(source, CheckpointNode))
        return next((leaf for merge in merges if (leaf := _base_leaf(merge)) is not None), None)
    below = node.vocabulary_base or node.base
    return None if below is None else _base_leaf(node.sources[below], below)


def _padding(node: Node) -> int | None:
    """To a multiple of what the vocabulary's rows are rounded up."""
    if isinstance(node, CheckpointNode):
        return None
    if isinstance(node, MergeNode):
        return node.pad_vocabulary_to
    return next((pad for _, source in sorted(node.sources.items()) if (pad := _padding(source))), None)
