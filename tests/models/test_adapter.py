"""LoRA adapters, written by PEFT and held against what PEFT merges."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.conftest import WORDS, Make, write_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from optmerge.errors import UsageError
from optmerge.merge import merge_tensors
from optmerge.models import Adapter, Checkpoint, check_finite, check_fit, open_checkpoints, scan

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q = "model.layers.0.self_attn.q_proj"
Train = Callable[..., Path]
Lay = Callable[[Path, Path], Adapter]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A tiny GPT-2, whose layers are Conv1D, one of them square."""
    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    config = GPT2Config(n_embd=16, n_head=4, n_layer=2, vocab_size=len(WORDS), n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(folder)
    write_tokenizer(folder, WORDS)
    return folder


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Put an adapter of random numbers on a model, and save it as PEFT does."""

    def train(base: Path, name: str = "adapter", **settings: Any) -> Path:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        options = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | settings
        adapted = get_peft_model(model, LoraConfig(**options))
        torch.manual_seed(1)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
        adapted.save_pretrained(tmp_path / name)
        return tmp_path / name

    return train


def lay(base: Path, adapter: Path) -> Adapter:
    return Adapter.over(Checkpoint.open(base, "base"), adapter, "lora")


def peft_merges(base: Path, adapter: Path) -> dict[str, Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged: dict[str, Tensor] = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    return merged


def changed(adapter: Adapter) -> set[str]:
    return {
        name
        for name in adapter.names()
        if not torch.equal(adapter.tensor(name).float(), adapter.base.tensor(name).float())
    }


def assert_equals_peft(base: Path, folder: Path) -> Adapter:
    adapter, merged = lay(base, folder), peft_merges(base, folder)
    for name in adapter.names():
        assert torch.equal(adapter.tensor(name), merged[name]), name
        assert adapter.tensor(name).is_contiguous()
        assert adapter.dtype(name) == adapter.tensor(name).dtype
        assert adapter.shape(name) == tuple(adapter.tensor(name).shape)
    return adapter


def edit(folder: Path, **settings: Any) -> Path:
    """Change adapter_config.json by hand."""
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_bytes()) | settings))
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """Change the adapter's tensors by hand."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    return folder


def refuse(base: Path, adapter: Path) -> str:
    with pytest.raises(UsageError) as caught:
        lay(base, adapter)
    message = str(caught.value)
    assert message.startswith("lora") and "\n" not in message
    return message


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": "all-linear"},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\..*down_proj": 3}, "alpha_pattern": {r"^model\.layers\.0\..*": 5}},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.self_attn.q_proj": 9}, "use_rslora": True},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
        {"layers_to_transform": [1]},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
        {"init_lora_weights": "orthogonal"},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_equals_what_peft_merges(make: Make, train: Train, settings: dict[str, Any]) -> None:
    base = make("base")
    assert changed(assert_equals_peft(base, train(base, **settings)))


