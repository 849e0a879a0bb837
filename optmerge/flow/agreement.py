"""A path that was written as an ordinary model, loaded as anyone would load it and held against the path."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optmerge.flow.families import family_of
from optmerge.flow.live import LiveCandidate, LiveLayers

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


@dataclass(frozen=True)
class Agreement:
    """How well a folded model and its path agree.

    Attributes:
        logits: The greatest difference of logits on the same tokens, in units of the greatest logit; infinite where a
            logit is no finite number.
        texts: Prompts to which both greedily answer the same.
        prompts: Prompts in all.
        dtype: Type of the weights, as torch calls it.
    """

    logits: float
    texts: int
    prompts: int
    dtype: str

    @property
    def holds(self) -> bool:
        """Whether they are the same model, as well as their type can tell."""
        if self.dtype == "float32":
            return self.logits <= FLOAT32 and self.texts == self.prompts
        return self.logits <= ROUNDED

    @property
    def summary(self) -> str:
        said = f"{self.texts} of {self.prompts} greedy texts are the path's, logits {self.logits:.1e} of the greatest"
        return f"{said} apart in {self.dtype} (at most {FLOAT32 if self.dtype == 'float32' else ROUNDED:g})"


def agreement(folder: Path, path: LiveCandidate, dtype: torch.dtype) -> Agreement:
    """Ask a folded model and the path that it is the same questions.

    Args:
        folder: The model.
        path: The candidate that runs over the sources' layers.
        dtype: Type in which both run, on the CPU.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)

    prompts = [torch.tensor([tokenizer(prompt)["input_ids"] or [0]]) for prompt in PROMPTS]

    def answers(mounted: LiveCandidate | None) -> list[tuple[Tensor, list[int]]]:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, local_files_only=True
        )
        model.eval().requires_grad_(False)
        if mounted is not None:
            LiveLayers(model, family_of(model.config.model_type).mlp_module).mount(mounted)
        return [(_logits(model, ids), _text(model, ids)) for ids in prompts]

    wanted, found = answers(path), answers(None)  # one model after the other: they may be large
    farthest = max(float((ours - theirs).abs().max()) for (theirs, _), (ours, _) in zip(wanted, found, strict=True))
    greatest = max(float(theirs.abs().max()) for theirs, _ in wanted)
    apart = farthest / greatest if greatest else farthest
    finite = all(bool(logits.isfinite().all()) for logits, _ in (*wanted, *found))
    same = sum(ours == theirs for (_, theirs), (_, ours) in zip(wanted, found, strict=True))
    return Agreement(apart if finite else math.inf, same, len(PROMPTS), str(dtype).removeprefix("torch."))


def _logits(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids).logits.float()
    return logits


def _text(model: Any, ids: Tensor) -> list[int]:
    with torch.inference_mode():
        found: list[int] = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=_NEW_TOKENS, do_sample=False
        )[0].tolist()
    return found
