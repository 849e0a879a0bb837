"""A mergekit configuration, read: what is merged with what, in one form for `models` and `slices`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optmerge.errors import UsageError
from optmerge.interchange.settings import Settings, check_settings
from optmerge.interchange.their_methods import THEIR_METHODS
from optmerge.recipe import DTYPES, UNION
from optmerge.registered import did_you_mean

_KEYS = (
    "merge_method",
    "models",
    "slices",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)


@dataclass(frozen=True, order=True)
class ModelName:
    """A model as a configuration names it: `PATH`, `PATH@REVISION`, or `BASE+ADAPTER`."""

    path: str
    revision: str | None = None
    adapter: "ModelName | None" = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.path}{at}" + (f"+{self.adapter}" if self.adapter else "")


@dataclass(frozen=True)
class SliceSource:
    """The layers of one model that take part in a slice, from `first` up to, but not including, `end`."""

    model: ModelName
    first: int
    end: int
    parameters: Settings


@dataclass(frozen=True)
class Slice:
    """Layers that follow each other in the merged model.

    Attributes:
        sources: Where they come from; all have the same number of layers.
        parameters: Settings of this slice.
        where: What messages call it.
    """

    sources: tuple[SliceSource, ...]
    parameters: Settings
    where: str


@dataclass(frozen=True)
class Configuration:
    """A mergekit configuration of one merge.

    Attributes:
        method: Name of the merge method.
        base: The base model, if one is given.
        models: Whole models and their settings; None where there are slices.
        slices: Slices; None where there are models.
        parameters: Settings of the whole merge.
        dtype: Type that it is computed in, if one is given.
        out_dtype: Type of the merged weights, if another is given.
        tokenizer: `union`, `base`, a model, or None where nothing is said.
        pad_vocabulary_to: Vocabulary rows are rounded up to a multiple of this.
        notices: What people should know, one line each.
    """

    method: str
    base: ModelName | None
    models: tuple[tuple[ModelName, Settings], ...] | None
    slices: tuple[Slice, ...] | None
    parameters: Settings
    dtype: str | None
    out_dtype: str | None
    tokenizer: ModelName | str | None
    pad_vocabulary_to: int | None
    notices: tuple[str, ...] = ()

    def names(self) -> list[ModelName]:
        """All models that are named, in the order of their names; the base is among them."""
        found = {model for model, _ in self.models or ()}
        found |= {source.model for part in self.slices or () for source in part.sources}
        found |= {self.base} if self.base else set()
        return sorted(found | ({self.tokenizer} if isinstance(self.tokenizer, ModelName) else set()), key=str)

    def merged(self) -> list[ModelName]:
        """The models that are merged, in the order in which they are written."""
        listed = [model for model, _ in self.models or ()]
        listed += [source.model for part in self.slices or () for source in part.sources]
        return list(dict.fromkeys(listed))

    def as_slices(self, depth: Callable[[ModelName], int]) -> tuple[Slice, ...]:
        """The slices; whole models are one, in which the base takes part whether it is listed or not.

        Args:
            depth: Tells how many layers a model has.

        Raises:
            UsageError: If the models have different numbers of layers.
        """
        if self.slices is not None:
            return self.slices
        listed = list(self.models or ())
        if self.base is not None and self.base not in [model for model, _ in listed]:
            listed.append((self.base, {}))
        sources = tuple(SliceSource(model, 0, depth(model), settings) for model, settings in listed)
        _check_lengths(sources, "models")
        return (Slice(sources, {}, "models"),)


def read_configuration(path: Path) -> Configuration:
    """Read a file for mergekit-yaml.

    Raises:
        UsageError: In one line: what is not right, or cannot be a recipe of ours.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML ({str(error).splitlines()[0]})") from error
    if len(documents) != 1 or not isinstance(documents[0], Mapping):
        what = f"{len(documents)} documents" if len(documents) > 1 else "no mapping of keys to values"
        raise UsageError(f"{path} holds {what}: a mergekit configuration of one merge is wanted")
    try:
        return parse_configuration(documents[0])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def parse_configuration(document: Mapping[str, Any]) -> Configuration:
    """A configuration from the content of its file.

    Raises:
        UsageError: In one line, which begins with the key that is not right.
    """
    notices: list[str] = []
    if document.get("modules") is not None:
        raise UsageError("modules: parts of a model that are merged differently have no form in a recipe")
    _look_at_keys(document, _KEYS, "", notices)
    method = str(document.get("merge_method"))
    if method not in THEIR_METHODS:
        hint = did_you_mean(method, list(THEIR_METHODS))
        raise UsageError(f"merge_method: unknown {method!r}{hint}; known are {', '.join(sorted(THEIR_METHODS))}")
    given = [key for key in ("models", "slices") if document.get(key)]
    if len(given) != 1:
        raise UsageError(f"{' and '.join(given) or 'models, slices'}: exactly one of models and slices must be given")
    base = document.get("base_model")
    tokenizer, pad_vocabulary_to = _tokenizer(document, notices)
    if document.get("chat_template"):
        notices.append("chat_template is not part of a recipe: the merged model has that of its tokenizer")
    return Configuration(
        method=method,
        base=None if base is None else model_name(base, "base_model"),
        models=_models(document["models"], notices) if given == ["models"] else None,
        slices=_slices(document["slices"], base, notices) if given == ["slices"] else None,
        parameters=check_settings(document.get("parameters"), "parameters"),
        dtype=_dtype(document, "dtype"),
        out_dtype=_dtype(document, "out_dtype"),
        tokenizer=tokenizer,
        pad_vocabulary_to=pad_vocabulary_to,
        notices=tuple(notices),
    )


