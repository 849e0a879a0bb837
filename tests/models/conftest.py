"""Tiny random checkpoints, written by transformers itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optmerge.models import Checkpoint

WORDS = ["<unk>", "<s>", "</s>", *(f"word{i}" for i in range(29))]
Make = Callable[..., Path]


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """A tokenizer that numbers words in the order given."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def templates() -> dict[str, Path]:
    """Checkpoints that were made before, by what they were made from."""
    return {}


@pytest.fixture
def make(tmp_path: Path, templates: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Write a tiny Llama checkpoint and give its folder."""

    def make(
        name: str = "source",
        *,
        seed: int = 0,
        words: list[str] = WORDS,
        shard: str = "1GB",
        dtype: torch.dtype = torch.float32,
        **config: Any,
    ) -> Path:
        recipe = repr((seed, words, shard, dtype, sorted(config.items())))
        if recipe not in templates:
            torch.manual_seed(seed)
            options = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
            options |= {"num_key_value_heads": 2, "vocab_size": len(words), "max_position_embeddings": 64} | config
            folder = tmp_path_factory.mktemp("template")
            LlamaForCausalLM(LlamaConfig(**options)).to(dtype).save_pretrained(folder, max_shard_size=shard)
            write_tokenizer(folder, words)
            templates[recipe] = folder
        return Path(shutil.copytree(templates[recipe], tmp_path / name))

    return make


@pytest.fixture
def opened(make: Make) -> Callable[..., Checkpoint]:
    """Write a tiny Llama checkpoint and open it under its folder's name."""
    return lambda name="source", **options: Checkpoint.open(make(name, **options), name)
