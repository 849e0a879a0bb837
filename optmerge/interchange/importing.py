"""A mergekit configuration as a recipe: its sources found, opened and hashed, its settings worked out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.interchange.aliases import aliases_of, location_of
from optmerge.interchange.configuration import Configuration, ModelName
from optmerge.interchange.grouping import groups_of
from optmerge.interchange.resolution import Resolved, resolve_tensors
from optmerge.interchange.their_methods import RANDOM
from optmerge.method import get_method
from optmerge.models import (
    Checkpoint,
    Fit,
    check_finite,
    check_fit,
    commit_of,
    missing,
    open_checkpoints,
    resolve,
    scan,
    tokens_sha256,
)
from optmerge.models.source_licences import licence_of
from optmerge.recipe import DTYPES, UNION, CheckpointNode, MergeNode, Node, Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Imported:
    """A configuration, imported.

    Attributes:
        recipe: What it describes.
        names: The tensors of the merged model.
        notices: What people should know, one line each.
    """

    recipe: Recipe
    names: tuple[str, ...]
    notices: list[str]


@dataclass(frozen=True)
class _Sources:
    """The models of a configuration, opened.

    Attributes:
        aliases: What each is called.
        locations: Alias to where it is; of an adapter, where the adapter is.
        below: For adapters: alias to that of the checkpoint below, which may be no source itself.
        revisions: Alias to the revision that the configuration names, if it does.
        checkpoints: By alias, with what adapters lie over.
    """

    aliases: Mapping[ModelName, str]
    locations: Mapping[str, str]
    below: Mapping[str, str]
    revisions: Mapping[str, str | None]
    checkpoints: Mapping[str, Checkpoint]

    def opened(self) -> dict[str, Checkpoint]:
        """The sources alone."""
        return {alias: self.checkpoints[alias] for alias in self.aliases.values()}


def import_configuration(
    configuration: Configuration,
    *,
    beside: Path,
    moved: Mapping[str, str],
    report: Callable[[str], Callable[[int, int], None]],
) -> Imported:
    """Make a recipe of a configuration.

    Args:
        configuration: What to import.
        beside: The folder of its file; models may be given relative to it.
        moved: Alias to folder, for models that are not where the configuration says.
        report: Given a label, a callback for bytes read so far and in all.

    Raises:
        UsageError: If a model cannot be had, they do not fit together, or the configuration says what no recipe can.
    """
    method = get_method(configuration.method)
    sources = _open(configuration, beside, moved)
    checkpoints = sources.opened()
    tokenizer = _tokenizer(configuration, sources.aliases)
    base = None if configuration.base is None else sources.aliases[configuration.base]
    fit = check_fit(checkpoints, base=base, tokenizer=tokenizer, pad_vocabulary_to=configuration.pad_vocabulary_to)
    resolved = resolve_tensors(configuration, fit.names, sources.aliases)
    dtype, dtype_notices = _dtype(configuration, fit, checkpoints)
    node = MergeNode(
        method=configuration.method,
        sources=_nodes(sources, fit, report),
        base=base if method.base != "ignored" else None,
        tokenizer=tokenizer,
        dtype=dtype,
        groups=groups_of(resolved.tensors),
        options=resolved.options,
        layers=resolved.layers,
        vocabulary_base=base if fit.alignment else None,
        pad_vocabulary_to=configuration.pad_vocabulary_to,
    )
    notices = [*configuration.notices, *resolved.notices, *dtype_notices, *fit.notices]
    notices += _choice_notices(configuration, resolved, fit, tokenizer)
    return Imported(Recipe(node), tuple(resolved.tensors), notices)


def _open(configuration: Configuration, beside: Path, moved: Mapping[str, str]) -> _Sources:
    aliases = aliases_of(configuration.names())
    places: dict[str, ModelName] = {alias: model.adapter or model for model, alias in aliases.items()}
    below: dict[str, str] = {}
    for model, alias in aliases.items():
        if model.adapter is not None:
            whole = ModelName(model.path, model.revision)
            below[alias] = aliases.get(whole, f"{alias}.over")
            places.setdefault(below[alias], whole)
    for alias in moved:
        if alias not in places:
            raise UsageError(f"sources.{alias}: no such source; there are {', '.join(sorted(places))}")
    locations = {alias: location_of(model, beside, moved, alias) for alias, model in places.items()}
    revisions = {alias: None if alias in moved else model.revision for alias, model in places.items()}
    lines = [missing(locations[alias], revisions[alias]) for alias in sorted(places)]
    absent = [f"{alias}: {line}" for alias, line in zip(sorted(places), lines, strict=True) if line]
    if absent:
        hint = "say where a model is with sources.ALIAS=FOLDER"
        raise UsageError(f"models of the configuration are missing ({hint})\n  " + "\n  ".join(absent))
    folders = {alias: resolve(locations[alias], revisions[alias]) for alias in sorted(places)}
    return _Sources(aliases, locations, below, revisions, open_checkpoints(folders, below))


def _tokenizer(configuration: Configuration, aliases: Mapping[ModelName, str]) -> str:
    source = configuration.tokenizer
    if source == UNION:
        return UNION
    if isinstance(source, ModelName):
        return aliases[source]
    # Nothing said, or `base`: the base's, and without one that of the first model, as far as mergekit has a rule.
    return aliases[configuration.base or configuration.merged()[0]]


def _dtype(configuration: Configuration, fit: Fit, checkpoints: Mapping[str, Checkpoint]) -> tuple[str, list[str]]:
    """The type of the merged weights, and what is to be said about it."""
    import torch

    types = {c.dtype(name) for c in checkpoints.values() for name in fit.names}
    stored = str(reduce(torch.promote_types, types)).removeprefix("torch.")
    dtype = configuration.out_dtype or configuration.dtype or stored
    if dtype not in DTYPES:
        raise UsageError(f"dtype: the models are stored as {dtype}; a recipe's weights are {', '.join(DTYPES)}")
    notices = []
    if configuration.dtype in ("bfloat16", "float16") or (configuration.dtype is None and stored != "float32"):
        notices.append(
            f"mergekit computes this merge in {configuration.dtype or stored}; here it is computed in float32 and "
            f"rounded once, to {dtype}"
        )
    if configuration.dtype is None and len(types) > 1:
        told = ", ".join(sorted(str(found).removeprefix("torch.") for found in types))
        notices.append(f"the models' types differ ({told}) and no dtype is given: all merged weights are {dtype}")
    return dtype, notices


def _nodes(sources: _Sources, fit: Fit, report: Callable[[str], Callable[[int, int], None]]) -> dict[str, Node]:
    scans = {
        alias: scan(checkpoint, report(f"{alias}: hashing, and looking for NaN"))
        for alias, checkpoint in sorted(sources.checkpoints.items())
    }
    check_finite(scans)

    def node(alias: str) -> CheckpointNode:
        checkpoint, below = sources.checkpoints[alias], sources.below.get(alias)
        location = sources.locations[alias]
        folder, revision = Path(location).expanduser(), sources.revisions[alias]
        said = licence_of(location, revision)
        return CheckpointNode(
            location=str(folder.absolute()) if folder.is_dir() else location,
            weights_sha256=scans[alias].weights_sha256,
            revision=None if folder.is_dir() else commit_of(resolve(location, revision)) or revision,
            over=None if below is None else node(below),
            tokens_sha256=tokens_sha256(checkpoint) if fit.alignment else None,
            licence=said.text if said.found else None,
        )

    return {alias: node(alias) for alias in sorted(sources.aliases.values())}


def _choice_notices(configuration: Configuration, resolved: Resolved, fit: Fit, tokenizer: str) -> list[str]:
    """Where this merge and mergekit's may differ although the settings are the same."""
    notices = []
    dropping = any(
        values.get("density", 1.0) < 1.0
        for tensor in resolved.tensors.values()
        for values in tensor.parameters.values()
    )
    if configuration.method in RANDOM and dropping:
        notices.append("entries are dropped at random, and not the same ones that mergekit drops")
    if configuration.base is None and configuration.tokenizer in (None, "base") and len(configuration.merged()) > 1:
        notices.append(
            f"neither base_model nor a tokenizer is given: configuration and tokenizer are those of {tokenizer}; "
            "mergekit takes those of any of the models"
        )
    step = configuration.pad_vocabulary_to or 1
    rows = -(-len(fit.vocabulary.ids) // step) * step
    if configuration.tokenizer is not None and rows < fit.vocabulary.rows:
        notices.append(f"mergekit cuts the embedding to {rows} rows, its tokens; here it has {fit.vocabulary.rows}")
    return notices
