"""What a merge method is, and how one is declared."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

from optmerge.errors import UsageError
from optmerge.recipe import Option
from optmerge.registered import did_you_mean, find

if TYPE_CHECKING:
    from torch import Tensor

METHODS = "optmerge.merge.methods"


@dataclass(frozen=True)
class Parameter:
    """A searchable parameter of a method.

    Attributes:
        low: Least value that has a meaning.
        high: Greatest value that has a meaning.
        default: Value in a merge that is not searched.
        search: Range that a search covers unless told otherwise; None: it keeps its default unless told otherwise.
        shared: Whether a group has one value for all sources together, instead of one for each.
    """

    low: float
    high: float
    default: float
    search: tuple[float, float] | None = (0.0, 1.0)
    shared: bool = False


WEIGHT = Parameter(low=-math.inf, high=math.inf, default=1.0)
DENSITY = Parameter(low=0.0, high=1.0, default=0.5)
LAMBDA = Parameter(low=-math.inf, high=math.inf, default=1.0, search=None, shared=True)

# What a method computes: (inputs, **parameters, **options) -> merged tensor; see `optmerge.merge.inputs`.
Function = Callable[..., "Tensor"]

Base = Literal["required", "optional", "ignored"]


@dataclass(frozen=True)
class Method:
    """A merge method: a pure function on tensors with what is searched in it.

    Attributes:
        name: The name by which configurations and recipes call it.
        function: `function(inputs, **parameters, **options)`, with a list for each per-source parameter and a number
            for each shared one.
        parameters: Its searchable parameters.
        options: Its options with their defaults, read from the function's signature.
        choices: The values that an option may have, for those annotated as `Literal`.
        base: Whether there must be a base, there may be one, or the method treats it as nothing special.
        sources: Least and greatest number of sources beside the base; None where there is no limit.
        sources_without_base: The same where an optional base is not given.
    """

    name: str
    function: Function
    parameters: Mapping[str, Parameter]
    options: Mapping[str, Option]
    choices: Mapping[str, tuple[Option, ...]]
    base: Base
    sources: tuple[int, int | None]
    sources_without_base: tuple[int, int | None]

    def per_source(self) -> dict[str, Parameter]:
        """The parameters that have one value a source."""
        return {name: parameter for name, parameter in self.parameters.items() if not parameter.shared}

    def shared(self) -> dict[str, Parameter]:
        """The parameters that have one value for all sources together."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.shared}

    def check_sources(self, count: int, has_base: bool, where: str) -> None:
        """Refuse a number of sources that the method cannot merge, or a missing base.

        Args:
            count: Sources beside the base.
            has_base: Whether there is a base.
            where: What the message begins with.

        Raises:
            UsageError: Naming what is missing or too much.
        """
        if self.base == "required" and not has_base:
            raise UsageError(f"{where}: {self.name} needs a base")
        least, most = self.sources if has_base or self.base != "optional" else self.sources_without_base
        if count < least or (most is not None and count > most):
            wanted = f"exactly {least}" if most == least else f"at least {least}" if most is None else f"{least}-{most}"
            beside = " beside the base" if has_base and self.base != "ignored" else ""
            raise UsageError(
                f"{where}: {self.name} merges {wanted} source{'s' * (wanted != 'exactly 1')}{beside}, got {count}"
            )

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
            if not isinstance(value, (bool, str)) and not 0 <= value < math.inf:
                raise UsageError(f"{where}.{name}: expected a number that is not negative, got {value!r}")
            if name in self.choices and value not in self.choices[name]:
                choices = ", ".join(map(str, self.choices[name]))
                raise UsageError(f"{where}.{name}: unknown {value!r}; known are {choices}")

    def check_value(self, name: str, value: float, where: str) -> None:
        """Refuse a value that has no meaning, such as a density of 1.5.

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
    *,
    base: Base,
    sources: tuple[int, int | None] = (1, None),
    sources_without_base: tuple[int, int | None] | None = None,
    **parameters: Parameter,
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
        without = sources if sources_without_base is None else sources_without_base
        return Method(function.__name__, function, parameters, options, choices, base, sources, without)

    return declare


@cache
def get_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: If there is none; the message lists those that there are.
    """
    return cast("Method", getattr(find(METHODS, name, "merge method"), name))


def per_source(name: str, value: float | Sequence[float | None] | None, default: float, count: int) -> list[float]:
    """One value a source: a single number counts for all of them, and None means the default.

    Raises:
        ValueError: If a list of another length is given.
    """
    plain: Any = getattr(value, "tolist", lambda: value)()  # tensors and arrays are as good as lists
    values = list(plain) if isinstance(plain, (list, tuple)) else [plain] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} source{'s' * (count != 1)}")
    for v in values:
        if v is not None and (isinstance(v, bool) or not isinstance(v, (int, float))):
            raise UsageError(f"{name}: expected a number, got {v!r}")
    return [default if v is None else float(v) for v in values]
