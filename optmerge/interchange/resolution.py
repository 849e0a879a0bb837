"""What a mergekit configuration says about every single tensor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from optmerge.errors import UsageError
from optmerge.interchange.configuration import Configuration, ModelName, Slice, SliceSource
from optmerge.interchange.settings import Scalar, Settings, first_found
from optmerge.interchange.their_methods import NEED_BASE, THEIR_METHODS, TheirParameter, our_name, our_value
from optmerge.method import Method, get_method
from optmerge.models.layers import depth, layer_of, renamed, stacked_names
from optmerge.models.vocabulary import OUTPUT_HEADS
from optmerge.recipe import Option

Aliases = Mapping[ModelName, str]


@dataclass(frozen=True)
class TensorValues:
    """How one tensor is merged: the sources that take part with their parameters, and what they share."""

    parameters: Mapping[str, Mapping[str, float]]
    shared: Mapping[str, float]

    def key(self) -> tuple[object, ...]:
        """Equal for tensors that are merged alike."""
        listed = ((alias, tuple(sorted(values.items()))) for alias, values in self.parameters.items())
        return tuple(sorted(listed)), tuple(sorted(self.shared.items()))


@dataclass(frozen=True)
class Resolved:
    """A configuration, worked out.

    Attributes:
        tensors: Every tensor of the merged model, sorted by name.
        options: Options of the method.
        layers: As in a recipe's node: which layer of each source each layer is; empty where all stay in place.
        notices: What people should know, one line each.
    """

    tensors: Mapping[str, TensorValues]
    options: Mapping[str, Option]
    layers: tuple[Mapping[str, int], ...]
    notices: list[str] = field(default_factory=list)


def resolve_tensors(configuration: Configuration, names: Sequence[str], aliases: Aliases) -> Resolved:
    """Work out the values of all parameters for all tensors, as mergekit does.

    A tensor outside of layers is merged by the settings of the first slice if it comes before the layers, of the last
    slice if it comes after them, at the beginning of every gradient.

    Args:
        configuration: The configuration.
        names: The tensors of each source.
        aliases: What each model is called.

    Raises:
        UsageError: If a value is missing or not right, or a slice names a layer that there is not.
    """
    method = get_method(configuration.method)
    slices = configuration.as_slices(lambda model: depth(names))
    for part in slices:
        _check_slice(configuration, part, method, depth(names))
    first, last = len(slices[0].sources), len(slices[-1].sources)
    if last > first:
        raise UsageError(
            f"{slices[-1].where}: mergekit takes what follows the layers from as many models as the first slice has, "
            f"{first} of these {last}; list as many in the first"
        )
    layers = [
        {aliases[source.model]: source.first + step for source in part.sources}
        for part in slices
        for step in range(_length(part))
    ]
    merged = stacked_names(names, [layer[min(layer)] for layer in layers])
    found: dict[str, TensorValues] = {}
    options: dict[str, dict[Option, str]] = {}
    for name in merged:
        place = _place(name, slices)
        values, seen = _values(configuration, method, place, name, aliases)
        found[name] = values
        for option, value in seen.items():
            options.setdefault(option, {}).setdefault(value, name)
    in_place = all(set(layer.values()) == {number} for number, layer in enumerate(layers))
    return Resolved(
        tensors=found,
        options={**method.options, **{option: _one(option, values) for option, values in options.items()}},
        layers=() if in_place and len(layers) == depth(names) else tuple(layers),
        notices=_notices(configuration, slices),
    )


@dataclass(frozen=True)
class _Place:
    """Where a tensor is: its slice, how far into the slice, and which models take part in it."""

    part: Slice
    step: int | None
    sources: tuple[SliceSource, ...]

    @property
    def t(self) -> float:
        if self.step is None:
            return 0.0
        return self.step / (_length(self.part) - 1) if _length(self.part) > 1 else 1.0


def _length(part: Slice) -> int:
    return part.sources[0].end - part.sources[0].first


def _place(name: str, slices: Sequence[Slice]) -> _Place:
    layer = layer_of(name)
    if layer is None:
        part = slices[0] if is_before_layers(name) else slices[-1]
        return _Place(part, None, part.sources)
    for part in slices:
        if layer < _length(part):
            return _Place(part, layer, part.sources)
        layer -= _length(part)
    raise AssertionError(f"{name} is in no slice")


def is_before_layers(name: str) -> bool:
    """Whether a tensor outside of layers belongs to the input embedding."""
    return not name.endswith(OUTPUT_HEADS) and any(word in name for word in ("embed", "wte", "wpe"))


def _check_slice(configuration: Configuration, part: Slice, method: Method, layers: int) -> None:
    models = [source.model for source in part.sources]
    base = configuration.base if method.base != "ignored" else None
    if base is not None and base not in models:
        raise UsageError(f"{part.where}: base_model {base} is not among the sources; mergekit reads its layers there")
    if configuration.base is None and configuration.method in NEED_BASE:
        raise UsageError(f"base_model: {configuration.method} needs one")
    method.check_sources(len(models) - (base is not None), base is not None, part.where)
    for number, source in enumerate(part.sources):
        if source.end > layers:
            raise UsageError(
                f"{part.where}.sources[{number}].layer_range: {source.model} has {layers} layers, not {source.end}"
            )


def _values(
    configuration: Configuration, method: Method, place: _Place, name: str, aliases: Aliases
) -> tuple[TensorValues, dict[str, Option]]:
    """The values for one tensor, and the options of the method that they imply."""
    base = configuration.base if method.base != "ignored" else None
    per_source: dict[str, dict[str, float]] = {
        aliases[source.model]: {key: parameter.default for key, parameter in method.per_source().items()}
        for source in place.sources
        if source.model != base
    }
    shared = {key: parameter.default for key, parameter in method.shared().items()}
    options: dict[str, Option] = {}
    for theirs, parameter in THEIR_METHODS[configuration.method].items():
        if not parameter.effect:
            continue
        ours = our_name(theirs)
        if parameter.scope != "shared":
            for source in place.sources:
                if source.model != base:
                    own = name if place.step is None else renamed(name, source.first + place.step)
                    value = _value(configuration, theirs, parameter, place, own, source)
                    per_source[aliases[source.model]][ours] = _checked(method, ours, value, f"{source.model}, {own}")
            continue
        value = _value(configuration, theirs, parameter, place, name, None)
        if ours in method.options:
            options[ours] = _as_option(method, ours, our_value(theirs, value))
        elif ours not in method.parameters:
            if value != parameter.default:
                raise UsageError(f"parameters.{theirs}: {method.name} has no such setting here, got {value!r}")
        elif method.parameters[ours].shared:
            shared[ours] = _checked(method, ours, value, name)
        else:
            for values in per_source.values():
                values[ours] = _checked(method, ours, value, name)
    return TensorValues(per_source, shared), options


def _value(
    configuration: Configuration,
    name: str,
    parameter: TheirParameter,
    place: _Place,
    tensor: str,
    source: SliceSource | None,
) -> Scalar:
    scopes = _scopes(configuration, place, source)
    value = first_found(scopes, name, tensor, place.t, parameter.kind)
    if value is None:
        value = parameter.default
    if value is None:
        whose = f" of {source.model}" if source else ""
        raise UsageError(f"{place.part.where}: nothing says what the {name}{whose} is for {tensor}")
    return value


def _scopes(configuration: Configuration, place: _Place, source: SliceSource | None) -> Iterator[tuple[Settings, str]]:
    if source is not None:
        yield source.parameters, f"{place.part.where}, {source.model}: parameters"
    yield place.part.parameters, f"{place.part.where}.parameters"
    yield configuration.parameters, "parameters"


def _checked(method: Method, name: str, value: Scalar, where: str) -> float:
    method.check_value(name, float(value), where)
    return float(value)


def _as_option(method: Method, name: str, value: Scalar) -> Option:
    """A value in the type that our option has."""
    if isinstance(method.options[name], bool):
        return bool(value)
    return value


def _one(option: str, values: Mapping[Option, str]) -> Option:
    if len(values) > 1:
        (first, one), (second, other) = list(values.items())[:2]
        raise UsageError(
            f"parameters.{option}: a recipe has one value for all tensors, but it is {first} for {one} and {second} "
            f"for {other}"
        )
    return next(iter(values))


def _notices(configuration: Configuration, slices: Sequence[Slice]) -> list[str]:
    """Settings that change nothing, as in mergekit."""
    notices = []
    known = THEIR_METHODS[configuration.method]
    everywhere = [("parameters", configuration.parameters)]
    everywhere += [(f"{part.where}.parameters", part.parameters) for part in slices]
    everywhere += [(f"parameters of {s.model}", s.parameters) for part in slices for s in part.sources]
    for where, settings in everywhere:
        for name in settings:
            alone = where.startswith("parameters of ") and name in known and known[name].scope == "shared"
            if name not in known:
                notices.append(f"{where}: {name} is no parameter of {configuration.method}, and has no effect")
            elif alone:
                notices.append(f"{where}: {name} is shared by all models, and has no effect under one of them")
            elif not known[name].effect and name != "int8_mask":
                notices.append(f"{where}: {name} has no effect on {configuration.method}")
    return list(dict.fromkeys(notices))
