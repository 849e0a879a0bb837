"""What a path over layers costs: to put a candidate in place, and to answer with it.

    python benchmarks/paths.py [--hops 65] [--layers 32] [--width 64]

The layers of two random models are resident, as in a search; paths of so many hops over them, with a scale at every
hop, are mounted one after the other. What the first one costs, which makes the layers resident, is not counted. The
time does not depend on how wide the models are, as no weight is copied. Prints a table.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from optmerge.flow import LiveLayers, PathBench
from optmerge.merge import Workbench
from optmerge.models import Checkpoint, check_fit, scan
from optmerge.recipe import CheckpointNode, Hop, PathNode, Recipe, node_sha256

ROUNDS = 30


def bench_of(folder: Path, layers: int, width: int) -> tuple[PathBench, dict[str, CheckpointNode]]:
    """Two random models on a bench."""
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
    )
    words = Tokenizer(WordLevel({f"word{i}": i for i in range(config.vocab_size)}, unk_token="word0"))
    for alias in "ab":
        LlamaForCausalLM(config).save_pretrained(folder / alias)
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="word0").save_pretrained(folder / alias)
    checkpoints = {alias: Checkpoint.open(folder / alias, alias) for alias in "ab"}
    nodes = {
        alias: CheckpointNode(str(folder / alias), scan(checkpoint).weights_sha256)
        for alias, checkpoint in checkpoints.items()
    }
    opened = {node_sha256(nodes[alias]): checkpoint for alias, checkpoint in checkpoints.items()}
    fit = check_fit(checkpoints, base=None, tokenizer="a", same_depth=False)
    return PathBench(Workbench(opened, fit, torch.device("cpu"), keep_sources=True)), nodes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hops", type=int, default=65)
    parser.add_argument("--layers", type=int, default=32, help="of each of the two models")
    parser.add_argument("--width", type=int, default=64)
    chosen = parser.parse_args()
    if chosen.hops < 2 * chosen.layers:
        parser.error("--hops must be at least twice --layers")
    logging.disable_progress_bar()
    torch.manual_seed(0)
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        bench, nodes = bench_of(Path(temporary), chosen.layers, chosen.width)
        model = LlamaForCausalLM.from_pretrained(Path(temporary) / "a")
        live = LiveLayers(model, bench.family.mlp_module)
        times = []
        for _ in range(ROUNDS + 1):
            # Every layer is on every path, so that the first makes all resident.
            slots = [(alias, layer) for alias in "ab" for layer in range(chosen.layers)]
            slots += rng.choices(slots, k=chosen.hops - len(slots))
            rng.shuffle(slots)
            hops = tuple(Hop(*slot, scale=rng.uniform(0.5, 1.5)) for slot in slots)
            recipe = Recipe(PathNode(nodes, hops, "a", "a", "a", "float32"))
            began = time.perf_counter()
            live.mount(bench.candidate(recipe))
            times.append(1000 * (time.perf_counter() - began))
    table = Table("hops", "different layers", "first", "median of the next", "slowest")
    later = times[1:]
    table.add_row(
        str(chosen.hops),
        str(2 * chosen.layers),
        f"{times[0]:.0f} ms",
        f"{statistics.median(later):.1f} ms",
        f"{max(later):.1f} ms",
    )
    Console().print(table)


if __name__ == "__main__":
    main()
