"""Training of one tiny model: a plain AdamW loop on one thread."""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from optmerge.zoo.lessons import Lesson, lessons
from optmerge.zoo.plan import TrainingPlan
from optmerge.zoo.tokenizer import LONGEST_TEXT, build_tokenizer

IGNORED = -100
REPORT_EVERY = 100


def untrained_model(plan: TrainingPlan, seed: int) -> LlamaForCausalLM:
    """A model with random weights that follow from the seed alone."""
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.hidden_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        intermediate_size=plan.intermediate_size,
        max_position_embeddings=LONGEST_TEXT,
        tie_word_embeddings=True,
        # Twice the usual: narrow models that are trained briefly start faster from larger weights.
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write a model with its tokenizer as an ordinary checkpoint."""
    with _without_progress_bars():
        model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def train_and_save(folder: Path, name: str, plan: TrainingPlan, seed: int, report: Callable[[str], None]) -> None:
    """Train one model of a zoo, from its base or from nothing, and save it there.

    Args:
        folder: The zoo; the base must be there already, unless it is itself to be trained.
        name: Folder name of the model.
        plan: Sizes, rates and shares.
        seed: Of the first weights and the lessons.
        report: Called with a line now and then.
    """
    with _without_progress_bars():
        model = untrained_model(plan, seed) if name == "base" else LlamaForCausalLM.from_pretrained(folder / "base")
    train(model, name, plan, seed, report)
    save(model, folder / name)


def train(model: LlamaForCausalLM, name: str, plan: TrainingPlan, seed: int, report: Callable[[str], None]) -> None:
    """Train a model in place on the lessons of `name`.

    Args:
        model: The start: random weights for the base, the base for a specialist.
        name: Folder name of the model, which says what it reads.
        plan: Sizes, rates and shares.
        seed: Of the lessons; models of one zoo still read different ones.
        report: Called with a line now and then.
    """
    schedule = plan.schedule(name)
    generator = random.Random(f"{seed}/{name}/layers")
    batches = _batches(lessons(name, plan, seed), build_tokenizer(), plan.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_share(step, schedule.steps))
    layer_drop = plan.layer_drop if name == "base" else 0.0
    model.train()
    with _one_thread():
        for step, (tokens, labels) in enumerate(itertools.islice(batches, schedule.steps), start=1):
            with _some_layers_dropped(model, layer_drop, generator):
                loss = _loss(model, tokens, labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            if step % REPORT_EVERY == 0 or step == schedule.steps:
                report(f"zoo: {name}, step {step} of {schedule.steps}, loss {loss.item():.2f}")


def _rate_share(step: int, steps: int, warm_up: int = 20, floor: float = 0.05) -> float:
    warm = min(1.0, (step + 1) / warm_up)
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batches(
    stream: Iterator[Lesson], tokenizer: PreTrainedTokenizerFast, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token numbers, padded on the right, with labels that are set on the answers alone."""
    while True:
        batch = list(itertools.islice(stream, size))
        prompts = tokenizer([prompt for prompt, _ in batch])["input_ids"]
        answers = tokenizer([answer for _, answer in batch], add_special_tokens=False)["input_ids"]
        length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) + 1
        tokens = torch.full((size, length), tokenizer.pad_token_id)
        labels = torch.full((size, length), IGNORED)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            line = torch.tensor([*prompt, *answer, tokenizer.eos_token_id])
            tokens[row, : len(line)] = line
            labels[row, len(prompt) : len(line)] = line[len(prompt) :]
        yield tokens, labels


def _loss(model: LlamaForCausalLM, tokens: Tensor, labels: Tensor) -> Tensor:
    # No mask is needed: padding comes last, and no token looks ahead.
    hidden = model.model(tokens[:, :-1], use_cache=False).last_hidden_state
    wanted = labels[:, 1:]
    answered = wanted != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[answered]), wanted[answered])


@contextmanager
def _some_layers_dropped(model: LlamaForCausalLM, chance: float, generator: random.Random) -> Iterator[None]:
    """Skip each block with some chance: what a block does then depends less on its neighbours."""
    every = model.model.layers
    model.model.layers = torch.nn.ModuleList(layer for layer in every if generator.random() >= chance)
    try:
        yield
    finally:
        model.model.layers = every


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: the sums are then always done in the same order, and two would be slower on models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """A file of two megabytes needs no bar."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