@pytest.mark.parametrize("settings", [{"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True}], ids=str)
def test_biases_equal_what_peft_merges(make: Make, train: Train, settings: dict[str, Any]) -> None:
    base = make("base", attention_bias=True)
    adapter = assert_equals_peft(base, train(base, target_modules=["q_proj"], **settings))
    assert f"{Q}.bias" in changed(adapter)


@pytest.mark.parametrize(
    ("targets", "count"), [(["c_attn"], 2), (["c_attn", "c_proj", "c_fc"], 8), (["wpe"], 1)], ids=str
)
def test_transposed_layers_equal_what_peft_merges(gpt2: Path, train: Train, targets: list[str], count: int) -> None:
    adapter = train(gpt2, target_modules=targets, fan_in_fan_out="c_attn" in targets)
    assert len(changed(assert_equals_peft(gpt2, adapter))) == count


@pytest.mark.parametrize("fan_in_fan_out", [True, False])
def test_what_is_transposed_follows_from_the_layer_not_from_the_setting(
    gpt2: Path, train: Train, fan_in_fan_out: bool
) -> None:
    adapter = edit(train(gpt2, target_modules=["c_proj"]), fan_in_fan_out=fan_in_fan_out)
    assert "transformer.h.0.attn.c_proj.weight" in changed(assert_equals_peft(gpt2, adapter))  # square


def test_base_whose_names_lack_the_models_prefix_is_known(gpt2: Path, train: Train) -> None:
    adapter = train(gpt2, target_modules=["c_attn"])
    tensors = load_file(gpt2 / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(short, gpt2 / "model.safetensors", metadata={"format": "pt"})
    merged = peft_merges(gpt2, adapter)
    assert torch.equal(
        lay(gpt2, adapter).tensor("h.0.attn.c_attn.weight"), merged["transformer.h.0.attn.c_attn.weight"]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapter_in_half_precision_is_computed_in_float32(make: Make, train: Train, dtype: torch.dtype) -> None:
    base = make("base")
    folder = train(base, modules_to_save=["norm"])
    rewrite(folder, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    adapter, merged = lay(base, folder), peft_merges(base, folder)
    assert all(torch.equal(adapter.tensor(name).float(), merged[name]) for name in adapter.names())
    assert (adapter.dtype("model.norm.weight"), adapter.dtype(f"{Q}.weight")) == (dtype, torch.float32)


def test_base_in_bfloat16_stays_as_it_is_where_nothing_is_added(make: Make, train: Train) -> None:
    base = make("base", dtype=torch.bfloat16)
    adapter = lay(base, train(base))
    assert adapter.tensor("model.norm.weight").dtype == adapter.dtype("model.norm.weight") == torch.bfloat16
    factors = load_file(adapter.weights.files[0])
    delta = factors[f"base_model.model.{Q}.lora_B.weight"] @ factors[f"base_model.model.{Q}.lora_A.weight"] * 1.5
    assert torch.equal(adapter.tensor(f"{Q}.weight"), adapter.base.tensor(f"{Q}.weight").float() + delta)
    assert adapter.nbytes == sum(adapter.tensor(name).nbytes for name in adapter.names())


def test_task_arithmetic_with_weight_one_gives_what_peft_merges(make: Make, train: Train) -> None:
    base = make("base")
    folder = train(base)
    adapter, merged = lay(base, folder), peft_merges(base, folder)
    for name in adapter.names():
        found = merge_tensors("task_arithmetic", [adapter.tensor(name)], base=adapter.base.tensor(name), weight=[1.0])
        # base + (tensor - base) may round twice
        ulp = torch.finfo(torch.float32).eps * torch.maximum(merged[name].abs(), adapter.base.tensor(name).abs())
        assert ((found - merged[name]).abs() <= ulp).all(), name


def test_fits_and_merges_beside_its_base(make: Make, train: Train) -> None:
    base = make("base")
    opened = open_checkpoints({"base": base, "lora": train(base)}, {}, base="base")
    fit = check_fit(opened, base="base", tokenizer="lora")
    assert fit.names == opened["base"].names() and opened["lora"].folder == base


def test_adapters_own_tokenizer_is_looked_at(make: Make, train: Train) -> None:
    base = make("base")
    folder = train(base)
    write_tokenizer(folder, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    opened = open_checkpoints({"base": base, "lora": folder}, {}, base="base")
    assert opened["lora"].folder == folder and opened["lora"].config == opened["base"].config


# Tied embeddings


def test_adapter_over_tied_embeddings_fits_whether_or_not_the_base_repeats_them(make: Make, train: Train) -> None:
    base = make("base", tie_word_embeddings=True)
    folder = train(base)
    assert_equals_peft_but_the_head(base, folder)
    tensors = load_file(base / "model.safetensors")
    repeated = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(repeated, base / "model.safetensors", metadata={"format": "pt"})
    assert_equals_peft_but_the_head(base, folder)


def assert_equals_peft_but_the_head(base: Path, folder: Path) -> None:
    adapter = assert_equals_peft(base, folder)
    assert "lm_head.weight" not in adapter.names()
    opened = open_checkpoints({"base": base, "lora": folder}, {}, base="base")
    assert "lm_head.weight" not in check_fit(opened, base="base", tokenizer="base").names


def test_tied_embeddings_trained_together_replace_the_base_s(make: Make, train: Train) -> None:
    base = make("base", tie_word_embeddings=True)
    folder = train(base, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    assert "base_model.model.lm_head.weight" in load_file(folder / WEIGHTS)
    assert "model.embed_tokens.weight" in changed(assert_equals_peft(base, folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    ],
    ids=str,
)
def test_what_unties_embeddings_is_refused(make: Make, train: Train, settings: dict[str, Any]) -> None:
    base = make("base", tie_word_embeddings=True)
    assert "base has its output head tied to the input embedding" in refuse(base, train(base, **settings))


# Refusals


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter: only LORA"),
        ({"use_dora": True}, "because of use_dora: DoRA"),
        ({"use_qalora": True}, "because of use_qalora"),
        ({"alora_invocation_tokens": [1, 2]}, "because of alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "because of layer_replication"),
        ({"trainable_token_indices": [3]}, "because of trainable_token_indices"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "because of target_parameters"),
        ({"arrow_config": {"top_k": 2}}, "because of arrow_config"),
        ({"use_bdlora": {"nblocks": 2}}, "because of use_bdlora"),
        ({"monteclora_config": {"num_samples": 8}}, "because of monteclora_config"),
        ({"kasa_config": {"beta": 1e-4}}, "because of kasa_config"),
        ({"use_moon_phase": True}, "because of use_moon_phase: it is not known"),
        ({"init_lora_weights": "pissa_niter_16"}, "began with init_lora_weights=pissa_niter_16"),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "corda"}, "changes the base's weights"),
        ({"init_lora_weights": "lora_ga"}, "changes the base's weights"),
        ({"init_lora_weights": "loftq"}, "changes the base's weights"),
        ({"r": 8}, "lora_A.weight is [4, 24]"),
        ({"r": 0}, "adapter_config.json cannot be used"),
        ({"r": "many"}, "adapter_config.json cannot be used"),
        ({"rank_pattern": {"(": 4}}, "adapter_config.json cannot be used"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_make_more_of_it_are_refused(
    make: Make, train: Train, settings: dict[str, Any], told: str
) -> None:
    base = make("base")
    assert told in refuse(base, edit(train(base), **settings))


def test_dora_written_by_peft_is_refused(make: Make, train: Train) -> None:
    base = make("base")
    folder = train(base, use_dora=True)
    assert "because of use_dora" in refuse(base, folder)
    assert "because it holds base_model.model.model.layers.0" in refuse(base, edit(folder, use_dora=False))


def test_pissa_that_was_converted_is_accepted(make: Make, train: Train, tmp_path: Path) -> None:
    base = make("base")
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, init_lora_weights="pissa", target_modules=["q_proj"]))
    # PEFT wants the adapter as it was before training, and tells the initialisation by this name.
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(tmp_path / "before")
    adapted.peft_config["default"].init_lora_weights = "pissa"
    torch.manual_seed(1)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(tmp_path / "after", path_initial_model_for_weight_conversion=str(tmp_path / "before"))
    assert_equals_peft(base, tmp_path / "after")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update({"base_model.model.moon.lora_A.weight": torch.ones(4, 16)}), "no tensor moon.weight"),
        (lambda t: t.update({"base_model.model.moon.weight": torch.ones(4)}), "no tensor moon.weight"),
        (lambda t: t.pop(f"base_model.model.{Q}.lora_B.weight"), f"has factors of {Q}, and lacks lora_B.weight"),
        (lambda t: t.update({f"base_model.model.{Q}.lora_B.weight": torch.ones(9, 4)}), "lora_B.weight is [9, 4]"),
        (lambda t: t.update({f"base_model.model.{Q}.lora_B.bias": torch.ones(16)}), f"no tensor {Q}.bias"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(34, 16)}), "its vocabulary was resized"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(32, 8)}), "[32, 8], and lm_head.weight [32"),
        (lambda t: t.update({f"base_model.model.{Q}.lora_embedding_A": torch.ones(4, 16)}), "lacks lora_embedding_B"),
        (lambda t: t.update({"base_model.model.model.norm.lora_A.weight": torch.ones(4, 16)}), "lacks lora_B"),
    ],
    ids=[
        "unknown-module",
        "unknown-tensor",
        "half",
        "shape",
        "bias-without-place",
        "rows",
        "columns",
        "two-kinds",
        "half-of-a-norm",
    ],
)
def test_tensors_that_have_no_place_are_refused(
    make: Make, train: Train, change: Callable[[dict[str, Tensor]], object], told: str
) -> None:
    base = make("base")
    assert told in refuse(base, rewrite(train(base), change))


