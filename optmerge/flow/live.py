"""Paths over the layers of a live transformers model: hops share the resident layers' tensors."""

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from optmerge.errors import OptmergeError
from optmerge.flow.path import LiveHop, LivePath
from optmerge.models import check_complete


class LiveCandidate(Protocol):
    """A path, and the tensors that it runs over."""

    @property
    def path(self) -> LivePath: ...

    def layer(self, hop: LiveHop) -> Mapping[str, Tensor]:
        """The tensors of a hop's layer, by their names within it."""

    def outside(self) -> Mapping[str, Tensor]:
        """The tensors outside of layers, by name."""


class LiveLayers:
    """The layers of a live model, which paths put in place.

    Args:
        model: A causal language model of the transformers library; its own layers are let go.
        mlp_module: The module of a layer whose output is what the MLP adds.
    """

    def __init__(self, model: Any, mlp_module: str) -> None:
        self._model = model
        self._mlp_module = mlp_module
        self._body = model.base_model
        self._list = "layers" if hasattr(self._body, "layers") else "h"
        self._kind = type(getattr(self._body, self._list)[0])
        self._config = copy.deepcopy(model.config)
        layers = set(getattr(self._body, self._list).modules())
        self._configs = _configs(module for module in model.modules() if module not in layers)
        self._residents: dict[str, _Resident] = {}
        self._outside: str | None = None

    def mount(self, candidate: LiveCandidate) -> None:
        """Let the model run a path.

        Raises:
            OptmergeError: If the candidate lacks a tensor, or has one that the model does not.
        """
        path = candidate.path
        if path.outside != self._outside:
            self._fill_outside(candidate.outside())
            self._outside = path.outside
        kept = self._residents if path.keep else {}
        if not path.keep:  # a model of its own: let the memory of all others go first
            self._residents = {}
            setattr(self._body, self._list, nn.ModuleList())
        for hop in path.hops:
            if hop.key not in kept:
                kept[hop.key] = self._resident(hop, candidate.layer(hop))
        used = Counter[str]()
        copies = []
        for position, hop in enumerate(path.hops):
            copies.append(kept[hop.key].copy(used[hop.key]))
            copies[-1].place(position)
            used[hop.key] += 1
        _scale(copies, [hop.scale for hop in path.hops], path.scale_target)
        setattr(self._body, self._list, nn.ModuleList([copied.layer for copied in copies]))
        inside = [config for key in used for config in kept[key].configs]
        _announce([hop.layer_type for hop in path.hops], [*self._configs, *inside])

    def _fill_outside(self, tensors: Mapping[str, Tensor]) -> None:
        prefix = next(name for name, module in self._model.named_modules() if module is self._body)
        inside = f"{prefix}.{self._list}."
        state = {name: tensor for name, tensor in self._model.state_dict().items() if not name.startswith(inside)}
        check_complete(list(tensors), state)
        for name, tensor in tensors.items():
            state[name].copy_(tensor)

    def _resident(self, hop: LiveHop, tensors: Mapping[str, Tensor]) -> "_Resident":
        """A layer that has these tensors, not copies of them where they are of the model's type and on its device."""
        from transformers.initialization import no_init_weights

        config = copy.deepcopy(self._config)
        if hop.layer_types is not None:
            config.layer_types, config.num_hidden_layers = list(hop.layer_types), len(hop.layer_types)
        default = torch.get_default_dtype()
        torch.set_default_dtype(self._model.dtype)
        try:
            with no_init_weights():
                layer = self._kind(config, layer_idx=hop.layer if hop.layer_types is not None else 0)
        finally:
            torch.set_default_dtype(default)
        layer.to(self._model.device).eval().requires_grad_(False)
        missing = {name for name, _ in layer.named_parameters()}
        for name, tensor in tensors.items():
            if name not in missing:
                raise OptmergeError(f"the model's layers have no tensor {name}")
            missing.remove(name)
            within, _, leaf = name.rpartition(".")
            ready = tensor.to(device=self._model.device, dtype=self._model.dtype)
            layer.get_submodule(within)._parameters[leaf] = nn.Parameter(ready, requires_grad=False)
        if missing:
            raise OptmergeError(f"layer {hop.layer} lacks the tensor {min(missing)}")
        return _Resident(layer, self._mlp_module)


class _Resident:
    """A layer, and the copies of it that share its tensors: a path may take it many times.

    Attributes:
        configs: The configurations that it reads.
    """

    def __init__(self, layer: nn.Module, mlp_module: str) -> None:
        self.configs = _configs(layer.modules())
        self._layer = layer
        self._mlp_module = mlp_module
        self._copies: list[_Copy] = []

    def copy(self, ordinal: int) -> "_Copy":
        while len(self._copies) <= ordinal:
            self._copies.append(_Copy(_sharing(self._layer), self._mlp_module))
        return self._copies[ordinal]


class _Copy:
    """A layer in a place of its own: it has its own part of the cache, and its own scales.

    Attributes:
        layer: The module.
        at_input: What multiplies all that reaches it.
        at_end: What multiplies what its MLP adds.
    """

    def __init__(self, layer: nn.Module, mlp_module: str) -> None:
        self.layer = layer
        self.at_input = 1.0
        self.at_end = 1.0
        self._numbered: list[Any] = [module for module in layer.modules() if hasattr(module, "layer_idx")]
        layer.register_forward_pre_hook(self._scale_input)
        layer.get_submodule(mlp_module).register_forward_hook(self._scale_end)

    def place(self, position: int) -> None:
        for module in self._numbered:
            module.layer_idx = position

    def _scale_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self.at_input == 1 else (inputs[0] * self.at_input, *inputs[1:])

    def _scale_end(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return None if self.at_end == 1 else output * self.at_end


def _scale(copies: Sequence[_Copy], scales: Sequence[float], target: str) -> None:
    if target == "hidden":
        for copied, scale in zip(copies, scales, strict=True):
            copied.at_input, copied.at_end = scale, 1.0
        return
    for copied, following in zip(copies, (*scales[1:], 1.0), strict=True):
        copied.at_input, copied.at_end = 1.0, following
    copies[0].at_input = scales[0]


def _sharing(module: nn.Module) -> nn.Module:
    """The same module with the same tensors, but modules and hooks of its own."""
    shared: nn.Module = module.__new__(type(module))
    shared.__dict__.update(module.__dict__)
    shared._modules = {name: None if child is None else _sharing(child) for name, child in module._modules.items()}
    shared._forward_hooks, shared._forward_pre_hooks = OrderedDict(), OrderedDict()
    return shared


def _announce(layer_types: Sequence[str | None], configs: Iterable[Any]) -> None:
    """Tell all that reads a configuration how many layers there are, and which mask each takes."""
    for config in configs:
        config.num_hidden_layers = len(layer_types)
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = list(layer_types)


def _configs(modules: Iterable[nn.Module]) -> list[Any]:
    """The different configurations of models that some modules hold."""
    held = (getattr(module, "config", None) for module in modules)
    return list({id(config): config for config in held if hasattr(config, "num_hidden_layers")}.values())
