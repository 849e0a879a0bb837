"""A recipe's model as an ordinary checkpoint for a while: other forms are made from it, and held against it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optmerge.interchange.export import Export
from optmerge.interchange.formats import fold
from optmerge.models.source_licences import with_licences
from optmerge.recipe import RECIPE, PathNode, load_recipe


@contextmanager
def plain_model(export: Export) -> Iterator[Path]:
    """The model that was scored, in a folder that goes away; a path is folded, as `format=fold` does it.

    Its recipe is kept for good, beside what is made of it, and without folders of this machine: these forms travel.

    Raises:
        OptmergeError: If the weights are not those that were scored, or a folded model is not its path.
    """
    with TemporaryDirectory(prefix="plain-", dir=export.folder) as name:
        folder = Path(name) / "model"
        if isinstance(export.recipe.root, PathNode):
            folder.mkdir()
            fold.build(replace(export, folder=folder))
        else:
            export.notice(f"rebuilt: {export.write(folder)}")
        with_licences(load_recipe(folder / RECIPE)).portable().save(export.folder / RECIPE)
        yield folder


def open_model(folder: Path, dtype: str) -> Any:
    """A checkpoint as transformers loads it, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), trust_remote_code=False, local_files_only=True, use_safetensors=True
    )
    return model.eval().requires_grad_(False)


def open_tokenizer(folder: Path) -> Any:
    """A checkpoint's tokenizer as transformers loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
