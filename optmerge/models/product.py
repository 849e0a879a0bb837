"""The recipe of a model that optmerge has made: beside its weights, or in their own metadata."""

import json
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.models.shard import read_metadata
from optmerge.recipe import RECIPE, RECIPE_KEY, Recipe, load_recipe, read_recipe


def recipe_of(place: Path) -> tuple[Recipe, Path] | None:
    """The recipe of a model, and the file that it stands in; None if there is none.

    Args:
        place: The model's folder, one of its safetensors or GGUF files, or a recipe.

    Raises:
        UsageError: If there is a recipe that cannot be read, or a library is missing that reads the file.
    """
    if place.is_dir():
        if (place / RECIPE).is_file():
            return load_recipe(place / RECIPE), place / RECIPE
        files = sorted(place.glob("*.safetensors")) or sorted(place.glob("*.gguf"))
        return next((found for file in files if (found := _inside(file))), None)
    if place.suffix in (".safetensors", ".gguf"):
        return _inside(place)
    return load_recipe(place), place


def _inside(file: Path) -> tuple[Recipe, Path] | None:
    try:
        text = _in_gguf(file) if file.suffix == ".gguf" else read_metadata(file).get(RECIPE_KEY)
    except ValueError as error:
        raise UsageError(f"{file} {error}") from error
    return None if text is None else (embedded_recipe(text, file), file)


def _in_gguf(file: Path) -> str | None:
    """The text of a recipe in a GGUF file.

    Raises:
        UsageError: If the library that reads such files is not installed.
        ValueError: If the file is none.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UsageError(f"{file}: gguf reads such files, and is not there; pip install 'optmerge[gguf]'") from error
    try:
        field = GGUFReader(file).get_field(RECIPE_KEY)
    except (ValueError, IndexError, UnicodeDecodeError) as error:  # as the library comes upon what is missing
        raise ValueError("is no whole GGUF file") from error
    return None if field is None else str(field.contents())


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
