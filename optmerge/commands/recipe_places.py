"""Where recipes lie: in the folder of a study, in that of a model, in weights themselves, or on the hub."""

from pathlib import Path

from optmerge.commands.study_folder import BEST, RESULT
from optmerge.errors import UsageError
from optmerge.models.form import Form
from optmerge.recipe import RECIPE, Recipe


def recipe_file(place: Path) -> Path:
    """The recipe that a file or a folder names.

    Args:
        place: A recipe, or the folder of a model or of a study.

    Raises:
        UsageError: If a folder has none.
    """
    place = place.expanduser()
    if not place.is_dir():
        return place
    for found in (place / RECIPE, place / BEST / RECIPE):
        if found.is_file():
            return found
    raise UsageError(f"there is no recipe in the folder {place}: neither {RECIPE} nor {BEST}/{RECIPE}")


def model_folder(folder: Path) -> Path:
    """The folder itself, or that of the winner where it is a study's."""
    return folder / BEST if (folder / BEST / RECIPE).is_file() and not (folder / "config.json").is_file() else folder


def recipe_at(model: str) -> tuple[Recipe, str]:
    """The recipe of a model, and where it was found.

    Args:
        model: A folder with a model, or with a study; a recipe; a safetensors or GGUF file; or a hub id.

    Raises:
        UsageError: If there is none.
    """
    from optmerge.models.product import recipe_of

    place = Path(model).expanduser()
    found = recipe_of(place) if place.exists() else _on_hub(model)
    if found is None and (place / RESULT).is_file():  # the folder of a study
        found = recipe_of(place / BEST)
    if found is None:
        raise UsageError(
            f"{model} is no model that optmerge has made: it has no {RECIPE}, and its weights name no recipe"
        )
    return found[0], str(found[1])


def _on_hub(model: str) -> tuple[Recipe, str] | None:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, NotASafetensorsRepoError

    from optmerge.models.product import embedded_recipe, recipe_of
    from optmerge.recipe import RECIPE_KEY

    try:
        found = recipe_of(Path(snapshot_download(model, allow_patterns=[RECIPE])))
        if found:
            return found[0], f"{model}/{found[1].name}"
        files = HfApi().get_safetensors_metadata(model).files_metadata  # headers alone
        texts = {name: file.metadata.get(RECIPE_KEY) for name, file in sorted(files.items())}
        return next(
            ((embedded_recipe(text, f"{model}/{name}"), f"{model}/{name}") for name, text in texts.items() if text),
            None,
        )
    except NotASafetensorsRepoError:
        return None
    except HFValidationError as error:
        raise UsageError(f"there is no folder or file {model!r}") from error
    except UsageError:
        raise
    except Exception as error:  # the client's network errors share no class of their own
        raise UsageError(
            f"{model} is neither a folder or file here, nor can it be had from the hub ({type(error).__name__})"
        ) from error


def form_at_place(model: str) -> Form | None:
    """The form of a model's weights where it is not that of an ordinary checkpoint, for what `recipe_at` has found.

    Args:
        model: As for `recipe_at`.
    """
    from optmerge.models.form import form_at

    place = Path(model).expanduser()
    return form_at(model_folder(place)) if place.exists() else _form_on_hub(model)


def _form_on_hub(model: str) -> Form | None:
    """What the model's card says, as it is small: the form itself is in the weights."""
    from huggingface_hub import snapshot_download

    from optmerge.models.source_licences import CARD
    from optmerge.reports.card import form_in

    try:
        return form_in((Path(snapshot_download(model, allow_patterns=[CARD])) / CARD).read_text(encoding="utf-8"))
    except Exception:  # the client's network errors share no class of their own; a model need not have a card
        return None
