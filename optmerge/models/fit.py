"""Do checkpoints fit together to be merged, and what will the merged model look like?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optmerge.errors import OptmergeError, UsageError
from optmerge.models.alignment import Alignment, Known, Vocabulary, align, merge_vocabularies
from optmerge.models.checkpoint import Checkpoint
from optmerge.models.layers import depth, layer_of, renamed
from optmerge.models.vocabulary import (
    OUTPUT_HEADS,
    has_token_rows,
    is_token_tensor,
    redundant_heads,
    tokens,
    vocabulary_size,
)
from optmerge.recipe import UNION
from optmerge.registered import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

# The same shapes can hide differences in these, and then the entries of two tensors mean different things.
LAYOUT = ("num_attention_heads", "num_key_value_heads", "head_dim")
# These can differ and the weights still average; the merged model has those of the tokenizer's checkpoint.
BEHAVIOUR = ("rope_theta", "rope_scaling", "sliding_window", "rms_norm_eps", "hidden_act", "tie_word_embeddings")


@dataclass(frozen=True)
class Fit:
    """What merging some checkpoints gives.

    Attributes:
        names: The merged model's tensors, sorted.
        shapes: The shape of each.
        notices: What people should know although it is no error, one line each.
        vocabulary: The merged model's tokens.
        sources: What was fitted together, by alias.
        alignment: How rows are matched by token; None where every source has them in the merged model's order.
    """

    names: list[str]
    shapes: dict[str, tuple[int, ...]]
    notices: list[str]
    vocabulary: Vocabulary
    sources: Mapping[str, Checkpoint] = field(repr=False)
    alignment: Alignment | None = field(default=None, repr=False)

    @property
    def parameters(self) -> int:
        """How many numbers the merged model has."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def tensor(self, checkpoint: Checkpoint, name: str) -> "Tensor":
        """A source's tensor with the rows of the merged model's tokens, in their order.

        Args:
            checkpoint: One of the sources.
            name: One of the merged model's tensors.

        Returns:
            A tensor of the shape `shapes[name]`: mapped from the file, whole or cut, unless its rows had to be moved
            or filled, see `optmerge.models.alignment`. Treat it as read-only.
        """
        if self.alignment is not None and name in self.alignment.names:
            return self.alignment.tensor(checkpoint, name)
        tensor, shape = checkpoint.tensor(name), self.shapes[name]
        return tensor if tuple(tensor.shape) == shape else tensor[: shape[0]]


def check_fit(
    sources: Mapping[str, Checkpoint],
    *,
    base: str | None,
    tokenizer: str,
    pad_vocabulary_to: int | None = None,
    same_depth: bool = True,
) -> Fit:
    """Check that checkpoints can be merged tensor by tensor, or that a path can lead over their layers.

    Reads no weights, except where a file may hold a tied output head twice.

    Args:
        sources: Every checkpoint that takes part, the base included, by alias.
        base: Alias of the checkpoint that task vectors are measured from, if there is one; its rows stand in for those
            that a source lacks.
        tokenizer: Alias of the checkpoint that gives tokenizer, config and vocabulary; or `union`: the base, or the
            first alias if there is none, gives them and takes in the tokens of the others.
        pad_vocabulary_to: Vocabulary rows are rounded up to a multiple of this.
        same_depth: Whether all must have as many layers; otherwise the names are those of the deepest.

    Raises:
        UsageError: Naming the two checkpoints that do not fit, and how they differ.
    """
    union = tokenizer == UNION
    if union and UNION in sources:
        raise UsageError(f"a source is called {UNION!r}, the word for the vocabulary of all: call it something else")
    for role, alias in (("base", base), ("tokenizer", None if union else tokenizer)):
        if alias is not None and alias not in sources:
            hint = did_you_mean(alias, list(sources))
            raise UsageError(f"{role} {alias!r} is none of the sources{hint}; these are {', '.join(sorted(sources))}")
    giver = (base or min(sources)) if union else tokenizer
    chosen = sources[giver]
    others = [sources[alias] for alias in sorted(sources) if alias != giver]
    notices: list[str] = []
    for checkpoint in [chosen, *others]:
        if checkpoint.config.get("quantization_config"):
            raise UsageError(f"{checkpoint.alias}: {checkpoint.folder} is quantized: use the original weights")
    names = _merged_names(chosen)
    if not same_depth:
        names = _deepened(names, others)
    for other in others:
        _check_config(chosen, other)
        shared = names if same_depth else _within(names, depth(other.names()))
        _check_names(shared, chosen, other)
        _check_shapes(shared, chosen, other)
        notices += _behaviour_notices(chosen, other)
    known, assumed = _known(names, chosen, others, base)
    vocabulary = merge_vocabularies(known, giver=giver, union=union, pad_to=pad_vocabulary_to)
    token_tensors = frozenset(name for name in names if has_token_rows(chosen, name))
    alignment = align(sources, known, vocabulary, names=token_tensors, base=base)
    if alignment is None:
        notices += [note for other in others if (note := _cut_notice(known, vocabulary, chosen, other))]
    else:
        _check_countable(names, [chosen, *others])
        notices.append(alignment.notice(vocabulary))
    shapes = {name: _shape(chosen, name) for name in names}
    shapes |= {name: (vocabulary.rows, *shapes[name][1:]) for name in token_tensors}
    notices += assumed + _token_notices(known, vocabulary)
    return Fit(names, shapes, notices, vocabulary, dict(sources), alignment)


