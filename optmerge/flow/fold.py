"""Scales folded into weights: a path over layers as an ordinary model.

A path whose hop k multiplies what reaches it by w_k gives the same logits as an ordinary model without any scale, as
the norms that blocks read the residual stream through forget its unit.

`hidden`: let s_k = w_0 w_1 ... w_k. The ordinary model measures the stream in units of s_k at hop k: what the blocks of
hop k add is divided by s_k, so are their last tensors. Where s_k < 0 the stream's sign is turned, and the gains of the
two norms that read it (not their biases) are negated; where the last one is, the final norm's too.

`branch`: w_0 multiplies the stream once, and w_k, k > 0, what the MLP of hop k - 1 has added. The unit is w_0 all
along; the last tensors of that MLP are multiplied by w_k, which may be negative, or zero.

The logits are the same up to the norms' epsilon, which is not measured in the stream's unit, and to rounding.
"""

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optmerge.errors import UsageError
from optmerge.flow.families import Family

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Folds:
    """What happens to the tensors of each hop.

    Attributes:
        attention: What multiplies all that the attention of each hop adds.
        mlp: What multiplies all that its MLP adds.
        negative: Whether its blocks read a stream whose sign is turned.
        negative_end: Whether the final norm does.
    """

    attention: tuple[float, ...]
    mlp: tuple[float, ...]
    negative: tuple[bool, ...]
    negative_end: bool


def fold(scales: Sequence[float], target: str) -> Folds:
    """What the scales of a path do to the tensors of the ordinary model that it is.

    Args:
        scales: One a hop.
        target: `hidden` or `branch`, see `optmerge.recipe.PathNode`.

    Raises:
        UsageError: If a scale is zero where that cannot be folded.
    """
    zero = next((hop for hop, scale in enumerate(scales) if scale == 0 and (target == "hidden" or hop == 0)), None)
    if zero is not None:
        raise UsageError(f"hop {zero} has scale 0, which cannot be folded into weights")
    if target == "branch":
        unit = scales[0]
        return Folds(
            attention=(1 / unit,) * len(scales),
            mlp=tuple(scale / unit for scale in (*scales[1:], 1.0)),
            negative=(unit < 0,) * len(scales),
            negative_end=unit < 0,
        )
    units = list(itertools.accumulate(scales, operator.mul))
    shares = tuple(1 / unit for unit in units)
    return Folds(shares, shares, tuple(unit < 0 for unit in units), units[-1] < 0)


def folded(tensor: "Tensor", rest: str, hop: int, folds: Folds, family: Family) -> "Tensor":
    """A tensor of a hop's layer as the ordinary model has it, in float32 where it changes.

    Args:
        tensor: As the source has it.
        rest: Its name within the layer.
        hop: Which hop.
        folds: From `fold`.
        family: The model's.
    """
    if rest in family.attention_ends:
        return _multiplied(tensor, folds.attention[hop], family)
    if rest in family.mlp_ends:
        return _multiplied(tensor, folds.mlp[hop], family)
    if rest in family.input_norms and folds.negative[hop]:
        return _negated(tensor, family)
    return tensor


def folded_outside(tensor: "Tensor", name: str, folds: Folds, family: Family) -> "Tensor":
    """A tensor outside of layers as the ordinary model has it."""
    return _negated(tensor, family) if folds.negative_end and name.endswith(family.final_norm) else tensor


def _multiplied(tensor: "Tensor", factor: float, family: Family) -> "Tensor":
    if factor == 1:
        return tensor
    if family.ends_are_gains:
        return (tensor.float() + family.offset) * factor - family.offset
    return tensor.float() * factor


def _negated(gain: "Tensor", family: Family) -> "Tensor":
    return -gain.float() - 2 * family.offset
