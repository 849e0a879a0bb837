"""The tensors of a live model that takes candidates of any depth, and a set of them on its way into it.

Such a model has as many layers as the deepest candidate. Those that a candidate does not need are zero, every tensor:
what both of their blocks add to the residual stream is then zero exactly, in all families of `optmerge.flow`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optmerge.errors import OptmergeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The tensors of the live model, under the names that they have in a checkpoint.

    Attributes:
        shapes: Of every tensor; tied ones are there once.
        names: The name in `shapes` of every tensor, tied or not.
        kinds: Which attention mask each layer takes; None where all take the same.
        own_kinds: The same of a checkpoint's layers.
    """

    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]
    kinds: Sequence[str | None]
    own_kinds: Sequence[str | None]

    @classmethod
    def of(cls, config: Mapping[str, Any], changes: Mapping[str, Any]) -> "Layout":
        """The layout of a model.

        Args:
            config: The checkpoint's config.json.
            changes: What the live model has instead.
        """
        from optmerge.flow.layer_types import layer_types
        from optmerge.models.layers import depth

        names, shapes = {}, {}
        first: dict[int, str] = {}
        live = {**config, **changes}
        for name, tensor in _tensors(live).items():
            names[name] = first.setdefault(id(tensor), name)
            shapes[names[name]] = tuple(tensor.shape)
        number = depth(list(names))
        own_number = _layers(config) if changes else number
        kinds, own_kinds = layer_types(live), layer_types(config)
        return cls(shapes, names, kinds or (None,) * number, own_kinds or (None,) * own_number)

    @cached_property
    def stem(self) -> str:
        from optmerge.models.layers import stem_of

        return next(stem for name in self.names if (stem := stem_of(name)))

    @property
    def tied(self) -> bool:
        return len(self.names) > len(self.shapes)

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def places(self, kinds: Sequence[str | None]) -> list[int]:
        """The layers that a candidate's layers go to: in order, each to one with its attention mask.

        Args:
            kinds: Which attention mask each of the candidate's layers takes; None for the one that all have.

        Raises:
            UsageError: If there are too few.
        """
        free = enumerate(self.kinds)
        places: list[int] = []
        for kind in kinds:
            place = next((place for place, other in free if None in (kind, other) or kind == other), None)
            if place is None:
                raise UsageError(f"engine.max_hops must be at least {len(kinds)} for a model of so many layers")
            places.append(place)
        return places

    def zero_layers(self, used: Sequence[int]) -> "Iterator[tuple[str, Tensor]]":
        """The tensors of all layers but the used ones."""
        from optmerge.models.layers import layer_of

        for name, shape in self.shapes.items():
            layer = layer_of(name)
            if layer is not None and layer not in used:
                yield name, _zeros(shape)


class Loading:
    """One set of tensors on its way into the live model.

    Attributes:
        error: What was wrong with them, if anything was.
    """

    def __init__(self, layout: Layout) -> None:
        self.error: Exception | None = None
        self._layout = layout

    def complete(self, tensors: "Iterator[tuple[str, Tensor]]") -> "Iterator[tuple[str, Tensor]]":
        """The tensors; where one cannot be had, zeros for it and all that would follow.

        An error within vLLM's loader would leave it with half-loaded layers, to which the next candidate's tensors
        would be added. So it is always given all tensors, and the error is raised afterwards.
        """
        missing = dict(self._layout.shapes)
        try:
            for given, tensor in tensors:
                name = self._layout.names.get(given)
                if name is None:
                    raise OptmergeError(f"the model has no tensor {given}")
                if name not in missing:
                    continue  # tied to one that came before
                if tuple(tensor.shape) != missing[name]:
                    raise OptmergeError(f"{given} is {tuple(tensor.shape)}, and the model's is {missing[name]}")
                del missing[name]
                yield name, tensor
            if missing:
                raise OptmergeError(f"the candidate has no tensor {min(missing)}")
        except Exception as error:
            self.error = error
        for name, shape in missing.items():
            yield name, _zeros(shape)


def _zeros(shape: tuple[int, ...]) -> "Tensor":
    import torch

    return torch.zeros(()).expand(shape)  # takes no memory


def _tensors(config: Mapping[str, Any]) -> "dict[str, Tensor]":
    """The tensors of a model as the transformers library has them, without their memory; tied ones are one object."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.for_model(**config), trust_remote_code=False
        )
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    return state


def deepened(config: Mapping[str, Any], max_hops: int | None) -> dict[str, Any]:
    """Entries of a config.json with which a model has room for every path of so many hops, and for any source.

    Where layers differ in their attention mask, which vLLM fixes by their place, there are as many of each.
    """
    from optmerge.flow import family_of
    from optmerge.flow.layer_types import layer_types
    from optmerge.models.layers import stacked_config

    if max_hops is None:
        return {}
    family_of(str(config.get("model_type")))
    own = layer_types(config)
    kinds = list(dict.fromkeys(own or ()))
    layers = _layers(config)
    number = max(max_hops, layers) * max(1, len(kinds))
    deeper = stacked_config(config, [layer % layers for layer in range(number)])
    if kinds:
        deeper["layer_types"] = [kinds[layer % len(kinds)] for layer in range(number)]
    return {key: value for key, value in deeper.items() if value != config.get(key)}


def _layers(config: Mapping[str, Any]) -> int:
    number: int = next(config[key] for key in ("num_hidden_layers", "n_layer") if key in config)
    return number
