"""A checkpoint of a Llama-like model as one GGUF file, tensor by tensor.

The gguf library knows the names and the layout of the file. What is said here is what llama.cpp's own converter,
`convert_hf_to_gguf.py`, which is no library, says about these families: which settings they have, and that the rows of
Llama's queries and keys are put into another order, as llama.cpp turns neighbours where transformers turns halves.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from optmerge.models import Checkpoint

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What transformers calls a family, and llama.cpp."""

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ROTARY = ("default", "linear", "llama3")


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse what this file cannot say.

    Args:
        config: A config.json.

    Raises:
        UsageError: In one line.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UsageError(f"format=gguf knows the families {', '.join(FAMILIES)}; the recipe's model is {family}")
    if config.get("hidden_act", "silu") != "silu":
        raise UsageError(f"format=gguf: llama.cpp's {family} has the activation silu, not {config['hidden_act']}")
    rotary = _rotary(config).get("rope_type", "default")
    if rotary not in _ROTARY:
        raise UsageError(
            f"format=gguf: rotary positions of type {rotary} are not known here, only {', '.join(_ROTARY)}"
        )


def sliding_window(config: Mapping[str, Any]) -> int | None:
    """How many tokens a layer looks back over, if not all; llama.cpp's families here know no such limit."""
    window = config.get("sliding_window")
    used = config.get("use_sliding_window", config.get("model_type") == "mistral")
    return window if used and window and window < config["max_position_embeddings"] else None


def write_gguf(
    path: Path,
    model: "Checkpoint",
    kind: str,
    vocabulary: Mapping[str, Any],
    texts: Mapping[str, str],
) -> int:
    """Write a model.

    Args:
        path: The file.
        model: An ordinary checkpoint of a family that `check_config` lets through.
        kind: How matrices are stored: `F32`, `F16`, `BF16` or `Q8_0`. Vectors are stored in float32, and matrices whose
            rows are no whole number of Q8_0's blocks in float16.
        vocabulary: What `gguf_vocabulary` says of the tokenizer.
        texts: Further metadata by key.

    Returns:
        How many matrices are stored in float16 because Q8_0 cannot hold them.

    Raises:
        UsageError: If a tensor has no name there.
    """
    import gguf
    import numpy as np

    config = model.config
    arch = FAMILIES[config["model_type"]]
    names = _names(model, arch)
    writer = gguf.GGUFWriter(path, arch)
    _add_settings(writer, config, kind)
    for key, value in vocabulary.items():
        getattr(writer, f"add_{key}")(value)
    for key, value in texts.items():
        writer.add_string(key, value)
    kinds = {name: _kind_of(model.shape(name), kind) for name in names}
    frequencies = _rotary_factors(config)
    if frequencies is not None:
        writer.add_tensor_info("rope_freqs.weight", frequencies.shape, frequencies.dtype, frequencies.nbytes)
    for name, theirs in names.items():
        quantization = gguf.GGMLQuantizationType[kinds[name]]
        shape = model.shape(name)
        block, size = gguf.GGML_QUANT_SIZES[quantization]
        nbytes = math.prod(shape) // block * size
        if kinds[name] in ("F32", "F16"):
            writer.add_tensor_info(theirs, shape, np.dtype(f"float{kinds[name][1:]}"), nbytes)
        else:
            rows = gguf.quant_shape_to_byte_shape(shape, quantization)
            writer.add_tensor_info(theirs, rows, np.dtype("uint8"), nbytes, raw_dtype=quantization)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if frequencies is not None:
            writer.write_tensor_data(frequencies)
        for data in _stored(model, names, kinds, arch):
            writer.write_tensor_data(data)
    finally:
        writer.close()
    return sum(stored != kind and len(model.shape(name)) > 1 for name, stored in kinds.items())


def _names(model: "Checkpoint", arch: str) -> dict[str, str]:
    """Names in the checkpoint to names in the file."""
    import gguf

    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    known = gguf.get_tensor_name_map(number, model.config["num_hidden_layers"])
    names: dict[str, str] = {}
    for name in model.names():
        theirs = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise UsageError(f"format=gguf: llama.cpp's {arch} has no tensor {name}")
        names[name] = theirs
    return names


def _kind_of(shape: tuple[int, ...], kind: str) -> str:
    import gguf

    if len(shape) == 1:
        return "F32"
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return kind if shape[-1] % block == 0 else "F16"


def _stored(
    model: "Checkpoint", names: Mapping[str, str], kinds: Mapping[str, str], arch: str
) -> "Iterator[np.ndarray[Any, Any]]":
    import gguf

    heads = model.config["num_attention_heads"]
    key_heads = model.config.get("num_key_value_heads") or heads
    for name in names:
        tensor = model.tensor(name).float()
        part = name.split(".")[-2]
        if arch == "llama" and part in ("q_proj", "k_proj"):
            tensor = neighbours_for_halves(tensor, heads if part == "q_proj" else key_heads)
        yield gguf.quantize(tensor.contiguous().numpy(), gguf.GGMLQuantizationType[kinds[name]])


def neighbours_for_halves(tensor: "Tensor", heads: int) -> "Tensor":
    """Reorder the rows of each head: row i of the first half, row i of the second, and so on for every i."""
    pairs = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of rotary positions, wherever a config keeps them."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    if "type" in found:  # how it was called once
        found.setdefault("rope_type", found["type"])
    return found


def _add_settings(writer: Any, config: Mapping[str, Any], kind: str) -> None:
    import gguf

    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rotary = _rotary(config)
    writer.add_type(gguf.GGUFType.MODEL)
    file_type = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(rotary["rope_theta"]))
    if rotary.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rotary["factor"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _rotary_factors(config: Mapping[str, Any]) -> "np.ndarray[Any, Any] | None":
    """By what Llama 3.1 divides each frequency; transformers is asked, so that it is said in one place only."""
    import numpy as np

    rotary = _rotary(config)
    if rotary.get("rope_type") != "llama3":
        return None
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    known = AutoConfig.for_model(**config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](known, None)
    head_dim = 2 * len(scaled)
    plain = float(rotary["rope_theta"]) ** -(np.arange(0, head_dim, 2) / head_dim)
    return np.asarray(plain / scaled.double().numpy(), dtype=np.float32)