def test_adapter_in_pickle_form_is_refused_and_says_how_to_convert_it(make: Make, train: Train) -> None:
    base = make("base")
    folder = train(base)
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    assert "safetensors.torch.save_file(torch.load('adapter_model.bin', weights_only=True)" in refuse(base, folder)


def test_adapter_without_weights_or_with_damaged_ones_is_refused(make: Make, train: Train) -> None:
    base = make("base")
    folder = train(base)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])
    assert "is truncated" in refuse(base, folder)
    (folder / WEIGHTS).unlink()
    assert f"and no {WEIGHTS}" in refuse(base, folder)


def test_what_an_adapter_lies_over_must_be_a_whole_checkpoint(make: Make, train: Train) -> None:
    base = make("base")
    folders = {"base": base, "one": train(base, "one"), "two": train(base, "two")}
    for over, default, told in (
        ({"two": "one"}, "base", "two cannot lie over one, which is an adapter itself"),
        ({}, None, "one is an adapter: say which source it lies over with models.sources.one.over"),
        ({}, "one", "one is an adapter: say which source"),
        ({"base": "one"}, "base", "base is a whole checkpoint, and cannot lie over one"),
    ):
        with pytest.raises(UsageError, match=told):
            open_checkpoints(folders, over, base=default)


# Hashes and scans


