"""How likely a model of the transformers library finds texts; what many of them begin with is computed once."""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from optmerge.engines.wording import NOT_NUMBERS
from optmerge.errors import OptmergeError

if TYPE_CHECKING:
    from torch import Tensor

Group = Sequence["Row"]  # the continuations of one prompt


class Row(NamedTuple):
    """A text whose last tokens are scored.

    Attributes:
        tokens: Of the whole text.
        scored: How many of them, the last ones.
    """

    tokens: list[int]
    scored: int


class Score(NamedTuple):
    """What a model says of a text.

    Attributes:
        log_likelihood: Of the scored tokens after the others.
        greedy: Whether they are what it would write by itself.
    """

    log_likelihood: float
    greedy: bool


def padded(rows: Sequence[list[int]], padding: int, *, left: bool = True) -> tuple["Tensor", "Tensor"]:
    """Rows of tokens in one tensor, and where they are."""
    import torch

    width = max(len(tokens) for tokens in rows)
    ids = torch.full((len(rows), width), padding)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if left else slice(len(tokens))
        ids[i, place] = torch.tensor(tokens)
        mask[i, place] = 1
    return ids, mask


def shared(group: Group) -> int:
    """How many tokens of a prompt are worth being computed once for all its continuations; 0 if that does not pay."""
    most = min(len(tokens) - scored for tokens, scored in group)
    first, *others = (tokens for tokens, _ in group)
    common = next((i for i in range(most) if any(other[i] != first[i] for other in others)), most)
    kept = common - 1  # the last goes with the continuations: it tells their first tokens
    return kept if others and kept > max(len(tokens) for tokens, _ in group) - common else 0


def scores(model: Any, groups: Sequence[Group], padding: int, most: int) -> list[list[Score]]:
    """What a model says of the continuations of some prompts.

    Args:
        model: A causal language model of the transformers library.
        groups: The continuations of each prompt.
        padding: The token that fills rows up.
        most: Most texts to compute at once.

    Raises:
        OptmergeError: If its logits are not numbers.
    """
    prefixes = [shared(group) if _can_branch(model) else 0 for group in groups]
    whole = [row for group, prefix in zip(groups, prefixes, strict=True) if not prefix for row in group]
    branching = [(group, prefix) for group, prefix in zip(groups, prefixes, strict=True) if prefix]
    alone = iter(
        [score for start in range(0, len(whole), most) for score in _whole(model, whole[start : start + most], padding)]
    )
    branched = iter(_branched(model, branching, padding, most) if branching else ())
    return [
        [next(branched if prefix else alone) for _ in group] for group, prefix in zip(groups, prefixes, strict=True)
    ]


def _can_branch(model: Any) -> bool:
    """Whether the model's memory of a prompt is keys and values alone, of which each continuation can have a copy."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _whole(model: Any, rows: Sequence[Row], padding: int) -> list[Score]:
    """Scores of whole texts; all are padded on the left, so that what is scored comes last."""
    import torch

    ids, mask = padded([tokens for tokens, _ in rows], padding)
    width, most = ids.shape[1], max(scored for _, scored in rows)
    with torch.inference_mode():
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(model.device),
            use_cache=False,
            logits_to_keep=most + 1,
        ).logits[:, :-1]
        return _read(logits, ids[:, width - most :], [slice(most - scored, most) for _, scored in rows])


def _branched(model: Any, groups: Sequence[tuple[Group, int]], padding: int, most: int) -> list[Score]:
    """Scores of texts that share their first tokens with others: these go first, then the rest of each text."""
    import torch
    from transformers.cache_utils import DynamicCache

    ids, mask = padded([group[0].tokens[:prefix] for group, prefix in groups], padding)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    rows = [(owner, prefix, row) for owner, (group, prefix) in enumerate(groups) for row in group]
    found: list[Score] = []
    for start in range(0, len(rows), most):
        some = rows[start : start + most]
        owners = torch.tensor([owner for owner, _, _ in some])
        found += _continued(model, cache, mask[owners], owners, [(prefix, row) for _, prefix, row in some], padding)
    return found


def _continued(
    model: Any, cache: Any, before: "Tensor", owners: "Tensor", rows: Sequence[tuple[int, Row]], padding: int
) -> list[Score]:
    """Scores of texts of which the first tokens are in a cache.

    Args:
        model: The model.
        cache: Of the first tokens; it is left as it is.
        before: Where these are, a row a text.
        owners: Which row of the cache each text has.
        rows: How many first tokens each text has there, and the text.
        padding: The token that fills rows up.
    """
    import torch

    ids, _ = padded([row.tokens[prefix:] for prefix, row in rows], padding, left=False)
    lengths = torch.tensor([[prefix, len(row.tokens)] for prefix, row in rows])
    positions = (lengths[:, :1] + torch.arange(ids.shape[1])).minimum(lengths[:, 1:] - 1)
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    with torch.inference_mode():
        own.batch_select_indices(owners.to(model.device))
        logits = model(
            input_ids=ids.to(model.device),
            # Padding is at the end, where no token looks.
            attention_mask=torch.cat([before, torch.ones_like(ids)], dim=1).to(model.device),
            position_ids=positions.to(model.device),
            past_key_values=own,
            use_cache=True,
        ).logits[:, :-1]
        ends = [len(row.tokens) - prefix - 1 for prefix, row in rows]
        return _read(
            logits, ids[:, 1:], [slice(end - row.scored, end) for end, (_, row) in zip(ends, rows, strict=True)]
        )


def _read(logits: "Tensor", ids: "Tensor", places: Sequence[slice]) -> list[Score]:
    """Scores of the tokens at some places of each row, from the logits that tell them."""
    ids = ids.to(logits.device)
    each = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0].double().cpu()
    first = (logits.argmax(-1) == ids).cpu()
    found = [
        Score(float(logs[place].sum()), bool(right[place].all()))
        for logs, right, place in zip(each, first, places, strict=True)
    ]
    if any(math.isnan(score.log_likelihood) for score in found):
        raise OptmergeError(NOT_NUMBERS)
    return found
