"""Tiny random models of every family that data-flow space knows."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from optmerge.flow import PathBench
from optmerge.merge import Workbench
from optmerge.models import Checkpoint, check_fit, weights_sha256
from optmerge.recipe import CheckpointNode, Hop, PathNode, Recipe, node_sha256

LAYERS, VOCABULARY, WINDOW = 4, 96, 6
CHARACTERS = string.ascii_letters + string.digits + " .,?():りんごをこでいすか個日本高山は何"

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FULL, SLIDING = "full_attention", "sliding_attention"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SMALL | {"attention_bias": True, "mlp_bias": True},
    "mistral": SMALL | {"sliding_window": WINDOW},
    "qwen2": SMALL
    | {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": [FULL, FULL, SLIDING, SLIDING]},
    "qwen3": SMALL | {"tie_word_embeddings": True},
    "gemma": SMALL | {"hidden_activation": "gelu_pytorch_tanh"},
    "gemma2": SMALL | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": SMALL
    | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8, "layer_types": [SLIDING, FULL, SLIDING, SLIDING]},
    "phi3": SMALL | {"partial_rotary_factor": 1.0},
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_positions": 256,
        "initializer_range": 0.2,
        "layer_norm_epsilon": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}


@dataclass(frozen=True)
class Pair:
    """Two random models of a family, called a and b."""

    folders: dict[str, Path]
    bench: PathBench
    nodes: dict[str, CheckpointNode]

    def recipe(self, hops: Sequence[Hop], target: str = "hidden") -> Recipe:
        return Recipe(PathNode(self.nodes, tuple(hops), "a", "a", "a", "float32", target))

    def model(self, alias: str = "a") -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.folders[alias], dtype=torch.float32)
        return model.eval().requires_grad_(False)


def make(folder: Path, model_type: str, seed: int) -> None:
    """Write a random model: its norms and biases are random too, as what they do to a stream is to be seen."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **FAMILIES[model_type]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokens = ["<unk>", "<s>", "</s>", *CHARACTERS]
    words = {token: number for number, token in enumerate(tokens[:VOCABULARY])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # a token is a character
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Two random models of a family, made when they are first asked for."""
    made: dict[str, Pair] = {}

    def pair(model_type: str) -> Pair:
        if model_type not in made:
            folders = {alias: tmp_path_factory.mktemp(model_type) / alias for alias in ("a", "b")}
            for seed, folder in enumerate(folders.values()):
                make(folder, model_type, seed)
            checkpoints = {alias: Checkpoint.open(folder, alias) for alias, folder in folders.items()}
            nodes = {
                alias: CheckpointNode(str(c.folder), weights_sha256((name, c.tensor(name)) for name in c.names()))
                for alias, c in checkpoints.items()
            }
            fit = check_fit(checkpoints, base=None, tokenizer="a", same_depth=False)
            opened = {node_sha256(nodes[alias]): checkpoint for alias, checkpoint in checkpoints.items()}
            made[model_type] = Pair(folders, PathBench(Workbench(opened, fit, torch.device("cpu"))), nodes)
        return made[model_type]

    return pair