def check_complete(names: Sequence[str], live: "Mapping[str, Tensor]") -> None:
    """Check that tensors are all those of a live model, of which tied ones share their memory.

    Raises:
        OptmergeError: Naming one that the model does not have, or lacks.
    """
    for name in names:
        if name not in live:
            raise OptmergeError(f"the model has no tensor {name}")
    filled = {live[name].data_ptr() for name in names}
    for name, tensor in live.items():
        if tensor.data_ptr() not in filled:
            raise OptmergeError(f"the candidate has no tensor {name}")


def _merged_names(checkpoint: Checkpoint) -> list[str]:
    """The tensors that count: no copies of tied ones, and no rotary frequencies, which loading computes."""
    dropped = redundant_heads(checkpoint)
    return [n for n in checkpoint.names() if n not in dropped and not n.endswith("rotary_emb.inv_freq")]


def _deepened(names: list[str], others: Sequence[Checkpoint]) -> list[str]:
    """The names of tensors outside of layers, and of as many layers as the deepest checkpoint has."""
    deeper = {name for other in others for name in _merged_names(other) if (layer_of(name) or 0) >= depth(names)}
    return sorted({*names, *deeper})


def _within(names: list[str], layers: int) -> list[str]:
    return [name for name in names if (layer_of(name) or 0) < layers]


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    """The shape of a tensor; in a layer that is not there, as in the first."""
    layer = layer_of(name)
    return checkpoint.shape(name if layer is None or layer < depth(checkpoint.names()) else renamed(name, 0))


def _check_config(chosen: Checkpoint, other: Checkpoint) -> None:
    for key in ("model_type", "architectures", *LAYOUT):
        ours, theirs = _setting(chosen, key), _setting(other, key)
        if ours is not None and theirs is not None and ours != theirs:
            raise UsageError(f"{chosen.alias} and {other.alias} do not fit: {key} is {ours} and {theirs}")


def _check_names(names: list[str], chosen: Checkpoint, other: Checkpoint) -> None:
    theirs = _merged_names(other)
    tied = [c for c, found in ((chosen, names), (other, theirs)) if not any(n.endswith(OUTPUT_HEADS) for n in found)]
    if len(tied) == 1 and tied[0].config.get("tie_word_embeddings"):
        untied = other if tied[0] is chosen else chosen
        raise UsageError(
            f"{chosen.alias} and {other.alias} do not fit: {tied[0].alias} ties its output head to its embedding, "
            f"{untied.alias} has a head of its own"
        )
    for lacking, having, lost in (
        (other, chosen, sorted(set(names) - set(theirs))),
        (chosen, other, sorted(set(theirs) - set(names))),
    ):
        if lost:
            raise UsageError(
                f"{chosen.alias} and {other.alias} do not fit: {lacking.alias} lacks {len(lost)} of "
                f"{having.alias}'s tensors: {_some(lost)}"
            )


