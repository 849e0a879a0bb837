"""A path as an ordinary model, its scales folded into the weights, and held against the path before it is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optmerge.errors import OptmergeError, UsageError
from optmerge.interchange.export import Export
from optmerge.recipe import RECIPE, PathNode

FLOAT32, ROUNDED = 1e-3, 0.1
"""How far logits may be apart, in units of the greatest: in float32, and where folded weights were rounded."""

# What both models are asked: enough for a mistake in any layer to show, in both languages of the project's examples.
PROMPTS = (
    "Natalia sold 48 clips in April and half as many in May. How many clips did she sell altogether?",
    "The capital of France is",
    "def fibonacci(n):",
    "太郎は りんごを 5個 持って いました。3個 もらいました。全部で 何個 ですか。",
    "日本で一番高い山は",
    "次の文章を要約してください。",
)
_NEW_TOKENS = 24


def build(export: Export) -> None:
    """Write the model and its `recipe.yaml`, load it as anyone would, and compare it with the path.

    Raises:
        UsageError: If the recipe is no path.
        OptmergeError: If the model does not say what the path says; nothing is left then.
    """
    import torch

    from optmerge.models import Companions
    from optmerge.models.shard import dtype_name
    from optmerge.models.write import fill_folder

    node = export.recipe.root
    if not isinstance(node, PathNode):
        raise UsageError("format=fold is for paths over layers, and the recipe is a merge; rebuild writes it")
    candidate, dtype = export.bench.final(export.recipe), getattr(torch, node.dtype)
    like = Companions(export.companions.folder, candidate.config(export.companions.config), export.companions)
    layout = {name: (dtype_name(dtype), shape) for name, shape in candidate.shapes().items()}
    sha256 = fill_folder(export.folder, candidate.tensors(), like, layout, dtype)
    (export.folder / RECIPE).write_text(
        export.recipe.with_weights(sha256, export.bench.device.type).to_yaml(), encoding="utf-8"
    )
    distance, same = compare(export.folder, export.bench.candidate(export.recipe), dtype)
    said = f"{same} of {len(PROMPTS)} greedy texts are the path's, logits {distance:.1e} of the greatest apart"
    most = FLOAT32 if dtype == torch.float32 else ROUNDED
    if distance > most or (dtype == torch.float32 and same < len(PROMPTS)):
        raise OptmergeError(
            f"the folded model is not the path: {said}, at most {most:g} in {node.dtype}; scales near 1 fold better"
        )
    export.notice(f"reloaded and held against the path: {said}")


def compare(folder: Path, path: Any, dtype: Any) -> tuple[float, int]:
    """Ask a folded model and the path that it is the same questions.

    Args:
        folder: The model.
        path: The candidate that runs over the sources' layers.
        dtype: Type in which both run.

    Returns:
        The greatest difference of logits on the prompts, in units of the greatest logit, and the number of prompts to
        which both greedily answer the same.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from optmerge.flow import LiveLayers, family_of

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)

    def load() -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, local_files_only=True
        )
        return model.eval().requires_grad_(False)

    folded, other = load(), load()
    LiveLayers(other, family_of(other.config.model_type).mlp_module).mount(path)
    farthest, greatest, same = 0.0, 0.0, 0
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"] or [0]])
        with torch.inference_mode():
            ours, theirs = (model(input_ids=ids).logits.float() for model in (folded, other))
        farthest = max(farthest, float((ours - theirs).abs().max()))
        greatest = max(greatest, float(theirs.abs().max()))
        same += _text(folded, ids) == _text(other, ids)
    return farthest / greatest if greatest else farthest, same


def _text(model: Any, ids: Any) -> Sequence[int]:
    import torch

    with torch.inference_mode():
        found: list[int] = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=_NEW_TOKENS, do_sample=False
        )[0].tolist()
    return found
