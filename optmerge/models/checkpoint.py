"""A checkpoint in a local folder, opened without reading its weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.errors import UsageError
from optmerge.models.evomistral import as_mistral, is_evomistral
from optmerge.models.shard import Entry, map_tensor, read_header, torch_dtype

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose headers were read and whose tensors are read when asked for.

    Attributes:
        alias: What the configuration calls it.
        folder: Where it lies.
        config: Its config.json.
        files: Its safetensors files, sorted.
        kept: Whether files stay mapped as a whole, so that what was read once is there again; otherwise each tensor is
            mapped by itself, and what was read of it leaves the memory with it.
        nbytes: Size of all its tensors in bytes.
    """

    alias: str
    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    _entries: Mapping[str, tuple[Path, Entry]] = field(repr=False)
    _handles: dict[Path, Any] = field(default_factory=dict, repr=False)
    kept: bool = True

    @classmethod
    def open(cls, folder: Path, alias: str, kept: bool = True) -> "Checkpoint":
        """Read the headers of a checkpoint in a local folder.

        Args:
            folder: Holds config.json and model.safetensors, or model.safetensors.index.json and the shards it names.
            alias: What people call this checkpoint, for the messages.
            kept: Whether its files are to stay mapped.

        Raises:
            UsageError: If something is missing, damaged, or not in safetensors form.
        """
        config = read_config(folder, alias)
        files = weight_files(folder, alias)
        entries = read_entries(files, alias)
        for name, shard in _weight_map(folder / f"{SAFETENSORS}.index.json", alias).items():
            if (folder / shard) in files and name not in entries:
                raise UsageError(f"{alias}: {folder / shard} lacks {name}, which the index names")
        if is_evomistral(config):
            config, entries = as_mistral(config, entries)
        return cls(alias, folder, config, tuple(files), entries, kept=kept)

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(entry.nbytes for _, entry in self._entries.values())

    def names(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._entries[name][1].shape

    def dtype(self, name: str) -> "torch.dtype":
        """The dtype of a tensor, without reading it."""
        return torch_dtype(self._entries[name][1].dtype)

    def tensor(self, name: str) -> "Tensor":
        """A tensor on the CPU, mapped from its file: pages are read when they are used.

        Treat it as read-only: it is the file's own memory.
        """
        from safetensors import safe_open

        file, entry = self._entries[name]
        if not self.kept:
            return map_tensor(file, entry)
        if file not in self._handles:
            self._handles[file] = safe_open(file, framework="pt")
        found: Tensor = self._handles[file].get_tensor(name)
        return found


def read_config(folder: Path, alias: str) -> dict[str, Any]:
    """The config.json of a checkpoint.

    Raises:
        UsageError: If the folder or the file is missing, or is not a JSON object.
    """
    if not folder.is_dir():
        raise UsageError(f"{alias}: there is no folder {folder}")
    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"{alias}: {folder} has no config.json: it is not a checkpoint in Hugging Face form")
    return read_object(path, alias)


def read_entries(files: Sequence[Path], alias: str) -> dict[str, tuple[Path, Entry]]:
    """Where the tensors that some files hold lie, by name.

    Raises:
        UsageError: If a file is damaged, or two hold a tensor of the same name.
    """
    entries: dict[str, tuple[Path, Entry]] = {}
    for file in files:
        try:
            header = read_header(file)
        except ValueError as error:
            raise UsageError(f"{alias}: {file} {error}") from error
        for name, entry in header.items():
            if name in entries:
                raise UsageError(f"{alias}: {name} is in two files, {entries[name][0]} and {file}")
            entries[name] = (file, entry)
    return entries


def weight_files(folder: Path, alias: str, name: str = SAFETENSORS) -> list[Path]:
    """The files that hold a checkpoint's weights, sorted; all of them exist.

    Args:
        folder: The checkpoint.
        alias: What people call it.
        name: The file that holds them all if they are not in shards.

    Raises:
        UsageError: If there are none of that kind, or the index names a file that is not there.
    """
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    shards = sorted(set(_weight_map(index, alias).values()))
    for shard in shards:
        if not (folder / shard).is_file():
            raise UsageError(f"{alias}: {index} names {shard}, which is not in {folder}")
    if shards:
        return [folder / shard for shard in shards]
    if name == SAFETENSORS and any(folder.glob("*.bin")):
        raise UsageError(
            f"{alias}: {folder} has only .bin weights: convert it first with `python -m optmerge convert {folder} OUT`"
        )
    raise UsageError(f"{alias}: {folder} has neither {name} nor {index.name}")


def read_object(path: Path, alias: str) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UsageError: If it holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{alias}: {path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{alias}: {path} is not a JSON object")
    return found


def _weight_map(index: Path, alias: str) -> dict[str, str]:
    """Which file the index says each tensor is in; empty if there is no index."""
    if not index.is_file():
        return {}
    found = read_object(index, alias).get("weight_map")
    # Plain file names only: an index must not lead out of its folder.
    if not isinstance(found, dict) or any(not isinstance(f, str) or Path(f).name != f for f in found.values()):
        raise UsageError(f"{alias}: {index} is not an index of weight files")
    return found
