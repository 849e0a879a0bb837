"""From `pytorch_model.bin` to safetensors: explicitly, once, and without running what a pickle may hold."""

import pickle
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.errors import OptmergeError, UsageError
from optmerge.models.checkpoint import PICKLE, SAFETENSORS, Checkpoint, read_config, weight_files
from optmerge.models.resolve import resolve
from optmerge.models.shard import dtype_name
from optmerge.models.staging import staged
from optmerge.models.vocabulary import OUTPUT_HEADS
from optmerge.models.write import copy_companions, layout_bytes, write_json, write_weights

if TYPE_CHECKING:
    from torch import Tensor


def convert(location: str, out: Path, report: Callable[[int, int], None] | None = None) -> None:
    """Write the checkpoint at `location`, whose weights are pickled, as safetensors.

    Args:
        location: A folder, or a hub id, with pytorch_model.bin or pytorch_model.bin.index.json and its shards.
        out: The folder to write.
        report: Called after every tensor with the bytes written so far and in all.

    Raises:
        UsageError: If there is no such checkpoint, or a pickle holds anything but tensors.
        OptmergeError: If writing fails.
    """
    folder = resolve(location, None, weights=PICKLE)
    config = read_config(folder, location)
    if any((folder / name).is_file() for name in (SAFETENSORS, f"{SAFETENSORS}.index.json")):
        raise UsageError(f"{location}: {folder} has safetensors weights: there is nothing to convert")
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder, location, PICKLE):
        tensors.update(load_pickle(file, location))
    tensors = _without_tied_heads(tensors, config)
    layout = {name: (dtype_name(t.dtype), tuple(t.shape)) for name, t in tensors.items()}
    with staged(out, nbytes=layout_bytes(layout), replace=False) as staging:
        copy_companions(folder, staging)
        write_json(staging / "config.json", config)
        write_weights(staging, _sorted(tensors), layout, report=report)
        written = Checkpoint.open(staging, location)
        if {name: written.shape(name) for name in written.names()} != {n: shape for n, (_, shape) in layout.items()}:
            raise OptmergeError(f"{location}: the converted checkpoint does not read back as it was written")


def load_pickle(path: Path, alias: str) -> "dict[str, Tensor]":
    """The tensors of a pickle, mapped from it where its format allows, and nothing that could run.

    Raises:
        UsageError: If it holds anything but a flat dictionary of tensors.
    """
    import torch

    try:
        # The format before torch 1.6 is no zip file and cannot be mapped.
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        # The library's message runs over many lines and recommends to trust the file.
        raise UsageError(f"{alias}: {path} is damaged or holds more than tensors, and is not loaded") from error
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{alias}: {path} is not a dictionary of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise UsageError(f"{alias}: {path} holds {name!r}, which is not a tensor: only weights are converted")
    return found


def _without_tied_heads(tensors: "Mapping[str, Tensor]", config: Mapping[str, Any]) -> "dict[str, Tensor]":
    """Drop an output head that shares its memory with the embedding, if the config says that they are tied."""
    places = Counter((t.data_ptr(), t.shape) for t in tensors.values())
    shared = {name for name, t in tensors.items() if places[t.data_ptr(), t.shape] > 1}
    drop = {name for name in shared if name.endswith(OUTPUT_HEADS)} if shared and _is_tied(config) else set()
    return {name: t for name, t in tensors.items() if name not in drop}


def _is_tied(config: Mapping[str, Any]) -> bool:
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    from transformers import AutoConfig

    try:
        # A config leaves out what is the default of its architecture.
        return bool(AutoConfig.for_model(**config).tie_word_embeddings)
    except (TypeError, ValueError, AttributeError):
        return False  # unknown architecture: then both are written, which is right, if larger


def _sorted(tensors: "Mapping[str, Tensor]") -> "Iterator[tuple[str, Tensor]]":
    for name in sorted(tensors):
        yield name, tensors[name]
