"""Paths in the forms of other programs: the published checkpoints, folded models, and mergekit's configuration."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from flow.conftest import Pair
from flow.test_paths import HOPS, SCALED, distance, logits, running
from optmerge.__main__ import run
from optmerge.models.product import recipe_of
from optmerge.recipe import Hop, PathNode, Recipe, load_recipe

Pairs = Callable[[str], Pair]


def saved(pair: Pair, hops: tuple[Hop, ...], path: Path, target: str = "hidden") -> Path:
    pair.recipe(hops, target).save(path)
    return path


@pytest.fixture
def published(pairs: Pairs, tmp_path: Path) -> Path:
    """A checkpoint in the published form, put together by hand: three layers of a model, five hops over them."""
    pair, folder = pairs("mistral"), tmp_path / "published"
    folder.mkdir()
    tensors = {
        name: tensor
        for name, tensor in load_file(pair.folders["a"] / "model.safetensors").items()
        if not name.startswith("model.layers.3.")
    }
    tensors["model.input_layers"] = torch.tensor([0, 1, 1, 0, 2])
    tensors["model.input_scales"] = torch.tensor([0.75, 1.25, -0.5, 1.5, 0.875])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((pair.folders["a"] / "config.json").read_text())
    config |= {"model_type": "evomistral", "architectures": ["EvoMistralForCausalLM"], "num_hops": 5}
    config |= {"num_hidden_layers": 3, "auto_map": {"AutoConfig": "configuration_evomistral.EvoMistralConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((pair.folders["a"] / name).read_bytes())
    return folder


def test_published_checkpoint_is_a_recipe(published: Path, tmp_path: Path) -> None:
    assert run(["import", str(published), str(tmp_path / "recipe.yaml")]) == 0
    root = load_recipe(tmp_path / "recipe.yaml").root
    assert isinstance(root, PathNode)
    assert root.scale_target == "branch"
    assert [(hop.layer, hop.scale) for hop in root.hops] == [(0, 0.75), (1, 1.25), (1, -0.5), (0, 1.5), (2, 0.875)]


def test_published_checkpoint_folds_into_an_ordinary_model(published: Path, pairs: Pairs, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    assert run(["import", str(published), str(recipe)]) == 0
    assert run(["export", str(recipe), str(out), "format=fold"]) == 0
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, trust_remote_code=False).eval()
    scales = (0.75, 1.25, -0.5, 1.5, 0.875)
    hops = tuple(Hop("a", layer, scale) for layer, scale in zip((0, 1, 1, 0, 2), scales, strict=True))
    assert distance(logits(model), logits(running(pairs("mistral"), hops, "branch"))) < 1e-4


def test_published_form_is_written_as_it_was_read(published: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    assert run(["import", str(published), str(recipe)]) == 0
    assert run(["export", str(recipe), str(out), "format=evomistral"]) == 0
    read, written = (load_file(folder / "model.safetensors") for folder in (published, out))
    assert read.keys() == written.keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in read.items())
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_hops"], config["num_hidden_layers"]) == ("evomistral", 5, 3)
    inside = recipe_of(out)  # its weights are not those of the folded model, whose hash a recipe names
    assert inside is not None and (inside[0].sha256, inside[0].weights_sha256) == (load_recipe(recipe).sha256, None)


def test_layers_are_written_once(pairs: Pairs, tmp_path: Path) -> None:
    hops = tuple(Hop(hop.source, hop.layer, scale) for hop, scale in zip(HOPS, (1, 1, 2, 3, 1, 1, 1), strict=True))
    recipe = saved(pairs("mistral"), hops, tmp_path / "recipe.yaml", "branch")
    assert run(["export", str(recipe), str(tmp_path / "out"), "format=evomistral"]) == 0
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["model.input_layers"].tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert tensors["model.input_scales"].tolist() == [1, 1, 2, 3, 1, 1, 1]
    theirs = load_file(pairs("mistral").folders["b"] / "model.safetensors")
    assert torch.equal(tensors["model.layers.3.mlp.up_proj.weight"], theirs["model.layers.3.mlp.up_proj.weight"])


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_folded_export_is_held_against_the_path(
    pairs: Pairs, family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = saved(pairs(family), SCALED, tmp_path / "recipe.yaml")
    assert run(["export", str(recipe), str(tmp_path / "out"), "format=fold"]) == 0
    inside = recipe_of(tmp_path / "out" / "model.safetensors")
    assert inside is not None and inside[0] == load_recipe(tmp_path / "out" / "recipe.yaml").portable()
    assert ModelCard.load(tmp_path / "out" / "README.md").data.tags == ["merge", "optmerge", "data-flow"]
    said = " ".join(capsys.readouterr().out.split())
    assert "6 of 6 greedy texts are the path's" in said
    assert run(["rebuild", "--check", str(tmp_path / "out" / "recipe.yaml")]) == 0


def test_folded_export_in_bfloat16_says_how_far_rounding_takes_it(
    pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, pair = tmp_path / "recipe.yaml", pairs("llama")
    Recipe(replace(pair.recipe(SCALED).root, dtype="bfloat16")).save(recipe)
    assert run(["export", str(recipe), str(tmp_path / "out"), "format=fold"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    found = re.search(r"logits (\S+) of the greatest apart in bfloat16 \(at most 0.1\)", said)
    assert found and 1e-4 < float(found[1]) < 0.1
    assert all(t.dtype == torch.bfloat16 for t in load_file(tmp_path / "out" / "model.safetensors").values())


FRESH = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False)
ids = tokenizer(sys.argv[2], return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=30, do_sample=False)[0]))
assert not any(name.startswith("optmerge") for name in sys.modules)
"""


