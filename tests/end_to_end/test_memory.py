"""Memory of a rebuild: it grows with the largest tensor, not with the model."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from optmerge.models import Checkpoint, scan
from optmerge.recipe import CheckpointNode
from optmerge.space import Ingredients

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measuring the peak takes Linux")

SOURCES = ("base", "ja", "math_add", "math_mul")
SHARDS = 3

# Rebuilds the small model first: what is loaded and kept for any model is not to be counted.
MEASURED = """
import sys
from pathlib import Path
from rich.console import Console
from optmerge.commands.rebuild import rebuild

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

small, large, out = map(Path, sys.argv[1:])
rebuild(small, out / "small", {}, Console(stderr=True))
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = memory("VmRSS")
rebuild(large, out / "large", {}, Console(stderr=True))
print(memory("VmHWM") - before)
"""


def write_source(folder: Path, like: Path, layers: int, seed: int) -> None:
    """A random checkpoint in three shards, with the tokenizer of another."""
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    known = json.loads((like / "config.json").read_bytes())
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = LlamaConfig(**{**known, **sizes, "head_dim": 128, "num_hidden_layers": layers, "dtype": "bfloat16"})
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight")
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(2**22, generator=random).bfloat16()
    names = sorted(shapes)
    files = {name: f"model-{k % SHARDS + 1:05}-of-{SHARDS:05}.safetensors" for k, name in enumerate(names)}
    for file in set(files.values()):
        # Sources differ a little from the base, which has seed 0, and tensors from each other altogether.
        tensors = {}
        for k, name in enumerate(names):
            if files[name] == file:
                count = shapes[name].numel()
                entries = noise.roll(7919 * k)[:count] + 0.01 * seed * noise.roll(104_729 * (k + seed))[:count]
                tensors[name] = entries.reshape(shapes[name])
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_recipe(folder: Path, like: Path, layers: int) -> Path:
    """Sources, and the recipe of a merge of them."""
    nodes = {}
    for seed, alias in enumerate(SOURCES):
        write_source(folder / alias, like, layers, seed)
        found = scan(Checkpoint.open(folder / alias, alias), cache=folder / "cache")
        nodes[alias] = CheckpointNode(str(folder / alias), found.weights_sha256)
    ingredients = Ingredients(nodes, base="base", tokenizer="base", dtype="bfloat16", seed=0)
    values = {alias: {"weight": 0.4, "density": 0.3} for alias in SOURCES[1:]}
    path = folder / "recipe.yaml"
    ingredients.recipe("ties", values).save(path)
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards: pytest would keep its own for some runs, which is much here."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_memory_of_a_rebuild_does_not_grow_with_the_model(zoo: Path, folder: Path) -> None:
    small, large = (write_recipe(folder / str(layers), zoo / "base", layers) for layers in (1, 4))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(small), str(large), str(folder / "out")],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr
    peak, entries = int(done.stdout), 1024 * 2816
    sources = sum(file.stat().st_size for alias in SOURCES for file in (large.parent / alias).glob("*.safetensors"))
    # Every source's largest tensor, the merged one twice (one is written while the next is made), and of a threshold's
    # search a few in float32; the rest is what sums and pieces take.
    assert peak < (len(SOURCES) + 2) * 2 * entries + 4 * 4 * entries + 48 * 2**20
    assert peak < sources / 4
