"""What a finished search tells of its winner to those who are given it: the facts, the card, and pictures."""

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.commands.study_folder import RESULT
from optmerge.errors import UsageError
from optmerge.models.form import Form
from optmerge.models.licences import Combined
from optmerge.models.source_licences import CARD, recipe_licence
from optmerge.recipe import RECIPE, Recipe, load_recipe
from optmerge.tasks.task import SPLITS

if TYPE_CHECKING:
    from optmerge.commands.assembly import Assembly
    from optmerge.config import Config

EDITED = "README.edited.md"
"""In a study's folder: the card of an earlier winner, which somebody edited."""

_LANGUAGES = {"math_ja": "ja", "gsm8k": "en"}  # of tasks that have one


def facts_to_publish(assembly: "Assembly", recipe: Recipe) -> dict[str, Any]:
    """What result.json says of a winner for the sake of its card: licences, languages, data, and how was searched."""
    from optmerge.commands.policy import licences_in_result

    config = assembly.config
    return {
        **licences_in_result(config, assembly.licences, recipe),
        "languages": _languages(config),
        "data": _data(config),
        "search": {
            "sampler": config.sampler["name"],
            "pruner": config.pruner["name"],
            "seed": config.study.seed,
            "problems": config.study.problems or len(assembly.plugins.task.problems("search")),
        },
        **({"search_on_public_test": True} if config.task.get("search_on_public_test") else {}),
        "optmerge": importlib.metadata.version("optmerge"),
    }


def _languages(config: "Config") -> list[str]:
    if config.policy.language:
        return list(config.policy.language)
    found = []
    for task in _tasks(config):
        name = task["name"]
        found.append(task.get("language", "ja") if name == "mgsm" else _LANGUAGES.get(name))
    return sorted({language for language in found if language})


def _tasks(config: "Config") -> list[Mapping[str, Any]]:
    """The settings of the task, or of the parts of a composite one."""
    if config.task["name"] != "composite":
        return [config.task]
    return [part["task"] for part in config.task["parts"].values()]


def _data(config: "Config") -> dict[str, dict[str, str]]:
    """The data sets of the hub that problems came from, by split; nothing of files that lie here."""
    found: dict[str, dict[str, str]] = {}
    for split, settings in ((split, task.get(split)) for split in SPLITS for task in _tasks(config)):
        if isinstance(settings, Mapping) and settings.get("hub") and not settings.get("path"):
            kept = (
                ("hub", "config", "revision", "file")
                if settings.get("file")
                else ("hub", "config", "split", "revision")
            )
            found[split] = {key: str(settings[key]) for key in kept if settings.get(key)}
    return found


def card_of(
    recipe: Recipe,
    name: str,
    result: Mapping[str, Any] | None,
    folder: Path | None = None,
    licence: Combined | None = None,
    form: Form | None = None,
) -> str:
    """The card of a model.

    Args:
        recipe: The model.
        name: What it is called.
        result: The result.json of the search that found it, if that is known.
        folder: Where the card will lie: pictures there are shown.
        licence: What it is under, where somebody has said so.
        form: In what form its weights are, if they are no ordinary checkpoint.
    """
    from optmerge.reports.card import PICTURES, model_card
    from optmerge.reports.drawing import shown_on

    pictures = {
        file: shown
        for file in PICTURES
        if folder is not None and (folder / file).is_file() and (shown := shown_on(folder / file))
    }
    settled = licence or licence_of_product(recipe, result)
    return model_card(recipe, settled, name=name, result=result, pictures=pictures, form=form)


def papers_of(recipe: Recipe, name: str, result: Mapping[str, Any] | None, form: Form | None = None) -> dict[str, str]:
    """What lies beside a model's weights, by file name: its card, and the result that the card is made from.

    Args:
        recipe: As for `card_of`.
        name: As for `card_of`.
        result: As for `card_of`.
        form: As for `card_of`.
    """
    card = {CARD: card_of(recipe, name, result, form=form)}
    return card if result is None else card | {RESULT: json.dumps(result, indent=2, ensure_ascii=False) + "\n"}


def licence_of_product(recipe: Recipe, result: Mapping[str, Any] | None) -> Combined:
    """What a model is under: as the search settled it, or else by its recipe alone."""
    terms = (result or {}).get("licence_terms")
    if terms is None:
        return recipe_licence(recipe)
    known: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in terms.items()}
    return Combined(**known)


def result_of(recipe: Recipe, beside: Path) -> dict[str, Any] | None:
    """The result of the search that found a recipe, if it lies in the recipe's folder or the one above.

    Args:
        recipe: The recipe.
        beside: Its folder.
    """
    for folder in (beside, beside.absolute().parent):
        try:
            found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            if found["winner"]["recipe_sha256"] == recipe.sha256:
                return found
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def put_aside(folder: Path, best: Path) -> str | None:
    """Keep the card that somebody edited in the study's folder, where the winner's is about to be replaced.

    Args:
        folder: The study's.
        best: The winner's.

    Returns:
        The hash of the recipe that the card is of, empty if that cannot be read; None if nobody edited it.
    """
    from optmerge.reports.card import is_as_written

    try:
        card = (best / CARD).read_bytes()
        if is_as_written(card.decode()):
            return None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:  # none of ours
        pass
    (folder / EDITED).write_bytes(card)
    try:
        return load_recipe(best / RECIPE).sha256
    except UsageError:
        return ""


def leave_card(
    document: Mapping[str, Any], recipe: Recipe, folder: Path, best: Path, edited: str | None = None
) -> str | None:
    """Put the card of a study's winner beside it, and the pictures of the report that it shows.

    Args:
        document: What goes into result.json.
        recipe: The winner's.
        folder: The study's.
        best: The winner's.
        edited: What `put_aside` said: an edited card is put back where the winner is still that one.

    Returns:
        A line on what became of an edited card.
    """
    from optmerge.commands.ending import write_atomically
    from optmerge.commands.study_folder import REPORT
    from optmerge.reports.card import PICTURES

    for picture in PICTURES:
        if (folder / REPORT / picture).is_file():
            shutil.copyfile(folder / REPORT / picture, best / picture)
    if edited == recipe.sha256:
        (folder / EDITED).replace(best / CARD)
        return f"{best / CARD} was edited, and is kept as it is"
    write_atomically(best / CARD, card_of(recipe, str(document["study"]), document, best))
    return f"{folder / EDITED} is the card of the winner before, which was edited" if edited is not None else None
