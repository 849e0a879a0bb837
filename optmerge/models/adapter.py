"""LoRA adapters in PEFT's form, each as the checkpoint that its base becomes when it is merged in."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from optmerge.errors import UsageError
from optmerge.models.adapter_config import (
    ADAPTER_CONFIG,
    FACTOR,
    PREFIX,
    open_weights,
    rank_and_alpha,
    refuse_inexact,
    scalings_of,
)
from optmerge.models.checkpoint import Checkpoint
from optmerge.models.shard import ITEM_BYTES, dtype_name
from optmerge.models.vocabulary import INPUT_EMBEDDINGS, OUTPUT_HEADS, has_tokenizer, is_token_tensor, redundant_heads

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Their layers are Conv1D, which stores (in, out). PEFT goes by the layer, whatever fan_in_fan_out says.
_CONV1D_TYPES = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")


@dataclass(frozen=True)
class _Change:
    """What becomes of one tensor of the base; keys are names in the adapter's file.

    Attributes:
        whole: The tensor that replaces it, if one does.
        up: Factor B, or the bias beside it, if something is added.
        down: Factor A.
        scaling: What is added is multiplied by this.
        transposed: Whether the product of the factors is added transposed.
    """

    whole: str | None = None
    up: str | None = None
    down: str | None = None
    scaling: float = 1.0
    transposed: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter(Checkpoint):
    """A base with a LoRA adapter merged in, computed tensor by tensor when asked for; nothing is kept.

    A tensor that the adapter leaves alone is the base's: mapped, in the type it is stored in. One that it replaces is
    the adapter's. One that it adds to is computed in float32, in PEFT's order of operations:

        W + (B @ A) * scaling

    so that over a float32 base it equals what `merge_and_unload()` gives, bit for bit. `folder` is the adapter's where
    that has a tokenizer, else the base's; `config` is the base's.

    Attributes:
        base: What it lies over.
        weights: The adapter's own tensors, with adapter_config.json as their configuration.
        scalings: Factor of each module that has LoRA factors, by its name.
    """

    base: Checkpoint
    weights: Checkpoint
    scalings: Mapping[str, float]
    _changes: Mapping[str, _Change] = field(repr=False)

    @classmethod
    def over(cls, base: Checkpoint, folder: Path, alias: str) -> "Adapter":
        """Read the header of an adapter in a local folder, and check that it lies over that base exactly.

        Args:
            base: A whole checkpoint.
            folder: Holds adapter_config.json and adapter_model.safetensors.
            alias: What people call it, for the messages.

        Raises:
            UsageError: If something is missing or damaged, does not fit the base, or cannot be merged into it exactly.
        """
        weights = open_weights(folder, alias)
        refuse_inexact(weights)
        dropped = redundant_heads(base)  # a copy of the tied embedding, which would not follow the embedding's changes
        entries = {name: place for name, place in base._entries.items() if name not in dropped}
        scalings = scalings_of(weights)
        changes = _changes_of(weights, base, set(entries), scalings)
        return cls(
            alias=alias,
            folder=folder if has_tokenizer(folder) else base.folder,
            config=base.config,
            files=(*base.files, *weights.files),
            _entries=entries,
            _handles=base._handles,
            kept=base.kept,
            base=base,
            weights=weights,
            scalings=scalings,
            _changes=changes,
        )

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes, as `tensor` gives them."""
        return sum(math.prod(self.shape(name)) * ITEM_BYTES[dtype_name(self.dtype(name))] for name in self.names())

    def dtype(self, name: str) -> "torch.dtype":
        """The dtype of a tensor, without computing it."""
        import torch

        change = self._changes.get(name)
        if change is None:
            return super().dtype(name)
        return torch.float32 if change.whole is None or change.up is not None else self.weights.dtype(change.whole)

    def tensor(self, name: str) -> "Tensor":
        """A tensor on the CPU: mapped from its file, or computed anew on every call."""
        import torch

        change = self._changes.get(name)
        if change is None:
            return super().tensor(name)
        weight = super().tensor(name) if change.whole is None else self.weights.tensor(change.whole)
        if change.up is None:
            return weight
        # Copies, as PEFT has them: products of mapped, and so oddly aligned, memory may round otherwise.
        added = self.weights.tensor(change.up).to(torch.float32, copy=True)
        if change.down is not None:
            added = _product(added, self.weights.tensor(change.down).to(torch.float32, copy=True))
        if change.transposed:
            added = added.T
        return (weight.float() + added * change.scaling).contiguous()

    def identity(self, tensors_sha256: str) -> str:
        r"""The hash that stands for this adapter in recipes; what it lies over has its own.

        SHA-256 over the line `{"scalings":{"MODULE":NUMBER},"weights_sha256":"..."}` (JSON, ASCII, keys sorted, no
        spaces, no `\n`). The scalings are all that adapter_config.json decides here: how ranks, alphas and their
        patterns are spelled makes no difference, and neither do settings of the training.

        Args:
            tensors_sha256: `weights_sha256` of the tensors in the adapter's file.
        """
        content = {"scalings": dict(self.scalings), "weights_sha256": tensors_sha256}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def notice(self, location: str) -> str | None:
        """A line for people if the adapter says that it was trained over another model; None if it does not.

        Args:
            location: Folder or hub id of the base.
        """
        trained_over = self.weights.config.get("base_model_name_or_path")
        if not isinstance(trained_over, str) or not trained_over or _last(trained_over) == _last(location):
            return None
        return (
            f"{self.alias} says that it was trained over {trained_over}, and lies over {self.base.alias} ({location}): "
            "if that is another model, so is what it becomes"
        )


