"""Checkpoints in the form of the published data-flow models (`model_type: evomistral`), read as what they hold.

Such a checkpoint stores every layer once, and beside the layers a path over them: `model.input_layers`, the layer of
each hop, and `model.input_scales`, what each hop's input is scaled by. The layers are those of an ordinary Mistral
model of as many layers, which is how the checkpoint is opened here; the path is read apart.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from optmerge.errors import UsageError

MODEL_TYPE = "evomistral"
LAYERS, SCALES = "model.input_layers", "model.input_scales"

_Entry = TypeVar("_Entry")


def is_evomistral(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of that form."""
    return config.get("model_type") == MODEL_TYPE


def as_mistral(config: Mapping[str, Any], entries: Mapping[str, _Entry]) -> tuple[dict[str, Any], dict[str, _Entry]]:
    """The config.json and the tensors of the layers alone, as an ordinary model's."""
    from optmerge.models.layers import depth

    kept = {name: entry for name, entry in entries.items() if name not in (LAYERS, SCALES)}
    dropped = ("num_hops", "auto_map", "model_type", "architectures", "num_hidden_layers")
    plain = {key: value for key, value in config.items() if key not in dropped}
    plain |= {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "num_hidden_layers": depth(list(kept)),
        "use_cache": True,
    }
    return plain, kept


def read_path(folder: Path, alias: str) -> list[tuple[int, float]]:
    """The path of such a checkpoint: layer and scale of every hop.

    Raises:
        UsageError: If the folder holds none.
    """
    from optmerge.models.checkpoint import read_config, read_entries, weight_files
    from optmerge.models.shard import map_tensor

    if not is_evomistral(read_config(folder, alias)):
        raise UsageError(f"{alias}: {folder} is no checkpoint of model_type {MODEL_TYPE}")
    entries = read_entries(weight_files(folder, alias), alias)
    for name in (LAYERS, SCALES):
        if name not in entries:
            raise UsageError(f"{alias}: {folder} lacks the tensor {name}, which holds its path")
    layers, scales = (map_tensor(*entries[name]).flatten().tolist() for name in (LAYERS, SCALES))
    if len(layers) != len(scales):
        raise UsageError(f"{alias}: {folder} has {len(layers)} hops and {len(scales)} scales")
    return [(int(layer), float(scale)) for layer, scale in zip(layers, scales, strict=True)]