def model_name(written: Any, where: str) -> ModelName:
    """A model as it is written: a text, or a mapping of `model` and `lora`.

    Raises:
        UsageError: If it is neither.
    """
    if isinstance(written, Mapping):
        if written.get("override_architecture"):
            raise UsageError(f"{where}.override_architecture: a recipe cannot call a model what it is not")
        if "path" in written:
            return ModelName(str(written["path"]), written.get("revision"))
        whole = model_name(written.get("model"), f"{where}.model")
        below = written.get("lora")
        return whole if below is None else ModelName(whole.path, whole.revision, model_name(below, f"{where}.lora"))
    if not isinstance(written, str) or not written:
        raise UsageError(f"{where}: expected a folder or hub id, got {written!r}")
    parts = written.split("+")
    if len(parts) > 2 or any(not part or part.count("@") > 1 for part in parts):
        raise UsageError(f"{where}: cannot read {written!r}; PATH, PATH@REVISION and BASE+ADAPTER can be read")
    names = [ModelName(path, revision or None) for path, _, revision in (part.partition("@") for part in parts)]
    return names[0] if len(names) == 1 else ModelName(names[0].path, names[0].revision, names[1])


def _models(entries: Any, notices: list[str]) -> tuple[tuple[ModelName, Settings], ...]:
    found = []
    for number, entry in enumerate(_list(entries, "models")):
        where = f"models[{number}]"
        _look_at_keys(entry, ("model", "parameters"), where, notices)
        settings = check_settings(entry.get("parameters"), f"{where}.parameters")
        found.append((model_name(entry.get("model"), f"{where}.model"), settings))
    _check_different([model for model, _ in found], "models")
    return tuple(found)


def _slices(entries: Any, base: Any, notices: list[str]) -> tuple[Slice, ...]:
    found = []
    for number, entry in enumerate(_list(entries, "slices")):
        where = f"slices[{number}]"
        _look_at_keys(entry, ("sources", "base_model", "residual_weight", "parameters"), where, notices)
        own = entry.get("base_model")
        if own is not None and (base is None or model_name(own, f"{where}.base_model") != model_name(base, "")):
            raise UsageError(f"{where}.base_model: a recipe has one base for all layers; give base_model once")
        if entry.get("residual_weight") is not None:
            notices.append(f"{where}.residual_weight has no effect, as in mergekit")
        sources = tuple(
            _slice_source(source, f"{where}.sources[{place}]", notices)
            for place, source in enumerate(_list(entry.get("sources"), f"{where}.sources"))
        )
        _check_different([source.model for source in sources], f"{where}.sources")
        _check_lengths(sources, where)
        found.append(Slice(sources, check_settings(entry.get("parameters"), f"{where}.parameters"), where))
    return tuple(found)


