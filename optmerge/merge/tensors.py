"""One tensor merged from many: the function that everything in parameter space goes through."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optmerge.errors import UsageError
from optmerge.merge.masks import Stream
from optmerge.method import get_method, per_source


def merge_tensors(
    method: str,
    tensors: Sequence[Tensor],
    *,
    base: Tensor | None = None,
    aliases: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "",
    **parameters: Any,
) -> Tensor:
    """Merge tensors of the same shape, computing in float32 whatever their type.

    Args:
        method: Name of a merge method, such as `dare_ties`.
        tensors: One tensor a source.
        base: The base's tensor, for methods that measure task vectors from it.
        aliases: One name a source: sums run in their order, and random masks depend on them. By default the
            positions `0`, `1`, ...
        seed: Seed of random masks.
        name: Name of the tensor, on which random masks depend.
        **parameters: The method's per-source parameters (a number, or a list in the order of `tensors`; left out,
            they take their defaults) and options.

    Returns:
        The merged tensor, float32.

    Raises:
        UsageError: If the method is unknown, lacks its base, or has no such parameter or option.
        ValueError: If a list has another length than `tensors`.
    """
    declared = get_method(method)
    aliases = list(aliases) if aliases is not None else [f"{i:06d}" for i in range(len(tensors))]
    if len(aliases) != len(tensors):
        raise ValueError(f"{len(aliases)} aliases for {len(tensors)} tensors")
    if declared.base == "required" and base is None:
        raise UsageError(f"{method} needs a base")
    order = sorted(range(len(tensors)), key=lambda i: aliases[i])
    arguments: dict[str, Any] = {key: value for key, value in parameters.items() if key not in declared.parameters}
    declared.check_options(arguments, method)
    for key, parameter in declared.parameters.items():
        values = per_source(key, parameters.get(key, parameter.default), len(tensors))
        for value in values:
            declared.check_value(key, value, method)
        arguments[key] = [values[i] for i in order]
    if declared.random:
        arguments["streams"] = [Stream(seed, aliases[i], name) for i in order]
    widened = [tensors[i].to(torch.float32) for i in order]
    return declared.function(widened, None if base is None else base.to(torch.float32), **arguments)