def _product(a: "Tensor", b: "Tensor") -> "Tensor":
    """The matrix product, on one thread: on several, libraries split some shapes so that sums round otherwise."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return a @ b
    finally:
        torch.set_num_threads(threads)


def open_checkpoints(
    folders: Mapping[str, Path], over: Mapping[str, str | None], *, base: str | None = None, kept: bool = True
) -> dict[str, Checkpoint]:
    """Open checkpoints, and adapters over them.

    Args:
        folders: Alias to local folder; one with adapter_config.json is an adapter.
        over: Alias to the alias of the checkpoint that it lies over, for adapters for which somebody said it.
        base: Alias of the checkpoint that other adapters lie over.
        kept: Whether files are to stay mapped.

    Returns:
        What was opened by alias, in the order of `folders`.

    Raises:
        UsageError: If one cannot be opened, or there is no whole checkpoint for an adapter to lie over.
    """
    adapters = {alias for alias, folder in folders.items() if (folder / ADAPTER_CONFIG).is_file()}
    opened = {alias: Checkpoint.open(folder, alias, kept) for alias, folder in folders.items() if alias not in adapters}
    for alias in sorted(opened):
        if over.get(alias) is not None:
            raise UsageError(f"{alias} is a whole checkpoint, and cannot lie over {over[alias]}: only adapters do")
    for alias in sorted(adapters):
        below = over.get(alias) or base
        if below is None or (below == alias and over.get(alias) is None):
            raise UsageError(f"{alias} is an adapter: say which source it lies over with models.sources.{alias}.over")
        if below in adapters:
            raise UsageError(f"{alias} cannot lie over {below}, which is an adapter itself: name a whole checkpoint")
        opened[alias] = Adapter.over(opened[below], folders[alias], alias)
    return {alias: opened[alias] for alias in folders}


def _changes_of(
    weights: Checkpoint, base: Checkpoint, names: set[str], scalings: Mapping[str, float]
) -> dict[str, _Change]:
    """What the adapter does to each tensor of the base that it touches.

    Raises:
        UsageError: If one of its tensors has no place in the base, or another shape than the place has.
    """
    whole: dict[str, str] = {}
    factors: dict[str, dict[str, str]] = {}
    for key in weights.names():
        match = FACTOR.fullmatch(key.removeprefix(PREFIX))
        if match:
            factors.setdefault(match["module"], {})[match["factor"]] = key
        elif "lora_" in key or "trainable_tokens" in key:
            raise UsageError(f"{weights.alias}: {weights.folder} cannot be merged exactly, because it holds {key}")
        else:  # of modules_to_save, or what a layer under LoRA factors was when they were saved
            whole[key.removeprefix(PREFIX).replace(".base_layer.", ".")] = key
    _check_tied(weights, base, names, whole, set(factors))
    changes: dict[str, _Change] = {}
    for module, keys in factors.items():
        changes |= _module_changes(module, keys, weights, base, names, scalings[module])
    for name, key in whole.items():
        place = _place(name, names, weights, base)
        _check_whole(weights, key, base, place)
        changes[place] = replace(changes.get(place, _Change()), whole=key)
    return changes


def _module_changes(
    module: str, keys: Mapping[str, str], weights: Checkpoint, base: Checkpoint, names: set[str], scaling: float
) -> dict[str, _Change]:
    name = _place(f"{module}.weight", names, weights, base)
    embedding = "lora_embedding_A" in keys or "lora_embedding_B" in keys
    kinds = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    for kind in kinds:
        if kind not in keys:
            raise UsageError(f"{weights.alias}: {weights.folder} has factors of {module}, and lacks {kind}")
    strange = set(keys) - {*kinds, "lora_B.bias"}
    if strange:
        raise UsageError(f"{weights.alias}: {weights.folder} has factors of two kinds for {module}: {min(strange)}")
    down, up = (keys[kind] for kind in kinds)
    shape, rank = base.shape(name), rank_and_alpha(weights.config, module)[0]
    if len(shape) != 2:
        raise UsageError(f"{weights.alias}: {name} of {base.alias} has {len(shape)} dimensions, LoRA factors need 2")
    transposed = embedding or _stores_in_out(weights, base, shape, (down, up))
    rows, columns = reversed(shape) if transposed else shape
    for key, wanted in ((down, (rank, columns)), (up, (rows, rank))):
        if weights.shape(key) != wanted:
            raise UsageError(
                f"{weights.alias} does not fit {base.alias}: {key} is {list(weights.shape(key))}, where {name}, which "
                f"is {list(shape)}, and the rank of {rank} in {ADAPTER_CONFIG} need {list(wanted)}"
            )
    changes = {name: _Change(up=up, down=down, scaling=scaling, transposed=transposed)}
    bias = keys.get("lora_B.bias")
    if bias is not None:
        place = _place(f"{module}.bias", names, weights, base)
        _check_whole(weights, bias, base, place)
        changes[place] = _Change(up=bias, scaling=scaling)
    return changes


def _stores_in_out(weights: Checkpoint, base: Checkpoint, shape: tuple[int, ...], factors: tuple[str, str]) -> bool:
    """Whether a layer's weight is (in, out), as Conv1D has it; where both fit, the kind of model tells."""
    down, up = (weights.shape(key) for key in factors)
    if shape[0] == shape[1]:
        return base.config.get("model_type") in _CONV1D_TYPES
    return (down[-1:], up[:1]) == (shape[:1], shape[1:])


