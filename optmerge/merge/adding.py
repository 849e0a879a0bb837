"""The last stage of the methods that add sparse task vectors to a base, and when there is nothing to compute."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.consensus import LEAST_DIVISOR, ROUNDING, can_cancel, disjoint_sum, plain_sum, weight_of
from optmerge.merge.entries import agreeing, elect_sign, moved
from optmerge.merge.inputs import Inputs
from optmerge.merge.sweep import Entries, Piece, summed


def added(piece: Piece, sparse: Sequence[Tensor], elect: bool) -> Tensor:
    """`base + lambda * sum_k factor_k sparse_k`, entry by entry.

    Args:
        piece: With numbers `factor` (one a source), `lambda_` unless that is 1 and, where the sum is to be divided by
            the weights of the sources that agree in sign, those of `normalizing`.
        sparse: What was made of the task vectors; used up.
        elect: Add only the entries that agree with the elected sign.
    """
    assert piece.base is not None
    numbers = piece.numbers
    weighted = [vector.mul_(factor) for vector, factor in zip(sparse, numbers["factor"], strict=True)]
    total = disjoint_sum(weighted, numbers.get("weight"), numbers.get("size")) if elect else plain_sum(weighted)
    return moved(piece.base, total * numbers["lambda_"][0] if "lambda_" in numbers else total)


def normalizing(weights: Sequence[float], normalize: bool = True) -> dict[str, Sequence[float]]:
    """The numbers by which a sum over sources that agree in sign is normalized; none unless `normalize`.

    They are `weight` and, where some are negative and so can cancel, their absolute values as `size`.
    """
    if not normalize:
        return {}
    sizes = [abs(weight) for weight in weights]
    return {"weight": weights, "size": sizes} if min(weights) < 0 else {"weight": weights}


def unless_one(lambda_: float) -> dict[str, Sequence[float]]:
    """The factor of the merged task vector as a number of a sweep; none where it changes nothing."""
    return {} if lambda_ == 1 else {"lambda_": [lambda_]}


def nearly_cancelled(piece: Piece, sparse: Sequence[Tensor]) -> Tensor:
    """How many entries of a piece would be divided by weights that almost cancel; float64, one number."""
    numbers = piece.numbers
    weighted = [vector * factor for vector, factor in zip(sparse, numbers["factor"], strict=True)]
    sign = elect_sign(plain_sum(weighted))
    parts = [agreeing(vector, sign) for vector in weighted]
    share, size = weight_of(parts, numbers["weight"]).abs(), weight_of(parts, numbers["size"])
    cancelled = (share > ROUNDING * size) & (share < LEAST_DIVISOR * size)
    return summed(cancelled).reshape(1)


def check_divisors(
    inputs: Inputs,
    cancelled: Entries,
    weights: Sequence[float],
    integers: Mapping[str, Sequence[int]] | None = None,
    /,
    **numbers: Sequence[float],
) -> None:
    """Refuse weights that almost cancel among the sources that agree at some entry of this tensor.

    Only weights of both signs can; looking at the entries costs a pass, so it is done only where some of the weights
    nearly cancel.

    Args:
        inputs: The sources.
        cancelled: Gives `nearly_cancelled` of a piece.
        weights: One a source.
        integers: What `cancelled` needs.
        **numbers: What `cancelled` needs besides those of `normalizing`.

    Raises:
        OptmergeError: If an entry would be divided by almost nothing.
    """
    if can_cancel(tuple(weights)):
        refuse_cancelled(inputs.sums(cancelled, integers, **normalizing(weights), **numbers)[0])


def refuse_cancelled(count: float) -> None:
    """Refuse to divide by weights that almost cancel, at so many entries.

    Raises:
        OptmergeError: If there are any.
    """
    if count:
        raise OptmergeError(
            f"the weights cancel to almost nothing at {count:.0f} entries, too little to divide by; "
            "normalize=false adds them"
        )


def short_cut(
    inputs: Inputs, weight: Sequence[float], lambda_: float, normalize: bool, whole: Sequence[bool]
) -> Tensor | None:
    """The base where nothing is added to it, or a source where it alone is added as a whole; bit for bit.

    Arithmetic would miss the source by a unit in the last place here and there: `base + (x - base)` is not `x`.

    Args:
        inputs: The sources, and the base if the method has one.
        weight: One a source.
        lambda_: Factor of the merged task vector.
        normalize: Whether weights are divided by their sum.
        whole: For each source, whether all of its task vector is kept, and none of it rescaled.
    """
    taking_part = [k for k, w in enumerate(weight) if w]
    if inputs.base is not None and (not taking_part or lambda_ == 0):
        return inputs.copy(inputs.base)
    if len(taking_part) == 1 and whole[taking_part[0]]:
        (alone,) = taking_part
        if (1.0 if normalize else weight[alone]) * lambda_ == 1:
            return inputs.copy(inputs.sources[alone])
    return None
