"""Which tensors share their genes: by whole model, block of layers, layer, or sublayer."""

import re
from collections.abc import Sequence
from typing import Literal

from optmerge.errors import UsageError

By = Literal["model", "blocks", "layers"]

# Layers are numbered under `layers` (Llama, Mistral, Qwen, Gemma), `h` (GPT-2) or `blocks`.
_LAYER = re.compile(r"^(?P<stem>.*?\b(?:layers|h|blocks)\.)(?P<index>\d+)\.(?P<rest>.+)$")
_EMBEDDINGS = re.compile(r"\b(embed_tokens|wte|wpe|embed_in|word_embeddings)\b")
_HEAD = re.compile(r"\b(lm_head|embed_out)\b")
_MLP = re.compile(r"mlp|feed_?forward|post_attention|\bln_2\b")


def group_tensors(
    names: Sequence[str], by: By, *, block_layers: int = 4, sublayers: bool = False, embeddings: bool = True
) -> dict[str, tuple[str, ...]]:
    """Divide a model's tensors into groups.

    Args:
        names: All tensor names of the model.
        by: One group for all layers (`model`), one for `block_layers` layers in a row (`blocks`), or one a layer.
        block_layers: Layers in a block; the last block may be shorter.
        sublayers: Put attention and MLP (each with the norm before it) in groups of their own.
        embeddings: Put the input embedding, and the head with the final norm, in groups of their own, as the paper
            does; otherwise they join the first and the last group. Where the head is tied to the input embedding,
            the final norm goes with that.

    Returns:
        Group name, such as `layers.04-07.mlp`, to shell patterns that match its tensors.

    Raises:
        UsageError: If the names show no layers, or `block_layers` is not positive.
    """
    if block_layers < 1:
        raise UsageError(f"space.block_layers must be at least 1, got {block_layers}")
    layers = sorted({int(match["index"]) for name in names if (match := _LAYER.match(name))})
    if not layers:
        raise UsageError("cannot group the tensors by layer: none is named like 'model.layers.0.mlp.down_proj.weight'")
    if by == "model" and not sublayers and not embeddings:
        return {"model": ("*",)}
    first, last = _block(layers[0], layers, by, block_layers), _block(layers[-1], layers, by, block_layers)
    tied = not any(_HEAD.search(name) for name in names)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_group(name, layers, by, block_layers, sublayers, embeddings, tied, first, last), []).append(
            name
        )
    return {group: _patterns(members, names) for group, members in sorted(groups.items())}


def _group(
    name: str,
    layers: Sequence[int],
    by: By,
    block_layers: int,
    sublayers: bool,
    embeddings: bool,
    tied: bool,
    first: str,
    last: str,
) -> str:
    match = _LAYER.match(name)
    if match:
        block = _block(int(match["index"]), layers, by, block_layers)
        part = ".mlp" if _MLP.search(match["rest"]) else ".attention"
        return block + part if sublayers else block
    is_input = bool(_EMBEDDINGS.search(name))
    if embeddings:
        return "embeddings" if is_input or tied else "head"
    return (first + ".attention" if sublayers else first) if is_input else (last + ".mlp" if sublayers else last)


def _block(index: int, layers: Sequence[int], by: By, block_layers: int) -> str:
    digits = max(2, len(str(layers[-1])))
    if by == "model":
        return "layers"
    if by == "layers" or block_layers == 1:
        return f"layers.{index:0{digits}d}"
    start = index // block_layers * block_layers
    end = min(start + block_layers - 1, layers[-1])
    return f"layers.{start:0{digits}d}-{end:0{digits}d}"


def _patterns(members: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Members, with every layer that is there as a whole written as one pattern."""
    patterns: list[str] = []
    remaining = set(members)
    for stem in sorted({f"{m['stem']}{m['index']}." for name in members if (m := _LAYER.match(name))}):
        of_layer = {name for name in names if name.startswith(stem)}
        if of_layer <= remaining:
            patterns.append(f"{stem}*")
            remaining -= of_layer
    return tuple(sorted(patterns + list(remaining)))
