"""Do checkpoints fit together to be merged, and what will the merged model look like?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optmerge.errors import UsageError
from optmerge.models.checkpoint import Checkpoint
from optmerge.models.vocabulary import has_token_rows, redundant_heads, tokens
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
    """

    names: list[str]
    shapes: dict[str, tuple[int, ...]]
    notices: list[str]


def check_fit(sources: Mapping[str, Checkpoint], *, base: str | None, tokenizer: str) -> Fit:
    """Check that checkpoints can be merged tensor by tensor.

    Reads no weights, except where a file may hold a tied output head twice.

    Args:
        sources: Every checkpoint that takes part, the base included, by alias.
        base: Alias of the checkpoint that task vectors are measured from, if there is one.
        tokenizer: Alias of the checkpoint that gives tokenizer, config and vocabulary rows.

    Raises:
        UsageError: Naming the two checkpoints that do not fit, and how they differ.
    """
    for role, alias in (("base", base), ("tokenizer", tokenizer)):
        if alias is not None and alias not in sources:
            hint = did_you_mean(alias, list(sources))
            raise UsageError(f"{role} {alias!r} is none of the sources{hint}; these are {', '.join(sorted(sources))}")
    chosen = sources[tokenizer]
    others = [sources[alias] for alias in sorted(sources) if alias != tokenizer]
    notices: list[str] = []
    for checkpoint in [chosen, *others]:
        if checkpoint.config.get("quantization_config"):
            raise UsageError(f"{checkpoint.alias}: {checkpoint.folder} is quantized: use the original weights")
    names = _merged_names(chosen)
    for other in others:
        _check_config(chosen, other)
        _check_names(names, chosen, other)
        notices += _check_shapes(names, chosen, other)
        notices += _behaviour_notices(chosen, other)
    notices += _check_tokens(chosen, others)
    return Fit(names, {name: chosen.shape(name) for name in names}, notices)


def read_row_cut(checkpoint: Checkpoint, name: str, shape: Sequence[int]) -> "Tensor":
    """A tensor without the rows that the merged model has no tokens for.

    Args:
        checkpoint: Where to read.
        name: The tensor.
        shape: Its shape in the merged model, `Fit.shapes[name]`: equal, or with a smaller first dimension.

    Returns:
        A tensor of that shape, mapped from the file.

    Raises:
        ValueError: If the tensor cannot be cut to that shape.
    """
    have, want = checkpoint.shape(name), tuple(shape)
    if have == want:
        return checkpoint.tensor(name)
    if len(have) != len(want) or have[1:] != want[1:] or have[0] < want[0]:
        raise ValueError(f"{checkpoint.alias}: {name} is {have} and cannot be cut to {want}")
    return checkpoint.tensor(name)[: want[0]]


def _merged_names(checkpoint: Checkpoint) -> list[str]:
    """The tensors that count: no copies of tied ones, and no rotary frequencies, which loading computes."""
    dropped = redundant_heads(checkpoint)
    return [n for n in checkpoint.names() if n not in dropped and not n.endswith("rotary_emb.inv_freq")]


def _check_config(chosen: Checkpoint, other: Checkpoint) -> None:
    for key in ("model_type", "architectures", *LAYOUT):
        ours, theirs = _setting(chosen, key), _setting(other, key)
        if ours is not None and theirs is not None and ours != theirs:
            raise UsageError(f"{chosen.alias} and {other.alias} do not fit: {key} is {ours} and {theirs}")


def _check_names(names: list[str], chosen: Checkpoint, other: Checkpoint) -> None:
    theirs = _merged_names(other)
    for lacking, having, lost in (
        (other, chosen, sorted(set(names) - set(theirs))),
        (chosen, other, sorted(set(theirs) - set(names))),
    ):
        if lost:
            raise UsageError(
                f"{chosen.alias} and {other.alias} do not fit: {lacking.alias} lacks {len(lost)} of "
                f"{having.alias}'s tensors: {_some(lost)}"
            )


def _check_shapes(names: list[str], chosen: Checkpoint, other: Checkpoint) -> list[str]:
    differing: list[str] = []
    rows: tuple[int, int] | None = None
    for name in names:
        ours, theirs = chosen.shape(name), other.shape(name)
        if ours == theirs:
            continue
        if ours[1:] == theirs[1:] and has_token_rows(chosen, name) and has_token_rows(other, name):
            rows = (ours[0], theirs[0])
        else:
            differing.append(f"{name} is {list(ours)} and {list(theirs)}")
    if differing:
        raise UsageError(
            f"{chosen.alias} and {other.alias} do not fit: {len(differing)} shapes differ: {_some(differing)}"
        )
    if rows is None:
        return []
    keep, have = rows
    if have < keep:
        raise UsageError(
            f"{other.alias} has {have} vocabulary rows, fewer than the {keep} of {chosen.alias}, whose tokenizer is "
            f"used: use the tokenizer of a checkpoint with {have} rows"
        )
    return [
        f"{other.alias} has {have} vocabulary rows, {chosen.alias} {keep}: the rows of {chosen.alias}'s tokens are "
        f"merged, {have - keep} dropped"
    ]


def _behaviour_notices(chosen: Checkpoint, other: Checkpoint) -> list[str]:
    pairs = [(key, _setting(chosen, key), _setting(other, key)) for key in BEHAVIOUR]
    return [
        f"{key} is {ours} in {chosen.alias} and {theirs} in {other.alias}: the merged model has {chosen.alias}'s"
        for key, ours, theirs in pairs
        if ours is not None and theirs is not None and ours != theirs
    ]


def _check_tokens(chosen: Checkpoint, others: Iterable[Checkpoint]) -> list[str]:
    wanted = tokens(chosen)
    if wanted is None:
        raise UsageError(f"{chosen.alias}: {chosen.folder} has no tokenizer, and its tokenizer is to be used")
    notices: list[str] = []
    for other in others:
        known = tokens(other)
        if known is None:
            notices.append(f"{other.alias} has no tokenizer: its tokens are taken to be those of {chosen.alias}")
            continue
        differing = sorted((number, token) for token, number in wanted.items() if known.get(token) != number)
        if differing:
            number, token = differing[0]
            theirs = f"{known[token]} in {other.alias}" if token in known else f"unknown to {other.alias}"
            raise UsageError(
                f"the tokenizers of {chosen.alias} and {other.alias} do not fit: {len(differing)} tokens differ, "
                f"first {token!r}: {number} in {chosen.alias}, {theirs}"
            )
    return notices


def _setting(checkpoint: Checkpoint, key: str) -> Any:
    """A value of config.json, also where it nests the language model's or the rotary embedding's part."""
    for part in (checkpoint.config, *(checkpoint.config.get(k) for k in ("text_config", "rope_parameters"))):
        if isinstance(part, Mapping) and part.get(key) is not None:
            return part[key]
    return None


def _some(items: Sequence[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
