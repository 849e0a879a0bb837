"""Does an exported model answer as the model it was made from?

Both are asked the same: texts that were given, or else some in English and Japanese and some that the model makes up
itself, so that none need be at hand. Where the answers part, the model itself tells how much that means: by how much it
preferred its own next token to the other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optmerge.flow.agreement import PROMPTS

NEW_TOKENS = 16
_COUNT, _SHORTEST, _LONGEST = 32, 6, 29  # made up


@dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes:
        prompts: The tokens it was asked.
        responses: The tokens it answered, greedily, up to the first special one.
        logits: The logits of each of those tokens and all others.
    """

    prompts: Sequence[list[int]]
    responses: Sequence[list[int]]
    logits: Sequence[Tensor]


@dataclass(frozen=True)
class Likeness:
    """How alike the answers of two models are.

    Attributes:
        same: Prompts that both answer the same.
        prompts: Prompts in all.
        gap: Where the answers part, by how much at most the model preferred its own token, in units of its greatest
            logit; 0 if they never do.
    """

    same: int
    prompts: int
    gap: float

    def holds(self, least: float, widest: float) -> bool:
        """Whether at least this share of the answers is the same, and none parts at a gap wider than this."""
        return self.same >= least * self.prompts and self.gap <= widest

    @property
    def summary(self) -> str:
        parting = "" if self.same == self.prompts else f", and where others part the logits are {self.gap:.1e} apart"
        return f"{self.same} of {self.prompts} greedy responses are the same{parting}"


def prompts_for(model: Any, tokenizer: Any, given: Sequence[str] = ()) -> list[list[int]]:
    """What to ask a model, as tokens.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        given: Texts to ask. Without any, it is some fixed ones, and some that the model makes up, cut at several
            lengths; always the same.
    """
    room = model.config.max_position_embeddings - NEW_TOKENS
    asked = [tokenizer(text)["input_ids"] for text in given or PROMPTS]
    if not given:
        asked += _made_up(model, tokenizer)
    return [prompt for prompt in asked if 0 < len(prompt) <= room]


def _made_up(model: Any, tokenizer: Any) -> list[list[int]]:
    start = tokenizer("")["input_ids"] or [model.config.bos_token_id or 0]
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        ids = torch.tensor([start] * _COUNT)
        texts = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_LONGEST,
            do_sample=True,
            eos_token_id=tokenizer.all_special_ids or None,
            pad_token_id=0,
            suppress_tokens=tokenizer.all_special_ids,
        ).tolist()
    lengths = [_SHORTEST + number % (_LONGEST - _SHORTEST) for number in range(_COUNT)]
    return [text[:length] for text, length in zip(texts, lengths, strict=True)]


def ask(model: Any, prompts: Sequence[list[int]], special: set[int]) -> Answers:
    """Let a model answer prompts, one by one and greedily.

    Args:
        model: A model of transformers.
        prompts: Tokens.
        special: Numbers of special tokens; a response ends before the first.
    """
    responses, logits = [], []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                eos_token_id=sorted(special) or None,  # as llama.cpp does: whatever the generation config says
                pad_token_id=0,
            )
        responses.append(before_special(found.sequences[0].tolist()[len(prompt) :], special))
        logits.append(torch.stack(found.logits, 1)[0].float())
    return Answers(prompts, responses, logits)


def before_special(tokens: list[int], special: set[int]) -> list[int]:
    """The tokens before the first special one."""
    end = next((at for at, token in enumerate(tokens) if token in special), len(tokens))
    return tokens[:end]


def likeness(wanted: Answers, responses: Sequence[list[int]]) -> Likeness:
    """Hold another model's responses to the same prompts against a model's answers."""
    gaps = [
        _gap(logits, ours, theirs)
        for logits, ours, theirs in zip(wanted.logits, wanted.responses, responses, strict=True)
        if ours != theirs
    ]
    return Likeness(len(responses) - len(gaps), len(responses), max(gaps, default=0.0))


def farthest(wanted: Answers, found: Answers) -> float:
    """How far apart logits for the first token of each answer are at most, in units of the greatest."""
    pairs = list(zip(wanted.logits, found.logits, strict=True))
    apart = max(float((ours[0] - theirs[0]).abs().max()) for ours, theirs in pairs)
    return apart / max(float(ours[0].abs().max()) for ours, _ in pairs)


def _gap(logits: Tensor, ours: list[int], theirs: list[int]) -> float:
    """By how much the model preferred its own token where two responses part; one that goes on where one ends, too."""
    at = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
    if at is None:
        at = min(len(ours), len(theirs))
    row = logits[min(at, len(logits) - 1)]
    # Which special token ended the shorter one is not known: the one that the model liked best stands for it.
    own = float(row.max())
    other = float(row[theirs[at]]) if at < len(theirs) else float(torch.topk(row, 2).values[1])
    return (own - other) / float(logits.abs().max())
