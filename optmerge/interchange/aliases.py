"""What the models of a configuration are called in a recipe."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optmerge.interchange.configuration import ModelName
from optmerge.recipe import UNION


def aliases_of(models: Sequence[ModelName]) -> dict[ModelName, str]:
    """An alias for each model: the last part of its name; with the part before it where two would be called alike.

    What a model is called depends on which models there are, and not on their order.
    """
    short = {model: _word(_parts(model)[-1:]) for model in models}
    long = {model: _word(_parts(model)[-2:]) for model in models}
    taken = list(short.values())
    chosen = {model: short[model] if taken.count(short[model]) == 1 else long[model] for model in models}
    aliases: dict[ModelName, str] = {}
    for model in sorted(models, key=str):
        number, alias = 1, chosen[model]
        while alias in aliases.values() or alias == UNION:
            number += 1
            alias = f"{chosen[model]}-{number}"
        aliases[model] = alias
    return aliases


def location_of(model: ModelName, beside: Path, moved: Mapping[str, str], alias: str) -> str:
    """Where a model's weights, or its adapter's, are: where the user says, a folder, or a hub id.

    A folder is looked for where mergekit does, from the working folder, and then beside the configuration.
    """
    if alias in moved:
        return moved[alias]
    path = Path(model.path).expanduser()
    for folder in (path, beside / path):
        if folder.is_dir():
            return str(folder.absolute())
    return model.path


def written(location: str, revision: str | None) -> Any:
    """A whole model as a configuration names it; as a mapping where signs in its path would be misread."""
    if Path(location).is_dir():
        revision = None
    if any(sign in location for sign in "@+"):
        return {"model": {"path": location, "revision": revision}}
    return f"{location}@{revision}" if revision else location


def _parts(model: ModelName) -> list[str]:
    named = (model.adapter or model).path
    parts = [part for part in Path(named).expanduser().parts if part not in ("/", ".", "..")]
    return parts or [Path(named).expanduser().absolute().name or "model"]


def _word(parts: Sequence[str]) -> str:
    return re.sub(r"[^\w-]", "_", "-".join(parts)).strip("_") or "model"
