"""What engines cost: to put a candidate in place, and to answer with it.

    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/engines.py [--width 768] [--layers 12] [--rounds 5] [--hops 24]

Each engine holds a random model in float32 and is given the same merges of two others, one after the other, and the
same prompts, which are answered with a fixed number of tokens. What the first candidate costs, for which all is made
ready, is not counted. `vllm, room for N` is built for paths of N hops, as a search for paths has it: it is given the
same merges, which leave the other layers without use, and then paths of as many hops as a model has layers.
`make test-vllm` makes the environment. Prints a table.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from optmerge.engines import Engine, Generate, transformers, vllm
from optmerge.flow import PathBench
from optmerge.merge import Workbench
from optmerge.models import Checkpoint, check_fit, scan
from optmerge.recipe import CheckpointNode, Group, Hop, MergeNode, PathNode, Recipe, node_sha256

VOCABULARY = 8192
PROMPTS, PROMPT_LENGTH, NEW_TOKENS = 32, 64, 32


@dataclass(frozen=True)
class Sources:
    """Two random models on a bench."""

    folder: Path
    bench: PathBench
    nodes: dict[str, CheckpointNode]
    layers: int

    def merge(self, rng: random.Random) -> Any:
        """A candidate of parameter space."""
        group = Group(("*",), {alias: {"weight": rng.uniform(0.2, 0.8)} for alias in self.nodes})
        return self.bench.candidate(Recipe(MergeNode("linear", self.nodes, None, "a", "float32", {"all": group})))

    def path(self, rng: random.Random) -> Any:
        """A candidate of data-flow space, as deep as a source."""
        hops = [Hop(rng.choice("ab"), rng.randrange(self.layers), rng.uniform(0.8, 1.2)) for _ in range(self.layers)]
        return self.bench.candidate(Recipe(PathNode(self.nodes, tuple(hops), "a", "a", "a", "float32")))


def sources_in(folder: Path, width: int, layers: int) -> Sources:
    """Write two random models, and open them."""
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        eos_token_id=None,  # every response is as long as it may be
    )
    words = Tokenizer(WordLevel({f"word{i}": i for i in range(VOCABULARY)}, unk_token="word0"))
    for alias in "ab":
        LlamaForCausalLM(config).save_pretrained(folder / alias)
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="word0", pad_token="word1").save_pretrained(
            folder / alias
        )
    checkpoints = {alias: Checkpoint.open(folder / alias, alias) for alias in "ab"}
    nodes = {
        alias: CheckpointNode(str(folder / alias), scan(checkpoint).weights_sha256)
        for alias, checkpoint in checkpoints.items()
    }
    opened = {node_sha256(nodes[alias]): checkpoint for alias, checkpoint in checkpoints.items()}
    fit = check_fit(checkpoints, base=None, tokenizer="a", same_depth=False)
    bench = PathBench(Workbench(opened, fit, torch.device("cpu"), keep_sources=True))
    return Sources(folder, bench, nodes, layers)


def prompts(rng: random.Random) -> list[Generate]:
    """Random words."""
    texts = (" ".join(f"word{rng.randrange(VOCABULARY)}" for _ in range(PROMPT_LENGTH)) for _ in range(PROMPTS))
    return [Generate(text, NEW_TOKENS) for text in texts]


def measured(engine: Engine, candidates: Sequence[Any], asked: Sequence[Generate]) -> tuple[float, float, list[str]]:
    """Seconds a mount, tokens a second, and what was answered; the first candidate is not counted."""
    mounting, answering, said = [], [], []
    for candidate in candidates:
        start = time.perf_counter()
        engine.mount(candidate)
        middle = time.perf_counter()
        responses = engine.run(asked)
        mounting.append(middle - start)
        answering.append(sum(response.tokens for response in responses) / (time.perf_counter() - middle))
        said += [response.text for response in responses]
    return statistics.median(mounting[1:]), statistics.median(answering[1:]), said


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hops", type=int, default=24, help="longest path that the deeper engine has room for")
    chosen = parser.parse_args()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    rng = random.Random(0)
    threads = torch.get_num_threads()
    table = Table("engine", "candidates", "seconds a mount", "tokens a second", "texts as transformers")
    with tempfile.TemporaryDirectory() as temporary:
        sources = sources_in(Path(temporary), chosen.width, chosen.layers)
        merges = [sources.merge(rng) for _ in range(chosen.rounds + 1)]
        paths = [sources.path(rng) for _ in range(chosen.rounds + 1)]
        asked = prompts(rng)
        folder = sources.folder / "a"

        def by_library() -> Engine:
            return transformers.build(transformers.Options(device="cpu", threads=threads), folder, "float32")

        def by_vllm(hops: int | None) -> Engine:
            return vllm.build(vllm.Options(max_hops=hops, threads=threads, device="cpu"), folder, "float32")

        deep: list[Engine] = []  # one engine for both kinds of candidates

        def by_deep_vllm() -> Engine:
            deep[:] = deep or [by_vllm(chosen.hops)]
            return deep[0]

        runs: list[tuple[str, str, Callable[[], Engine], list[Any]]] = [
            ("transformers", "merges", by_library, merges),
            ("vllm", "merges", lambda: by_vllm(None), merges),
            (f"vllm, room for {chosen.hops}", "merges", by_deep_vllm, merges),
            ("transformers", f"paths of {chosen.layers}", by_library, paths),
            (f"vllm, room for {chosen.hops}", f"paths of {chosen.layers}", by_deep_vllm, paths),
        ]
        kept = []  # when one vLLM engine goes, others of the process go with it
        wanted: dict[str, list[str]] = {}
        for name, kind, start, candidates in runs:
            kept.append(start())
            mount, speed, said = measured(kept[-1], candidates, asked)
            same = sum(ours == theirs for ours, theirs in zip(said, wanted.setdefault(kind, said), strict=True))
            table.add_row(name, kind, f"{mount:.3f}", f"{speed:.0f}", f"{same} of {len(said)}")
    size = f"{sources.bench.fit.parameters / 1e6:.0f}M parameters, float32, {threads} threads"
    table.title = f"{size}; {PROMPTS} prompts of {PROMPT_LENGTH} tokens, {NEW_TOKENS} new ones"
    Console().print(table)


if __name__ == "__main__":
    main()
