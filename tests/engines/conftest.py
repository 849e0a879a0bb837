"""The engine with the quick zoo's model, and candidates for it."""

from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optmerge.commands.assembly import Assembly, assemble, find_plugins
from optmerge.config import compose_config
from optmerge.engines.transformers import Options, TransformersEngine, build
from optmerge.merge import Workbench


@pytest.fixture(scope="session")
def assembly(zoo: Path) -> Assembly:
    config = compose_config(["models.maker=null", f"models.folder={zoo}", "tracking=none"])
    return assemble(config, find_plugins(config), lambda text: None)


@pytest.fixture(scope="session")
def bench(assembly: Assembly) -> Workbench:
    return Workbench(assembly.opened(), assembly.fit, torch.device("cpu"))


@pytest.fixture
def engine(assembly: Assembly, bench: Workbench) -> TransformersEngine:
    """An engine with the Japanese specialist mounted on the base's architecture."""
    engine = build(Options(device="cpu", batch_size=4, threads=1), assembly.checkpoints["base"].folder, "float32")
    engine.mount(bench.candidate(assembly.space.ingredients.source("ja")))
    return engine


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that answers in single letters; it rarely ends by itself."""
    folder = tmp_path_factory.mktemp("babbler")
    words = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    letters = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    letters.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=letters, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
