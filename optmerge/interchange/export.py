"""Recipes in the forms of other programs: each form is a module in `optmerge.interchange.formats`, found by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optmerge.models import Checkpoint
from optmerge.models.form import Form
from optmerge.models.staging import staged
from optmerge.recipe import Recipe
from optmerge.registered import find

FORMATS = "optmerge.interchange.formats"

Papers = Callable[[Form | None], Mapping[str, str]]
"""Takes the form of the weights, None for an ordinary checkpoint; gives names and texts of files to lie beside them."""


@dataclass(frozen=True)
class Export:
    """What a format is given.

    Attributes:
        recipe: What to write.
        sources: Alias to checkpoint, opened and proven to be the recipe's.
        locations: Alias to the folder or hub id of each source, and of what adapters among them lie over.
        names: The tensors of each source.
        bench: Makes the recipe available.
        companions: What lies beside its weights.
        folder: Where to write files; it is put in place when all are there.
        notice: Takes a line that people should read.
        write: Writes the model as an ordinary checkpoint into a new folder and says what is proven of its weights.
        papers: Gives the model card of what the recipe makes, and what else is to lie beside weights.
        prompts: What to ask the model and its other form; something of its own if empty.
    """

    recipe: Recipe
    sources: Mapping[str, Checkpoint]
    locations: Mapping[str, str]
    names: tuple[str, ...]
    bench: Any
    companions: Any
    folder: Path
    notice: Callable[[str], None]
    write: Callable[[Path], str]
    papers: Papers = lambda form: {}
    prompts: tuple[str, ...] = ()

    def write_papers(self, form: Form | None) -> None:
        """Write the model's card, and what else it has, beside weights of a form."""
        for name, text in self.papers(form).items():
            (self.folder / name).write_text(text, encoding="utf-8")


def export_recipe(
    recipe: Recipe,
    out: Path,
    *,
    form: str,
    sources: Mapping[str, Checkpoint],
    locations: Mapping[str, str],
    names: tuple[str, ...],
    bench: Any,
    companions: Any,
    notice: Callable[[str], None],
    write: Callable[[Path], str],
    papers: Papers = lambda form: {},
    prompts: tuple[str, ...] = (),
) -> list[str]:
    """Write a recipe in another form into a new folder, whole or not at all.

    Args:
        recipe: What to write.
        out: Where to; it must not exist, or be empty.
        form: Name of the format; its module has `build(export)`, which writes into `export.folder`.
        sources: As in `Export`.
        locations: As in `Export`.
        names: As in `Export`.
        bench: As in `Export`.
        companions: As in `Export`.
        notice: As in `Export`.
        write: As in `Export`.
        papers: As in `Export`.
        prompts: As in `Export`.

    Returns:
        The names of the files that were written, sorted.

    Raises:
        UsageError: If there is no such format, or the recipe has no such form.
        OptmergeError: If writing fails.
    """
    build = find(FORMATS, form, "format").build
    with staged(out, nbytes=0, replace=False) as folder:
        build(Export(recipe, sources, locations, names, bench, companions, folder, notice, write, papers, prompts))
        return sorted(path.name for path in folder.iterdir())
