"""The recipe of a model that optmerge has made: beside its weights, or in their own metadata."""

import json
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.models.shard import read_metadata
from optmerge.recipe import RECIPE, RECIPE_KEY, Recipe, load_recipe, read_recipe


def recipe_of(place: Path) -> tuple[Recipe, Path] | None:
    """The recipe of a model, and the file that it stands in; None if there is none.

    Args:
        place: The model's folder, one of its safetensors files, or a recipe.

    Raises:
        UsageError: If there is a recipe that cannot be read.
    """
    if place.is_dir():
        if (place / RECIPE).is_file():
            return load_recipe(place / RECIPE), place / RECIPE
        return next((found for file in sorted(place.glob("*.safetensors")) if (found := _inside(file))), None)
    if place.suffix == ".safetensors":
        return _inside(place)
    return load_recipe(place), place


def _inside(file: Path) -> tuple[Recipe, Path] | None:
    try:
        text = read_metadata(file).get(RECIPE_KEY)
    except ValueError as error:
        raise UsageError(f"{file} {error}") from error
    return None if text is None else (embedded_recipe(text, file), file)


def embedded_recipe(text: str, place: Path | str) -> Recipe:
    """The recipe that stands in the metadata of weights.

    Raises:
        UsageError: If it is none, or was changed.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{place} has metadata called {RECIPE_KEY} that is no recipe: it is not JSON") from error
    return read_recipe(document, place)
