"""Layers by their tensors' names, and models whose layers are taken from others in another order or number."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optmerge.errors import UsageError

# Layers are numbered under `layers` (Llama, Mistral, Qwen, Gemma), `h` (GPT-2) or `blocks`.
LAYER = re.compile(r"^(?P<stem>.*?\b(?:layers|h|blocks)\.)(?P<index>\d+)\.(?P<rest>.+)$")

# Lists in config.json with an entry for each layer.
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type", "attention_layers")
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to; None for embeddings, final norm and head."""
    match = LAYER.match(name)
    return int(match["index"]) if match else None


def rest_of(name: str) -> str:
    """What a tensor is called within its layer, such as `mlp.up_proj.weight`; its whole name outside of layers."""
    match = LAYER.match(name)
    return match["rest"] if match else name


def stem_of(name: str) -> str:
    """What a tensor's name begins with up to the number of its layer, such as `model.layers.`; or nothing."""
    match = LAYER.match(name)
    return match["stem"] if match else ""


def renamed(name: str, layer: int) -> str:
    """The name of the same tensor in another layer.

    Raises:
        ValueError: If it belongs to no layer.
    """
    match = LAYER.match(name)
    if match is None:
        raise ValueError(f"{name} belongs to no layer")
    return f"{match['stem']}{layer}.{match['rest']}"


def depth(names: Sequence[str]) -> int:
    """The number of layers of a model with these tensors."""
    return 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)


def stacked_names(names: Sequence[str], layers: Sequence[int]) -> list[str]:
    """The tensors of a model whose layers are those of another, in any order and any number of times.

    Args:
        names: The other model's tensors.
        layers: Which of its layers each layer is.

    Returns:
        Sorted names: what is outside of layers stays as it is.

    Raises:
        UsageError: If there is no such layer.
    """
    members: dict[int | None, list[str]] = {}
    for name in names:
        members.setdefault(layer_of(name), []).append(name)
    for layer in layers:
        if layer not in members:
            raise UsageError(f"there is no layer {layer}: the sources have {depth(names)} layers, counted from 0")
    stacked = [renamed(name, new) for new, old in enumerate(layers) for name in members[old]]
    return sorted([*members.get(None, []), *stacked])


def layers_of(layers: Sequence[Mapping[str, int]], alias: str) -> list[int]:
    """Which layer of one source each layer of a merged model is; of the first other one where it takes no part.

    Args:
        layers: As in a recipe's node: for each layer of the merged model, alias to that source's layer.
        alias: The source.
    """
    return [layer_in(layer, alias) for layer in layers]


def layer_in(layer: Mapping[str, int], alias: str) -> int:
    """Which layer of one source a layer of a merged model is; of the first other one where it takes no part."""
    return layer[alias] if alias in layer else layer[min(layer)]


def stacked_config(config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """A config.json for a model whose layers are those of another: their number, and what lists say of each.

    Args:
        config: The other model's.
        layers: Which of its layers each layer is.
    """
    stacked = copy.deepcopy(dict(config))
    nested = stacked.get("text_config")
    for part in [stacked, nested] if isinstance(nested, dict) else [stacked]:
        for key in PER_LAYER:
            listed = part.get(key)
            if isinstance(listed, list) and all(layer < len(listed) for layer in layers):
                part[key] = [listed[layer] for layer in layers]
        for key in _COUNTS:
            if isinstance(part.get(key), int):
                part[key] = len(layers)
    return stacked
