"""Write checkpoints: streamed tensor by tensor, whole or not at all."""

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.models.checkpoint import SAFETENSORS, Checkpoint
from optmerge.models.hashing import WeightsHash, tensor_bytes
from optmerge.models.shard import ITEM_BYTES, dtype_name, lay_out
from optmerge.models.staging import staged
from optmerge.models.vocabulary import TOKENIZER_FILES, is_token_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from optmerge.models.companions import Companions

MAX_SHARD_BYTES = 5_000_000_000
_NO_HASH = "0" * 64  # stands for the hash of the weights until they are written
# transformers refuses to save a model whose generation config has these without do_sample.
SAMPLING_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

Metadata = Callable[[str], Mapping[str, str]]
"""Told the hash of the weights, what a safetensors file is to say of itself; as long for one hash as for another."""
Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""dtype (as safetensors calls it) and shape of every tensor of a checkpoint."""


def write_checkpoint(
    folder: Path,
    tensors: "Iterable[tuple[str, Tensor]]",
    *,
    like: "Checkpoint | Companions",
    shapes: Mapping[str, tuple[int, ...]],
    dtype: "torch.dtype",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    replace: bool = False,
    companions: Callable[[str], Mapping[str, str]] | None = None,
    metadata: Metadata | None = None,
    report: Callable[[int, int], None] | None = None,
) -> str:
    """Write a model that plain `AutoModelForCausalLM.from_pretrained(folder)` loads.

    The folder appears when it is complete; until then the files are in a folder beside it, which is removed if
    anything fails.

    Args:
        folder: Where to.
        tensors: Names and tensors, sorted by name, all of `dtype`; one at a time is in memory.
        like: Gives config, generation config and tokenizer.
        shapes: The shape of every tensor that will come.
        dtype: Of all of them.
        max_shard_bytes: A file grows no larger, unless one tensor does.
        replace: Whether a folder that is there may be replaced, with all that is in it.
        companions: Told the hash of the weights, gives the text files to write beside them, by name.
        metadata: What every safetensors file says of itself.
        report: Called after every tensor with the bytes written so far and in all.

    Returns:
        The hash of the weights, as `weights_sha256` gives it.

    Raises:
        UsageError: If the folder is there and not empty, or the disk has no room.
        OptmergeError: If writing fails.
        ValueError: If the tensors are not those announced.
    """
    layout = {name: (dtype_name(dtype), tuple(shape)) for name, shape in shapes.items()}
    with staged(folder, nbytes=layout_bytes(layout), replace=replace) as staging:
        weights_sha256 = fill_folder(staging, tensors, like, layout, dtype, max_shard_bytes, report, metadata)
        for name, text in (companions(weights_sha256) if companions else {}).items():
            (staging / name).write_text(text, encoding="utf-8")
        return weights_sha256


def fill_folder(
    folder: Path,
    tensors: "Iterable[tuple[str, Tensor]]",
    like: "Checkpoint | Companions",
    layout: Layout,
    dtype: "torch.dtype",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    report: Callable[[int, int], None] | None = None,
    metadata: Metadata | None = None,
) -> str:
    """Write a model into a folder that is there; the arguments are those of `write_checkpoint` and `write_weights`."""
    copy_companions(like.folder, folder)
    write_json(folder / "config.json", _merged_config(like.config, layout, str(dtype).removeprefix("torch.")))
    return write_weights(folder, tensors, layout, max_shard_bytes, report, metadata)


def write_weights(
    folder: Path,
    tensors: "Iterable[tuple[str, Tensor]]",
    layout: Layout,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    report: Callable[[int, int], None] | None = None,
    metadata: Metadata | None = None,
) -> str:
    """Stream tensors into safetensors files, with an index if they are several.

    Args:
        folder: Where to; it is there.
        tensors: Names and tensors, sorted by name.
        layout: What will come.
        max_shard_bytes: A file grows no larger, unless one tensor does.
        report: Called after every tensor with the bytes written so far and in all.
        metadata: What every file says of itself.

    Returns:
        The hash of the weights.

    Raises:
        ValueError: If the tensors are not those announced.
    """
    shards = _shards(layout, max_shard_bytes)
    total = layout_bytes(layout)
    weight_map = {name: file for file, names in shards.items() for name in names}
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / f"{SAFETENSORS}.index.json", index)
    done, hashed, coming = 0, WeightsHash(), _as_announced(tensors, layout)
    for file_name, names in shards.items():
        header, places = lay_out({name: layout[name] for name in names}, metadata and metadata(_NO_HASH))
        with (folder / file_name).open("wb") as file:
            file.write(header)
            for name, tensor in islice(coming, len(names)):
                hashed.update(name, tensor)
                file.seek(places[name].start)
                file.write(tensor_bytes(tensor))
                done += tensor.nbytes
                if report:
                    report(done, total)
            file.flush()
            os.fsync(file.fileno())  # the rename that follows must not outlive the data on a power cut
    next(coming, None)  # the check that nothing is left
    weights_sha256 = hashed.hexdigest()
    if metadata:  # which may name the hash, and it is known only now
        for file_name, names in shards.items():
            _rewrite_header(folder / file_name, {name: layout[name] for name in names}, metadata, weights_sha256)
    return weights_sha256


def _rewrite_header(path: Path, layout: Layout, metadata: Metadata, weights_sha256: str) -> None:
    before, after = (lay_out(layout, metadata(sha256))[0] for sha256 in (_NO_HASH, weights_sha256))
    if len(after) != len(before):
        raise ValueError(f"the metadata of {path.name} is longer for one hash than for another")
    with path.open("r+b") as file:
        file.write(after)
        file.flush()
        os.fsync(file.fileno())


def copy_companions(source: Path, target: Path) -> None:
    """Copy the tokenizer and the generation config, the latter free of what keeps transformers from saving it."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / "generation_config.json").is_file():
        generation = json.loads((source / "generation_config.json").read_bytes())
        if not generation.get("do_sample"):
            generation = {key: value for key, value in generation.items() if key not in SAMPLING_OPTIONS}
        write_json(target / "generation_config.json", generation)


