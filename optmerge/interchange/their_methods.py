"""What mergekit's merge methods have for parameters, and what ours call them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from optmerge.interchange.settings import Scalar

Scope = Literal["shared", "input", "non_base"]


@dataclass(frozen=True)
class TheirParameter:
    """A parameter of a method of mergekit.

    Attributes:
        scope: Whether there is one value for all models together, one for each, or one for each but the base.
        kind: float, int or bool.
        default: Its value if nothing is said; None if something must be.
        effect: Whether it changes anything: some are taken and not looked at.
    """

    scope: Scope
    kind: type
    default: Scalar | None = None
    effect: bool = True


_MASK = TheirParameter("shared", bool, False, effect=False)  # the type of a mask in memory


def _task_vectors(*, normalize: bool, rescale: bool, **more: TheirParameter) -> dict[str, TheirParameter]:
    return {
        "weight": TheirParameter("non_base", float),
        "density": TheirParameter("non_base", float, 1.0),
        **more,
        "lambda": TheirParameter("shared", float, 1.0),
        "normalize": TheirParameter("shared", bool, normalize),
        "rescale": TheirParameter("shared", bool, rescale),
        "int8_mask": _MASK,
    }


_GAMMA = TheirParameter("non_base", float, 0.01)
_EPSILON = TheirParameter("non_base", float, 0.15)
_T = TheirParameter("shared", float)

THEIR_METHODS: Mapping[str, Mapping[str, TheirParameter]] = {
    "linear": {"weight": TheirParameter("input", float), "normalize": TheirParameter("shared", bool, True)},
    "slerp": {"t": _T},
    "nuslerp": {
        "weight": TheirParameter("non_base", float),
        "nuslerp_row_wise": TheirParameter("shared", bool, False),
        "nuslerp_flatten": TheirParameter("shared", bool, True),
    },
    "multislerp": {
        "weight": TheirParameter("non_base", float),
        "normalize_weights": TheirParameter("shared", bool, True),
        "eps": TheirParameter("shared", float, 1e-8),
    },
    "karcher": {"max_iter": TheirParameter("shared", int, 10), "tol": TheirParameter("shared", float, 1e-5)},
    "task_arithmetic": _task_vectors(normalize=False, rescale=False)
    | {
        "density": TheirParameter("non_base", float, 1.0, effect=False),
        "rescale": TheirParameter("shared", bool, False, effect=False),
    },
    "ties": _task_vectors(normalize=True, rescale=False),
    "dare_linear": _task_vectors(normalize=False, rescale=True),
    "dare_ties": _task_vectors(normalize=False, rescale=True),
    "della": _task_vectors(normalize=True, rescale=True, epsilon=_EPSILON),
    "della_linear": _task_vectors(normalize=False, rescale=True, epsilon=_EPSILON),
    "breadcrumbs": _task_vectors(normalize=False, rescale=False, gamma=_GAMMA),
    "breadcrumbs_ties": _task_vectors(normalize=False, rescale=False, gamma=_GAMMA),
    "model_stock": {"filter_wise": TheirParameter("shared", bool, False)},
    "sce": {"select_topk": TheirParameter("shared", float, 1.0), "int8_mask": _MASK},
    "nearswap": {"t": _T},
    "arcee_fusion": {},
    "passthrough": {"scale": TheirParameter("input", float, 1.0)},
    "ram": {"epsilon": TheirParameter("shared", float, 1e-5)},
    "ramplus_tl": {
        "r": TheirParameter("shared", float, 0.1),
        "alpha": TheirParameter("shared", float, 0.2),
        "epsilon": TheirParameter("shared", float, 1e-5),
    },
}

NEED_BASE = ("slerp",)
"""Methods that want a base although ours can do without."""

RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
"""Methods that drop entries at random where a density is below 1."""

DROP_ALIKE = ("dare_linear", "dare_ties")
"""Methods that drop all entries with the same probability."""

_OURS = {"lambda": "lambda_"}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def our_name(parameter: str) -> str:
    """What we call a parameter of theirs."""
    return _OURS.get(parameter, parameter)


def their_name(parameter: str) -> str:
    """What they call a parameter of ours."""
    return _THEIRS.get(parameter, parameter)


def our_value(parameter: str, value: Scalar) -> Scalar:
    """What we write for a value of theirs."""
    if parameter == "rescale":
        return "l1_norm" if value else "none"
    return value
