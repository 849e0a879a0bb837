"""Settings of a mergekit configuration: values, gradients over layers, and filters by tensor name."""

from collections.abc import Iterable, Mapping
from typing import Any

from optmerge.errors import UsageError

Scalar = bool | int | float | str
Settings = Mapping[str, Any]
"""Parameter name to a value; a list of values, which runs over the layers; or a list of {filter, value}."""


def check_settings(settings: Any, where: str) -> Settings:
    """What stands under `parameters`, with each setting in a form that `resolve` understands.

    Raises:
        UsageError: Naming the setting that is not.
    """
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise UsageError(f"{where}: expected parameters and their values, got {settings!r}")
    for name, setting in settings.items():
        place = f"{where}.{name}"
        entries = [setting] if isinstance(setting, Mapping) else setting if isinstance(setting, list) else []
        if any(isinstance(entry, Mapping) for entry in entries):
            for number, entry in enumerate(entries):
                _check_entry(entry, f"{place}[{number}]")
        elif not _is_plain(setting):
            raise UsageError(f"{place}: expected a value, a list of values, or a list of filters, got {setting!r}")
    return settings


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, Mapping) or "value" not in entry or not _is_plain(entry["value"]):
        raise UsageError(f"{where}: expected {{filter: ..., value: ...}} like the entries beside it, got {entry!r}")
    strange = sorted(str(key) for key in entry if key not in ("filter", "value"))
    if strange:
        raise UsageError(f"{where}.{strange[0]}: no such key; a filter has `filter` and `value`")
    if not isinstance(entry.get("filter"), str | None):
        raise UsageError(f"{where}.filter: expected a part of tensor names, got {entry['filter']!r}")


def _is_plain(setting: Any) -> bool:
    if isinstance(setting, list):
        return all(isinstance(value, bool | int | float | str) for value in setting)
    return isinstance(setting, bool | int | float | str)


def resolve(setting: Any, name: str, t: float, kind: type, where: str) -> Scalar | None:
    """The value of a setting for one tensor.

    Of filters, the first whose text is part of the tensor's name counts; none, or `*`, is part of all names. A list of
    n numbers is a broken line through them at t = 0, 1 / (n - 1), ..., 1; a list of others is cut into equal parts.

    Args:
        setting: As `check_settings` lets it pass.
        name: The tensor.
        t: Where its layer is among the layers, from 0 to 1.
        kind: What the parameter is: float, int or bool.
        where: What the message begins with.

    Returns:
        None if the setting says nothing about this tensor.

    Raises:
        UsageError: If a value is not of that kind.
    """
    if isinstance(setting, Mapping):
        setting = [setting]
    if isinstance(setting, list) and any(isinstance(entry, Mapping) for entry in setting):
        matching = (entry for entry in setting if entry.get("filter") in (None, "*") or entry["filter"] in name)
        entry = next(matching, None)
        return None if entry is None else resolve(entry["value"], name, t, kind, where)
    if not isinstance(setting, list):
        return _as_kind(setting, kind, where)
    values = [_as_kind(value, kind, where) for value in setting]
    if not values:
        return None
    if kind is bool:
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    before = int(place)
    after = min(len(values) - 1, before + 1)
    share = place - before
    return _as_kind((1 - share) * float(values[before]) + share * float(values[after]), kind, where)


def first_found(
    scopes: Iterable[tuple[Settings, str]], parameter: str, name: str, t: float, kind: type
) -> Scalar | None:
    """The value of a parameter in the first of several scopes that says something about a tensor.

    Args:
        scopes: Settings and what to call their place, those that count most first.
        parameter: The parameter.
        name: The tensor.
        t: As for `resolve`.
        kind: As for `resolve`.
    """
    for settings, where in scopes:
        if parameter in settings:
            value = resolve(settings[parameter], name, t, kind, f"{where}.{parameter}")
            if value is not None:
                return value
    return None


def _as_kind(value: Scalar, kind: type, where: str) -> Scalar:
    if kind is bool:
        words = dict.fromkeys(("true", "yes", "on", "y", "t", "1", "1.0"), True)
        words |= dict.fromkeys(("false", "no", "off", "n", "f", "0", "0.0"), False)
        found = words.get(str(value).lower())
        if found is None:
            raise UsageError(f"{where}: expected true or false, got {value!r}")
        return found
    try:
        number = float(value)
    except ValueError:
        raise UsageError(f"{where}: expected a number, got {value!r}") from None
    if kind is int:
        if number != int(number):
            raise UsageError(f"{where}: expected a whole number, got {value!r}")
        return int(number)
    return number