def _check_shapes(names: list[str], chosen: Checkpoint, other: Checkpoint) -> None:
    differing: list[str] = []
    for name in names:
        ours, theirs = _shape(chosen, name), other.shape(name)
        counted = ours[1:] == theirs[1:] and has_token_rows(chosen, name) and has_token_rows(other, name)
        if ours != theirs and not counted:
            differing.append(f"{name} is {list(ours)} and {list(theirs)}")
    if differing:
        raise UsageError(
            f"{chosen.alias} and {other.alias} do not fit: {len(differing)} shapes differ: {_some(differing)}"
        )


def _cut_notice(
    known: Mapping[str, Known], vocabulary: Vocabulary, chosen: Checkpoint, other: Checkpoint
) -> str | None:
    keep, have = vocabulary.rows, known[other.alias].rows
    if have <= keep:
        return None
    return (
        f"{other.alias} has {have} vocabulary rows, {chosen.alias} {keep}: the rows of {chosen.alias}'s tokens are "
        f"merged, {have - keep} dropped"
    )


def _check_countable(names: list[str], checkpoints: Sequence[Checkpoint]) -> None:
    """Rows can be moved only where it is sure that they are those of tokens."""
    for checkpoint in checkpoints:
        if not any(has_token_rows(checkpoint, name) for name in names):
            raise UsageError(
                f"{checkpoint.alias}: the vocabularies differ, and no tensor has the vocab_size rows of its config.json"
            )
        for name in names:
            if is_token_tensor(name) and not has_token_rows(checkpoint, name):
                raise UsageError(
                    f"{checkpoint.alias}: the vocabularies differ, and {name} has {checkpoint.shape(name)[0]} rows, "
                    f"not the vocab_size {vocabulary_size(checkpoint.config)} of its config.json"
                )


def _behaviour_notices(chosen: Checkpoint, other: Checkpoint) -> list[str]:
    pairs = [(key, _setting(chosen, key), _setting(other, key)) for key in BEHAVIOUR]
    return [
        f"{key} is {ours} in {chosen.alias} and {theirs} in {other.alias}: the merged model has {chosen.alias}'s"
        for key, ours, theirs in pairs
        if ours is not None and theirs is not None and ours != theirs
    ]


def _known(
    names: list[str], chosen: Checkpoint, others: Sequence[Checkpoint], base: str | None
) -> tuple[dict[str, Known], list[str]]:
    """What each source knows; one without a tokenizer is taken to know what the base does, or else the chosen one."""
    known = {checkpoint.alias: tokens(checkpoint) for checkpoint in [chosen, *others]}
    if known[chosen.alias] is None:
        raise UsageError(f"{chosen.alias}: {chosen.folder} has no tokenizer, and its tokenizer is to be used")
    like = base if base is not None and known[base] is not None else chosen.alias
    notices = [
        f"{other.alias} has no tokenizer: its tokens are taken to be those of {like}"
        for other in others
        if known[other.alias] is None
    ]
    assumed = known[like] or {}
    return {c.alias: Known(known[c.alias] or assumed, _rows(names, c)) for c in [chosen, *others]}, notices


def _rows(names: list[str], checkpoint: Checkpoint) -> int:
    """How many rows the embedding has; what the config says where no tensor is known to be one."""
    counts = [checkpoint.shape(name)[0] for name in names if is_token_tensor(name)]
    return min(counts, default=vocabulary_size(checkpoint.config) or 0)


def _token_notices(known: Mapping[str, Known], vocabulary: Vocabulary) -> list[str]:
    notices = []
    pieces = len(vocabulary.added)
    if pieces:
        first = next(iter(vocabulary.added))
        notices.append(
            f"union adds {pieces} tokens to {vocabulary.giver}'s tokenizer, first {first!r}: text is cut at them "
            "before anything else, merges of subwords are not merged"
        )
    without = [token for token, number in vocabulary.ids.items() if number >= vocabulary.rows]
    if without:
        notices.append(f"{vocabulary.giver}'s tokenizer knows {len(without)} tokens that no source has a row for")
    return notices


def _setting(checkpoint: Checkpoint, key: str) -> Any:
    """A value of config.json, also where it nests the language model's or the rotary embedding's part."""
    for part in (checkpoint.config, *(checkpoint.config.get(k) for k in ("text_config", "rope_parameters"))):
        if isinstance(part, Mapping) and part.get(key) is not None:
            return part[key]
    return None


def _some(items: Sequence[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
