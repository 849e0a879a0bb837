"""Parameter space: merge methods as pure functions on tensors, and candidates merged on demand."""

from typing import TYPE_CHECKING

from optmerge.method import DENSITY, LAMBDA, WEIGHT, Method, Parameter, get_method, merge_method

if TYPE_CHECKING:
    from optmerge.merge.candidate import MergeCandidate, Workbench
    from optmerge.merge.inputs import Inputs
    from optmerge.merge.kernels import Kernels
    from optmerge.merge.sweep import Piece, Sweeper
    from optmerge.merge.tensors import merge_tensors

__all__ = [
    "DENSITY",
    "LAMBDA",
    "WEIGHT",
    "Inputs",
    "Kernels",
    "MergeCandidate",
    "Method",
    "Parameter",
    "Piece",
    "Sweeper",
    "Workbench",
    "get_method",
    "merge_method",
    "merge_tensors",
]

_LAZY = {
    "Inputs": "inputs",
    "Kernels": "kernels",
    "MergeCandidate": "candidate",
    "Piece": "sweep",
    "Sweeper": "sweep",
    "Workbench": "candidate",
    "merge_tensors": "tensors",
}


def __getattr__(name: str) -> object:
    # torch is imported with the first of these, not on the way to a configuration error.
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"optmerge.merge.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
