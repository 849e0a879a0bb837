"""Tiny checkpoints, written without building a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from optmerge.__main__ import run

ROWS, WIDTH, LAYERS = 10, 8, 4
PARTS = {
    "input_layernorm": (WIDTH,),
    "mlp.down_proj": (WIDTH, 12),
    "mlp.gate_proj": (12, WIDTH),
    "mlp.up_proj": (12, WIDTH),
    "post_attention_layernorm": (WIDTH,),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
}
SHAPES = {
    "lm_head.weight": (ROWS, WIDTH),
    "model.embed_tokens.weight": (ROWS, WIDTH),
    "model.norm.weight": (WIDTH,),
    **{f"model.layers.{n}.{part}.weight": shape for n in range(LAYERS) for part, shape in PARTS.items()},
}
NAMES = sorted(SHAPES)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": 12,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": ROWS,
    "tie_word_embeddings": False,
    "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "dtype": "float32",
}

Import = Callable[..., Any]


def write_model(folder: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint of random numbers."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    words = {f"word{number}": number for number in range(ROWS)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds the models base, alpha and beta."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = tmp_path / "work"
    for seed, name in enumerate(("base", "alpha", "beta")):
        write_model(work / name, seed)
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def imported(here: Path) -> Import:
    """Write a configuration, import it, and read the recipe's document."""

    def do(document: Any, *arguments: str) -> Any:
        (here / "merge.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        assert run(["import", "merge.yaml", "recipe.yaml", *arguments]) == 0
        return yaml.safe_load((here / "recipe.yaml").read_text(encoding="utf-8"))

    return do


def root_of(document: Any) -> Any:
    """The root node of a recipe's document."""
    return document["nodes"][document["root"]]
