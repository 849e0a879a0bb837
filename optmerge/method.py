"""What a merge method is, and how one is declared."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast, get_args, get_origin, get_type_hints

from optmerge.errors import UsageError
from optmerge.recipe import Option
from optmerge.registered import did_you_mean, find

if TYPE_CHECKING:
    from torch import Tensor

METHODS = "optmerge.merge.methods"


@dataclass(frozen=True)
class Parameter:
    """A searchable parameter of a method, one value a source.

    Attributes:
        low: Least value that has a meaning.
        high: Greatest value that has a meaning.
        default: Value in a merge that is not searched.
        search: Range that a search covers unless told otherwise.
    """

    low: float
    high: float
    default: float
    search: tuple[float, float] = (0.0, 1.0)


WEIGHT = Parameter(low=-math.inf, high=math.inf, default=1.0)
DENSITY = Parameter(low=0.0, high=1.0, default=0.5)

# What a method computes: (tensors, base, **per-source parameters, **options) -> merged tensor, all float32.
Function = Callable[..., "Tensor"]


@dataclass(frozen=True)
class Method:
    """A merge method: a pure function on tensors with what is searched in it.

    Attributes:
        name: The name by which configurations and recipes call it.
        function: `function(tensors, base, **parameters, **options)`; a method with `random=True` also gets
            `streams`, one random stream a tensor (see `optmerge.merge.masks`).
        parameters: Its per-source parameters.
        options: Its options with their defaults, read from the function's signature.
        choices: The values that an option may have, for those annotated as `Literal`.
        base: Whether there must be a base, or the method treats the base as nothing special.
        random: Whether it draws random masks.
    """

    name: str
    function: Function
    parameters: Mapping[str, Parameter]
    options: Mapping[str, Option]
    choices: Mapping[str, tuple[Option, ...]]
    base: Literal["required", "ignored"]
    random: bool

    def check_options(self, options: Mapping[str, Option], where: str) -> None:
        """Refuse an option that the method does not have, or of another type.

        Raises:
            UsageError: Naming the option and, where it helps, the options that there are.
        """
        for name, value in options.items():
            if name not in self.options:
                known = sorted(self.options)
                raise UsageError(
                    f"{where}.{name}: {self.name} has no such option{did_you_mean(name, known)}; "
                    f"it has {', '.join(known) or 'none'}"
                )
            default = self.options[name]
            wanted = (int, float) if isinstance(default, float) else type(default)
            if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
                raise UsageError(f"{where}.{name}: expected {type(default).__name__} as in {default!r}, got {value!r}")
            if name in self.choices and value not in self.choices[name]:
                choices = ", ".join(map(str, self.choices[name]))
                raise UsageError(f"{where}.{name}: unknown {value!r}; known are {choices}")

    def check_value(self, name: str, value: float, where: str) -> None:
        """Refuse a per-source value that has no meaning, such as a density of 1.5.

        Raises:
            UsageError: Naming the parameter and its range.
        """
        if name not in self.parameters:
            known = sorted(self.parameters)
            raise UsageError(
                f"{where}: {self.name} has no parameter {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
        limits = self.parameters[name]
        if not math.isfinite(value) or not limits.low <= value <= limits.high:
            low, high = f"{limits.low:g}", f"{limits.high:g}"
            raise UsageError(f"{where}: {name} must be a number in [{low}, {high}], got {value:g}")


def merge_method(
    *, base: Literal["required", "ignored"], random: bool = False, **parameters: Parameter
) -> Callable[[Function], Method]:
    """Declare a function as the merge method of its module, whose name it bears."""

    def declare(function: Function) -> Method:
        signature = inspect.signature(function)
        options = {
            name: cast("Option", parameter.default)
            for name, parameter in signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        hints = get_type_hints(function)
        choices = {name: get_args(hints[name]) for name in options if get_origin(hints[name]) is Literal}
        return Method(function.__name__, function, parameters, options, choices, base, random)

    return declare


@cache
def get_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: If there is none; the message lists those that there are.
    """
    return cast("Method", getattr(find(METHODS, name, "merge method"), name))


def per_source(name: str, value: float | Sequence[float], count: int) -> list[float]:
    """One value a source: a single number counts for all of them.

    Raises:
        ValueError: If a list of another length is given.
    """
    values = [float(value)] * count if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} sources")
    return values
