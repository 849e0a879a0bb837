"""A LoRA adapter as a source: searched, written, and rebuilt from where it lies then."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from end_to_end.conftest import Refuse, assert_one_message
from optmerge.__main__ import run

LORA = "+models.sources.lora.path="
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="session")
def adapter(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of small random numbers over the zoo's Japanese source."""
    model = AutoModelForCausalLM.from_pretrained(zoo / "ja", dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def lora(adapter: Path, tmp_path: Path) -> Path:
    """A copy of it, to be moved or damaged."""
    return Path(shutil.copytree(adapter, tmp_path / "lora"))


@pytest.fixture
def recipe(small: list[str], lora: Path, here: Path) -> Path:
    """The recipe of a small search with the adapter among its sources."""
    assert run([*small, f"{LORA}{lora}", "+models.sources.lora.over=ja"]) == 0
    return here / "studies" / "demo-seed0" / "best" / "recipe.yaml"


def only_the_adapter(recipe: Path, out: Path) -> Path:
    """The same recipe with the adapter alone: what it lies over is no source of the merge then."""
    document = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    merge = document["nodes"].pop(document["root"])
    groups = {"all": {"tensors": ["*"], "parameters": {"lora": {"weight": 1.0}}}}
    sources = {"lora": merge["sources"]["lora"]}
    merge |= {"method": "linear", "sources": sources, "base": None, "tokenizer": "lora", "groups": groups}
    merge |= {"options": {}}
    document = {
        "format": "optmerge-recipe",
        "version": 1,
        "root": "mine",
        "nodes": {"mine": merge, **document["nodes"]},
    }
    out.write_text(yaml.safe_dump(document), encoding="utf-8")
    return out


def test_search_with_an_adapter_is_rebuilt_from_where_adapter_and_base_lie_then(
    recipe: Path, lora: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = yaml.safe_load(recipe.read_text(encoding="utf-8"))["nodes"]
    (leaf,) = [node for node in nodes.values() if "over" in node]
    assert leaf["location"] == str(lora) and nodes[leaf["over"]]["location"] == str(zoo / "ja")
    assert run(["rebuild", "--check", str(recipe)]) == 0
    moved = lora.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert run(["rebuild", "--check", str(recipe)]) == 2
    assert_one_message(capsys.readouterr().err)
    places = [f"sources.lora={moved}", f"sources.ja={shutil.copytree(zoo / 'ja', tmp_path / 'ja')}"]
    recipe.write_text(recipe.read_text().replace(f"{zoo / 'ja'}\n", "/moon/ja\n"))
    assert run(["rebuild", "--check", str(recipe), *places]) == 0


def test_rebuild_refuses_another_adapter_and_another_base(
    recipe: Path, lora: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["rebuild", "--check", str(recipe), f"sources.ja={zoo / 'math_add'}"]) == 2
    assert "ja: " in (told := capsys.readouterr().err) and "holds other weights" in told
    tensors = load_file(lora / WEIGHTS)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, lora / WEIGHTS)
    assert run(["rebuild", "--check", str(recipe)]) == 2
    assert "lora: " in (told := capsys.readouterr().err) and "holds other weights" in told


def test_recipe_of_the_adapter_alone_finds_its_base_and_gives_what_peft_merges(
    recipe: Path, lora: Path, zoo: Path, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = only_the_adapter(recipe, tmp_path / "alone.yaml")
    assert run(["rebuild", str(alone), "out"]) == 0
    model = AutoModelForCausalLM.from_pretrained(zoo / "ja", dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, lora).merge_and_unload().state_dict()
    written = load_file(here / "out" / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())
    loaded = AutoModelForCausalLM.from_pretrained(here / "out").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())
    alone.write_text(alone.read_text().replace(f"{zoo / 'ja'}\n", "/moon/ja\n"))
    capsys.readouterr()
    assert run(["rebuild", str(alone), "again"]) == 2
    assert "lora.over: there is no folder '/moon/ja'" in capsys.readouterr().err
    assert run(["rebuild", str(alone), "again", f"sources.lora.over={zoo / 'ja'}"]) == 0


def test_adapter_that_names_another_base_is_pointed_out(
    small: list[str], lora: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*small, f"{LORA}{lora}", "dry_run=true"]) == 0  # over models.base, not over ja
    assert "note: lora says that it was trained over" in " ".join(capsys.readouterr().out.split())


def test_adapter_without_a_whole_checkpoint_to_lie_over_is_refused(refuse: Refuse, lora: Path) -> None:
    assert "models.sources.lora.over=moon: no such other source" in refuse(
        f"{LORA}{lora}", "+models.sources.lora.over=moon"
    )
    assert "no such other source" in refuse(f"{LORA}{lora}", "+models.sources.lora.over=lora")
    twice = (f"{LORA}{lora}", f"+models.sources.other.path={lora}")
    assert "lora cannot lie over other, which is an adapter itself" in refuse(*twice, "+models.sources.lora.over=other")
    assert "ja is a whole checkpoint" in refuse("+models.sources.ja.over=base")


def test_adapter_that_cannot_be_merged_exactly_is_refused(refuse: Refuse, lora: Path) -> None:
    config = (lora / "adapter_config.json").read_text()
    (lora / "adapter_config.json").write_text(config.replace('"use_dora": false', '"use_dora": true'))
    assert "lora: " in (message := refuse(f"{LORA}{lora}")) and "because of use_dora" in message


def test_nan_in_an_adapter_is_refused(refuse: Refuse, lora: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, lora / WEIGHTS)
    message = refuse(f"{LORA}{lora}")
    assert message.startswith("optmerge: lora: base_model.model.") and "holds NaN or infinity" in message
