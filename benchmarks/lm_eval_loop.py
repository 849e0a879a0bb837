"""What it takes to score a model in memory on tasks of lm-evaluation-harness: our engine, lm-eval's own loop, generate.

    OMP_NUM_THREADS=1 python benchmarks/lm_eval_loop.py [--model FOLDER] [--problems 64] [--batch 64] [--rounds 3]

One model in memory, two local tasks with three examples each: short answers to be written, and four choices to be
compared. Each round measures, one after the other: `task=lm_eval` as a trial runs it, its problems known from the trial
before; `lm_eval.simple_evaluate` on the same model with the same batch size, and with 1, its default; and the model
called for one prompt at a time. Medians of the rounds; what comes before the first answer (reading the tasks) is not
counted for any. Without --model a random one is made. A few minutes on one core. Prints a table.
"""

import argparse
import contextlib
import io
import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from optmerge.engines import Generate, LogLikelihood, Request, Response, transformers
from optmerge.tasks import lm_eval

VOCABULARY, EXAMPLES, NEW_TOKENS = 4096, 3, 32
METRICS = {"writing": "exact_match", "choosing": "acc"}

Scored = tuple[float, list[float]]  # seconds, and the score of each problem


def random_model(folder: Path, width: int, layers: int) -> Path:
    """Write a model whose words are numbers."""
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
    )
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w1", eos_token="w2").save_pretrained(
        folder
    )
    return folder


def local_tasks(folder: Path, problems: int) -> Path:
    """Write the two tasks over questions of 10 to 60 words."""
    rng = random.Random(0)

    def words(least: int, most: int) -> str:
        return " ".join(f"w{rng.randrange(3, VOCABULARY)}" for _ in range(rng.randint(least, most)))

    files = {}
    for split, count in (("train", 32), ("test", problems)):
        rows = [
            {"question": words(10, 60), "choices": [words(1, 4) for _ in range(4)], "right": rng.randrange(4)}
            for _ in range(count)
        ]
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    both = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "training_split": "train",
        "test_split": "test",
        "fewshot_split": "train",
        "num_fewshot": EXAMPLES,
        "doc_to_text": "{{question}}",
        "metadata": {"version": 1.0},
    }
    writing = {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[right]}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False},
    }
    choosing = {"output_type": "multiple_choice", "doc_to_target": "{{right}}", "doc_to_choice": "{{choices}}"}
    for name, own in (("writing", writing), ("choosing", choosing)):
        metric = {"metric": METRICS[name], "aggregation": "mean", "higher_is_better": True}
        config = {**both, **own, "task": name, "metric_list": [metric]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def ours(engine: transformers.TransformersEngine, task: lm_eval.LmEvalTask, metric: str) -> Callable[[], Scored]:
    """A trial's part of it: ask, answer, score."""
    problems = task.problems("test")

    def once() -> Scored:
        began = time.perf_counter()
        responses = engine.run([task.request(problem) for problem in problems])
        scores = [task.score(*pair)[metric] for pair in zip(problems, responses, strict=True)]
        return time.perf_counter() - began, scores

    return once


def theirs(harness: HFLM, manager: TaskManager, name: str, metric: str) -> Callable[[], Scored]:
    """lm-eval's loop. It loads a task anew each time, which is not counted."""

    def once() -> Scored:
        task = manager.load([name])["tasks"][name]
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            began = time.perf_counter()
            found: Any = simple_evaluate(harness, tasks=[task], task_manager=manager, bootstrap_iters=0)
            seconds = time.perf_counter() - began
        return seconds, [float(one[metric]) for one in found["samples"][name]]

    return once


def one_by_one(model: Any, tokenizer: Any, task: lm_eval.LmEvalTask, metric: str) -> Callable[[], Scored]:
    """The model called for each prompt by itself."""
    problems = task.problems("test")

    def answer(request: Request) -> Response:
        if isinstance(request, LogLikelihood):
            return Response("", 0, log_likelihoods=tuple(likelihood(request.prompt, c) for c in request.continuations))
        return Response(written(request), 0)

    def written(request: Generate) -> str:
        ids = tokenizer(request.prompt, return_tensors="pt").to(model.device)
        output = model.generate(
            **ids,
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        text: str = tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        for stop in request.stop:
            text = text.split(stop)[0]
        return text

    def likelihood(prompt: str, continuation: str) -> float:
        before = len(tokenizer(prompt.rstrip())["input_ids"])
        ids = tokenizer(prompt + continuation, return_tensors="pt")["input_ids"].to(model.device)
        logs = model(ids).logits[0, before - 1 : -1].float().log_softmax(-1)
        return float(logs.gather(-1, ids[0, before:, None]).sum())

    def once() -> Scored:
        began = time.perf_counter()
        with torch.inference_mode():
            responses = [answer(task.request(problem)) for problem in problems]
        scores = [task.score(*pair)[metric] for pair in zip(problems, responses, strict=True)]
        return time.perf_counter() - began, scores

    return once


def measured(ways: dict[str, Callable[[], Scored]], rounds: int) -> dict[str, Scored]:
    """Median seconds of each way, and its scores; the first call of each is not counted."""
    scores = {way: run()[1] for way, run in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            seconds[way].append(run()[0])
    return {way: (statistics.median(seconds[way]), scores[way]) for way in ways}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder with a checkpoint")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as work:
        model_folder = given.model or random_model(Path(work) / "model", given.width, given.layers)
        tasks = Path(work) / "tasks"
        tasks.mkdir()
        local_tasks(tasks, given.problems)
        options = transformers.Options(device=given.device, batch_size=given.batch)
        config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
        engine = transformers.build(options, model_folder, config.get("dtype") or "float32")
        model, tokenizer = engine._model, AutoTokenizer.from_pretrained(model_folder, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        table = Table(title=f"{model.num_parameters() / 1e6:.1f}M parameters, {engine.device}", title_justify="left")
        for column in ("task", "by", "problems a second", "times one by one", "score", "scores that differ"):
            table.add_column(column, justify="left" if column in ("task", "by") else "right")
        for name, metric in METRICS.items():
            task = lm_eval.build(lm_eval.Options(task=name, include_path=str(tasks)))
            harnesses = {
                size: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size) for size in (given.batch, 1)
            }
            found = measured(
                {
                    f"ours, {given.batch} at once": ours(engine, task, metric),
                    **{
                        f"lm-eval's loop, {size} at once": theirs(harness, manager, name, metric)
                        for size, harness in harnesses.items()
                    },
                    "one by one": one_by_one(model, tokenizer, task, metric),
                },
                given.rounds,
            )
            reference, alone = next(iter(found.values()))[1], found["one by one"][0]
            for way, (seconds, scores) in found.items():
                differing = sum(abs(a - b) > 1e-6 for a, b in zip(scores, reference, strict=True))
                pace, score = given.problems / seconds, statistics.mean(scores)
                table.add_row(name, way, f"{pace:.1f}", f"{alone / seconds:.1f}", f"{score:.3f}", str(differing))
        console.print(table)


if __name__ == "__main__":
    main()