def layout_bytes(layout: Layout) -> int:
    """The size of all tensors together."""
    return sum(math.prod(shape) * ITEM_BYTES[dtype] for dtype, shape in layout.values())


def write_json(path: Path, value: object) -> None:
    """Write JSON as transformers does."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_announced(tensors: "Iterable[tuple[str, Tensor]]", layout: Layout) -> "Iterator[tuple[str, Tensor]]":
    coming = iter(tensors)
    for expected in sorted(layout):
        name, tensor = next(coming, (None, None))
        if name is None or tensor is None:
            raise ValueError(f"the tensors ended before {expected}")
        if name != expected or (dtype_name(tensor.dtype), tuple(tensor.shape)) != layout[name]:
            raise ValueError(f"expected {expected} {layout[expected]}, not {name} {tensor.dtype} {list(tensor.shape)}")
        yield name, tensor
    for name, _ in coming:
        raise ValueError(f"{name} was not announced")


def _merged_config(config: Mapping[str, Any], layout: Layout, dtype: str) -> dict[str, Any]:
    merged = copy.deepcopy(dict(config))
    merged.pop("_name_or_path", None)
    for part in _parts(merged):
        for key in ("dtype", "torch_dtype"):  # the second is what transformers 4 reads
            if key in part:
                part[key] = dtype
    if "torch_dtype" not in merged:
        merged["dtype"] = dtype
    rows = [shape[0] for name, (_, shape) in layout.items() if is_token_tensor(name)]
    return with_rows(merged, rows[0]) if rows else merged


def with_rows(config: dict[str, Any], rows: int) -> dict[str, Any]:
    """A config, changed in place, that says how many rows the embeddings have, also where it nests that."""
    for part in _parts(config):
        if "vocab_size" in part:
            part["vocab_size"] = rows
    return config


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    nested = config.get("text_config")
    return [config, nested] if isinstance(nested, dict) else [config]


def _shards(layout: Layout, max_shard_bytes: int) -> dict[str, list[str]]:
    """Which tensors go to which file, both in the order of the tensors' names."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name in sorted(layout):
        size = layout_bytes({name: layout[name]})
        if groups[-1] and filled + size > max_shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {SAFETENSORS: groups[0]}
    return {f"model-{n:05}-of-{len(groups):05}.safetensors": group for n, group in enumerate(groups, start=1)}