def _place(name: str, names: set[str], weights: Checkpoint, base: Checkpoint) -> str:
    """The base's name of a tensor; some files, such as gpt2's, leave the model's own prefix out."""
    for known in (name, name.partition(".")[2]):
        if known in names:
            return known
    raise UsageError(f"{weights.alias} does not fit {base.alias}, which has no tensor {name}")


def _check_whole(weights: Checkpoint, key: str, base: Checkpoint, name: str) -> None:
    have, want = weights.shape(key), base.shape(name)
    if have == want:
        return
    resized = is_token_tensor(name) and have[1:] == want[1:]
    hint = "; its vocabulary was resized: let it lie over a base that was resized alike" if resized else ""
    raise UsageError(f"{weights.alias} does not fit {base.alias}: {key} is {list(have)}, and {name} {list(want)}{hint}")


def _check_tied(
    weights: Checkpoint, base: Checkpoint, names: set[str], whole: dict[str, str], modules: set[str]
) -> None:
    """Refuse what would untie an output head from the input embedding; drop a head that still is the embedding.

    PEFT computes an adapter on tied embeddings in one place of the two, and merges it into both: another model than
    the one that was trained. Whole embeddings are the same in both where the file holds both alike, or where training
    left the two tied.
    """
    import torch

    weight_heads = tuple(head for head in OUTPUT_HEADS if head.endswith(".weight"))
    if any(name.endswith(weight_heads) for name in names):
        return
    ends = tuple(name.removesuffix(".weight") for name in (*weight_heads, *INPUT_EMBEDDINGS))
    untying = sorted(module for module in modules if module.endswith(ends))
    heads = [name for name in whole if name.endswith(weight_heads)]
    embeddings = [name for name in whole if name.endswith(INPUT_EMBEDDINGS)]
    alike = [(weights.tensor(whole[head]), weights.tensor(whole[name])) for head in heads for name in embeddings]
    if alike and all(torch.equal(*pair) for pair in alike):
        for head in heads:
            del whole[head]
    else:
        saved = weights.config.get("modules_to_save")
        trained_apart = tuple(str(module) for module in saved) if isinstance(saved, list) else ()
        untying += heads
        untying += [name for name in embeddings if name.removesuffix(".weight").endswith(trained_apart)]
    if untying:
        raise UsageError(
            f"{weights.alias} cannot be merged exactly: {base.alias} has its output head tied to the input embedding, "
            f"and training {untying[0]} took them apart"
        )


def _last(location: str) -> str:
    return PurePosixPath(location).name.lower()