def _slice_source(entry: Any, where: str, notices: list[str]) -> SliceSource:
    _look_at_keys(entry, ("model", "layer_range", "parameters"), where, notices)
    span = entry.get("layer_range")
    whole = isinstance(span, list) and len(span) == 2 and all(type(number) is int for number in span)
    if not whole or not 0 <= span[0] < span[1]:
        raise UsageError(f"{where}.layer_range: expected [FIRST, END], END not included, got {span!r}")
    settings = check_settings(entry.get("parameters"), f"{where}.parameters")
    return SliceSource(model_name(entry.get("model"), f"{where}.model"), span[0], span[1], settings)


def _tokenizer(document: Mapping[str, Any], notices: list[str]) -> tuple[ModelName | str | None, int | None]:
    source, settings = document.get("tokenizer_source"), document.get("tokenizer")
    if source and settings:
        raise UsageError("tokenizer_source, tokenizer: only one of them can be given")
    if settings is None:
        return _tokenizer_source(source, "tokenizer_source"), None
    if not isinstance(settings, Mapping):
        raise UsageError(f"tokenizer: expected settings such as source, got {settings!r}")
    _look_at_keys(settings, ("source", "tokens", "pad_to_multiple_of"), "tokenizer", notices)
    if settings.get("tokens"):
        raise UsageError("tokenizer.tokens: rules for single tokens have no form in a recipe")
    padding = settings.get("pad_to_multiple_of")
    if padding is not None and (type(padding) is not int or padding < 1):
        raise UsageError(f"tokenizer.pad_to_multiple_of: expected a whole number of at least 1, got {padding!r}")
    return _tokenizer_source(settings.get("source", UNION), "tokenizer.source"), padding


def _tokenizer_source(source: Any, where: str) -> ModelName | str | None:
    return source if source in (None, UNION, "base") else model_name(source, where)


def _dtype(document: Mapping[str, Any], key: str) -> str | None:
    written = document.get(key)
    if not written:
        return None
    dtype = str(written).removeprefix("torch.")
    if dtype not in DTYPES:
        raise UsageError(f"{key}: a recipe's weights are {', '.join(DTYPES)}, got {written!r}")
    return dtype


def _look_at_keys(entry: Any, known: Sequence[str], where: str, notices: list[str]) -> None:
    """Refuse a merge method where none can be; tell of other keys that mergekit does not look at either."""
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where}: expected keys such as {known[0]}, got {entry!r}")
    for key in entry:
        if key in known:
            continue
        place = f"{where}.{key}" if where else str(key)
        if key == "merge_method":
            raise UsageError(f"{place}: one merge has one method; merge in steps for several")
        hint = did_you_mean(str(key), list(known))
        notices.append(f"{place} is no key of mergekit's, and has no effect{hint}")


def _list(entries: Any, where: str) -> list[Any]:
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{where}: expected a list, got {entries!r}")
    return entries


def _check_different(models: Sequence[ModelName], where: str) -> None:
    for model in models:
        if models.count(model) > 1:
            raise UsageError(f"{where}: {model} is listed {models.count(model)} times; mergekit refuses that, too")


def _check_lengths(sources: Sequence[SliceSource], where: str) -> None:
    lengths = {source.end - source.first for source in sources}
    if len(lengths) > 1:
        told = ", ".join(f"{source.model} has {source.end - source.first}" for source in sources)
        raise UsageError(f"{where}: all sources must have the same number of layers, but {told}")
