"""A model with its matrices in 8 bits, by torchao, as a folder that transformers loads where torchao is installed."""

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optmerge.errors import OptmergeError, UsageError
from optmerge.interchange.export import Export
from optmerge.phrases import shown_bytes
from optmerge.recipe import RECIPE, RECIPE_KEY, load_recipe

_LEAST, _WIDEST = 0.5, 0.1


def ready() -> None:
    """Refuse before any work starts where torchao is not installed.

    Raises:
        UsageError: If so.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UsageError("format=int8 needs torchao, which is not there; pip install 'optmerge[int8]'")


def build(export: Export) -> None:
    """Write the model and its `recipe.yaml`, load it as anyone would, and hold it against the model as it was.

    Every linear layer but the head has 8 bits an entry and one scale an output; what it computes stays in the recipe's
    type. All is in safetensors.

    Raises:
        OptmergeError: If there is nothing to put into 8 bits, or the model then answers too differently; nothing is
            left then.
    """
    from optmerge.interchange.likeness import ask, farthest, likeness, prompts_for
    from optmerge.interchange.plain import open_model, open_tokenizer, plain_model
    from optmerge.models.form import Form

    dtype = export.recipe.root.dtype
    tokenizer = open_tokenizer(export.companions.folder)
    special = set(tokenizer.all_special_ids)
    with plain_model(export) as folder:
        model = open_model(folder, dtype)
        wanted = ask(model, prompts_for(model, tokenizer, export.prompts), special)
        del model
        before = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        _write(folder, export.folder, dtype)
    for file in export.folder.glob("*.safetensors"):
        _add_metadata(file, {RECIPE_KEY: load_recipe(export.folder / RECIPE).embedded()})
    model = open_model(export.folder, dtype)
    answers = ask(model, wanted.prompts, special)
    found = likeness(wanted, answers.responses)
    said = f"{found.summary}, logits at most {farthest(wanted, answers):.1e} of the greatest apart"
    if not found.holds(_LEAST, _WIDEST):
        raise OptmergeError(
            f"in 8 bits the model is another one: {said} "
            f"(at least {_LEAST:.0%} must be the same, and others part within {_WIDEST:g})"
        )
    after = sum(file.stat().st_size for file in export.folder.glob("*.safetensors"))
    export.write_papers(Form("int8", likeness=said))
    export.notice(
        f"reloaded and held against the model in {dtype}: {said}; {shown_bytes(after)} in place of "
        f"{shown_bytes(before)}"
    )


def _write(plain: Path, out: Path, dtype: str) -> None:
    """Put a checkpoint's linear layers into 8 bits.

    Raises:
        OptmergeError: If it has none.
    """
    import torch
    from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    from optmerge.models.write import copy_companions

    model: Any = AutoModelForCausalLM.from_pretrained(
        plain,
        dtype=getattr(torch, dtype),
        quantization_config=TorchAoConfig(Int8WeightOnlyConfig()),
        trust_remote_code=False,
        local_files_only=True,
    )
    if not any(isinstance(weight, Int8Tensor) for weight in model.parameters()):
        raise OptmergeError(f"a {model.config.model_type} has no linear layers that torchao puts into 8 bits")
    model.save_pretrained(out)
    copy_companions(plain, out)


def _add_metadata(file: Path, more: Mapping[str, str]) -> None:
    """Say more in the header of a safetensors file; the data are copied as they are."""
    wider = file.with_suffix(".wider")
    with file.open("rb") as old, wider.open("wb") as new:
        header = json.loads(old.read(int.from_bytes(old.read(8), "little")))
        header["__metadata__"] |= more
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # so that the data are aligned
        new.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, new)
    wider.replace(file)
