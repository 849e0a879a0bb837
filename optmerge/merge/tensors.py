"""One tensor merged from many: the function that everything in parameter space goes through."""

from collections.abc import Hashable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optmerge.merge.inputs import Inputs
from optmerge.merge.masks import Stream
from optmerge.merge.sweep import Sweeper
from optmerge.method import Method, get_method, per_source


def merge_tensors(
    method: str,
    tensors: Sequence[Tensor],
    *,
    base: Tensor | None = None,
    aliases: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "",
    out: Tensor | None = None,
    sweeper: Sweeper | None = None,
    facts: MutableMapping[Any, Any] | None = None,
    identities: Sequence[Hashable] | None = None,
    **parameters: Any,
) -> Tensor:
    """Merge tensors of the same shape, computing in float32 whatever their type.

    Args:
        method: Name of a merge method, such as `dare_ties`.
        tensors: One tensor a source.
        base: The base's tensor, for methods that measure task vectors from it.
        aliases: One name a source: sums run in their order, and random masks depend on them. By default the
            positions, as `000000`, `000001`, ...
        seed: Seed of random masks.
        name: Name of the tensor, on which random masks depend.
        out: Where to write the result, rounded to its type; by default a new float32 tensor.
        sweeper: How the work is done; by default in plain PyTorch on one thread.
        facts: What earlier calls found out about tensors; this one adds to it.
        identities: What tells each tensor from others in `facts`, the base's last. By default the aliases do: then
            `facts` is of one set of tensors only.
        **parameters: The method's parameters (per source: a number for all, or a list in the order of `tensors`; left
            out, they take their defaults) and options. mergekit's `int8_mask` is ignored: it changes no result.

    Returns:
        The merged tensor.

    Raises:
        UsageError: If the method is unknown, lacks its base, cannot merge so many sources, or has no such parameter
            or option.
        OptmergeError: If the parameters make no finite tensor, such as weights that cancel and are to be normalized.
        ValueError: If a list has another length than `tensors`, or the shapes differ.
    """
    declared = get_method(method)
    aliases = list(aliases) if aliases is not None else [f"{i:06d}" for i in range(len(tensors))]
    if len(aliases) != len(tensors):
        raise ValueError(f"{len(aliases)} aliases for {len(tensors)} tensors")
    if len(set(aliases)) < len(aliases):
        raise ValueError(f"two sources have the same alias: {', '.join(sorted(aliases))}")
    shapes = {tuple(tensor.shape) for tensor in (*tensors, *([] if base is None else [base]))}
    if len(shapes) > 1:
        raise ValueError(f"the tensors' shapes differ: {', '.join(map(str, sorted(shapes)))}")
    if declared.base == "ignored":
        base = None
    declared.check_sources(len(tensors), base is not None, method)
    order = sorted(range(len(tensors)), key=lambda i: aliases[i])
    # Sweeps write stretches of memory.
    target = out
    if out is not None and not out.is_contiguous():
        target = torch.empty_like(out, memory_format=torch.contiguous_format)
    known_as = list(aliases if identities is None else identities)
    inputs = Inputs(
        sources=[tensors[i] for i in order],
        base=base,
        streams=[Stream(seed, aliases[i], name) for i in order],
        out=target,
        sweeper=sweeper or Sweeper(),
        facts=facts,
        identities=[known_as[i] for i in order],
        base_identity=known_as[len(tensors)] if len(known_as) > len(tensors) and base is not None else None,
    )
    arguments = checked_arguments(declared, parameters, order)
    merged = declared.function(inputs, **arguments) if inputs.count else inputs.copy(inputs.sources[0])
    return merged if out is None or target is out else out.copy_(merged)


def checked_arguments(method: Method, parameters: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """A method's parameters and options as its function takes them.

    Args:
        method: The method.
        parameters: As `merge_tensors` takes them.
        order: The canonical order of the sources.

    Raises:
        UsageError: If one is unknown, or its value has no meaning.
        ValueError: If a list has another length than there are sources.
    """
    arguments = {key: value for key, value in parameters.items() if key not in {*method.parameters, "int8_mask"}}
    method.check_options(arguments, method.name)
    for key, parameter in method.parameters.items():
        values = per_source(key, parameters.get(key), parameter.default, 1 if parameter.shared else len(order))
        for number in values:
            method.check_value(key, number, method.name)
        arguments[key] = values[0] if parameter.shared else [values[i] for i in order]
    return arguments