@pytest.mark.parametrize(("family", "target"), [("llama", "hidden"), ("mistral", "branch")])
def test_folded_export_says_the_paths_words_to_a_process_that_knows_nothing_of_us(
    pairs: Pairs, family: str, target: str, tmp_path: Path
) -> None:
    prompt, pair = "How many did she sell?", pairs(family)
    recipe = saved(pair, SCALED, tmp_path / "recipe.yaml", target)
    assert run(["export", str(recipe), str(tmp_path / "out"), "format=fold"]) == 0
    command = [sys.executable, "-c", FRESH, str(tmp_path / "out"), prompt]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    tokenizer = AutoTokenizer.from_pretrained(pair.folders["a"])
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    wanted = running(pair, SCALED, target).generate(ids, max_new_tokens=30, do_sample=False)[0]
    assert len(set(wanted.tolist())) > 5
    assert done.stdout.split() == tokenizer.decode(wanted).split()


def test_fold_that_is_not_the_path_is_not_kept(
    pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scales so small that the stream sinks below the norms' epsilon, which no fold follows."""
    hops = tuple(Hop("a", number % 4, 0.01) for number in range(12))
    recipe = saved(pairs("llama"), hops, tmp_path / "recipe.yaml")
    assert run(["export", str(recipe), str(tmp_path / "out"), "format=fold"]) == 1
    assert "the folded model is not the path" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mergekit_configuration_scales_the_last_tensors(pairs: Pairs, tmp_path: Path) -> None:
    hops = (Hop("a", 0, 1.0), Hop("b", 2, 0.5), Hop("a", 3, 0.8))
    recipe = saved(pairs("llama"), hops, tmp_path / "recipe.yaml")
    assert run(["export", str(recipe), str(tmp_path / "out"), "format=mergekit"]) == 0
    document = yaml.safe_load((tmp_path / "out" / "mergekit.yaml").read_text())
    assert document["merge_method"] == "passthrough"
    sources = [entry["sources"][0] for entry in document["slices"]]
    assert [source["layer_range"] for source in sources] == [[0, 1], [2, 3], [3, 4]]
    assert "parameters" not in sources[0]
    assert sources[1]["parameters"]["scale"] == [
        {"filter": "self_attn.o_proj", "value": 2.0},
        {"filter": "mlp.down_proj", "value": 2.0},
        {"value": 1.0},
    ]
    assert sources[2]["parameters"]["scale"][0]["value"] == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("family", "form", "target", "said"),
    [
        ("mistral", "evomistral", "hidden", "it has no such form"),
        ("llama", "evomistral", "branch", "for Mistral models"),
        ("llama", "mergekit", "hidden", "no words"),
        ("gemma2", "mergekit", "branch", "norms whose gains"),
    ],
)
def test_what_a_form_cannot_say_is_refused(
    pairs: Pairs, family: str, form: str, target: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = saved(pairs(family), SCALED, tmp_path / "recipe.yaml", target)
    capsys.readouterr()  # what transformers said when it wrote the models
    assert run(["export", str(recipe), str(tmp_path / "out"), f"format={form}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("optmerge: ")
    assert said in message
    assert not (tmp_path / "out").exists()
