"""The form of a model's weights on disk, where it is not that of an ordinary checkpoint."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optmerge.errors import UsageError
from optmerge.models.shard import read_header

_KIND = re.compile(r"(?:^|[-_.])(f32|f16|bf16|q8_0)$", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """Weights that were made from a recipe's, for other programs.

    Attributes:
        name: `gguf`, for llama.cpp, or `int8`, for transformers with torchao.
        kind: How matrices are stored, such as `Q8_0`; empty if that is not known.
        files: The files, where a program must be told their names.
        likeness: What was found when they were held against the model, if that is known.
    """

    name: Literal["gguf", "int8"]
    kind: str = ""
    files: tuple[str, ...] = ()
    likeness: str = ""

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        if self.name == "gguf":
            return f"GGUF, {self.kind}" if self.kind else "GGUF"
        return "int8, torchao"


def form_at(place: Path) -> Form | None:
    """The form of the model in a folder, or in a file with weights; None where it is an ordinary checkpoint, or none.

    Raises:
        UsageError: If a safetensors file cannot be read.
    """
    if place.is_dir():
        return form_of(place)
    if place.suffix == ".gguf":
        return Form("gguf", _kind([place.name]), (place.name,))
    if place.suffix != ".safetensors":
        return None
    try:  # no ordinary checkpoint of ours has such entries
        return Form("int8") if any(entry.dtype == "I8" for entry in read_header(place).values()) else None
    except ValueError as error:
        raise UsageError(f"{place} {error}") from error


def form_of(folder: Path) -> Form | None:
    """The form of the model in a folder; None where it is an ordinary checkpoint, or none at all."""
    if not any(folder.glob("*.safetensors")):
        files = tuple(sorted(file.name for file in folder.glob("*.gguf")))
        return Form("gguf", _kind(files), files) if files else None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        method = config["quantization_config"]["quant_method"]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or nothing is said there
        return None
    return Form("int8") if method == "torchao" else None


def _kind(files: Sequence[str]) -> str:
    """How matrices are stored in GGUF files, by their names; empty if those do not say it, or say several."""
    kinds = {found[1].upper() for file in files if (found := _KIND.search(Path(file).stem))}
    return kinds.pop() if len(kinds) == 1 else ""