def sha256(base: Path, folder: Path, cache: Path) -> str:
    return scan(lay(base, folder), cache=cache).weights_sha256


def test_hash_covers_the_tensors_and_what_the_settings_decide(make: Make, train: Train, tmp_path: Path) -> None:
    base = make("base")
    folder = train(base)
    first = sha256(base, folder, tmp_path)
    assert first != scan(lay(base, folder).weights, cache=tmp_path).weights_sha256
    assert sha256(base, edit(folder, lora_dropout=0.5, task_type="CAUSAL_LM"), tmp_path) == first
    assert sha256(base, edit(folder, lora_alpha=1, alpha_pattern={"q_proj|down_proj": 6}), tmp_path) == first
    assert sha256(base, edit(folder, lora_alpha=6.5, alpha_pattern={}), tmp_path) != first
    assert sha256(base, edit(folder, lora_alpha=6), tmp_path) == first
    rewrite(folder, lambda tensors: tensors[f"base_model.model.{Q}.lora_B.weight"].mul_(2))
    assert sha256(base, folder, tmp_path) != first


def test_hash_does_not_cover_the_base(make: Make, train: Train, tmp_path: Path) -> None:
    base = make("base")
    folder = train(base)
    assert sha256(make("other", seed=1), folder, tmp_path) == sha256(base, folder, tmp_path)


def test_nan_in_an_adapter_is_found(make: Make, train: Train, tmp_path: Path) -> None:
    base = make("base")
    key = f"base_model.model.{Q}.lora_A.weight"
    folder = rewrite(train(base), lambda tensors: tensors[key].fill_(math.nan))
    with pytest.raises(UsageError, match="lora: .*q_proj.lora_A.weight holds NaN"):
        check_finite({"lora": scan(lay(base, folder), cache=tmp_path)})


def test_scan_reads_only_what_the_adapter_holds(make: Make, train: Train, tmp_path: Path) -> None:
    base = make("base")
    adapter = lay(base, train(base))
    seen: list[tuple[int, int]] = []
    scan(adapter, lambda done, total: seen.append((done, total)), cache=tmp_path)
    assert seen[-1] == (adapter.weights.nbytes, adapter.weights.nbytes) and adapter.weights.nbytes < adapter.nbytes


@pytest.mark.parametrize(
    ("named", "location", "told"),
    [
        ("org/Mistral-7B", "mistralai/mistral-7b", False),
        ("/home/bob/mistral-7b/", "models/mistral-7b", False),
        (None, "models/mistral-7b", False),
        ("meta-llama/Llama-3-8B", "mistralai/mistral-7b", True),
    ],
)
def test_another_base_than_the_one_trained_over_is_worth_a_notice(
    make: Make, train: Train, named: str | None, location: str, told: bool
) -> None:
    base = make("base")
    notice = lay(base, edit(train(base), base_model_name_or_path=named)).notice(location)
    assert bool(notice) == told and (not told or str(named) in str(notice))


def test_moved_adapter_is_the_same(make: Make, train: Train, tmp_path: Path) -> None:
    base = make("base")
    folder = train(base)
    first = sha256(base, folder, tmp_path)
    moved = Path(shutil.move(os.fspath(folder), tmp_path / "elsewhere"))
    assert sha256(base, moved, tmp_path) == first
