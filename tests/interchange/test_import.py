"""The import command: recipes that rebuild, sources found and named, nothing half-written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from interchange.conftest import LAYERS, NAMES, Import, root_of, write_model
from optmerge.__main__ import run
from optmerge.interchange.aliases import aliases_of
from optmerge.interchange.configuration import ModelName

LINEAR: dict[str, Any] = {
    "merge_method": "linear",
    "models": [{"model": "alpha", "parameters": {"weight": 1}}, {"model": "beta", "parameters": {"weight": 3}}],
    "base_model": "alpha",
    "dtype": "float32",
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert run(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("optmerge: ") and captured.err.count("\n") == 1
    return captured.err


def test_a_recipe_is_written_that_rebuilds(imported: Import, here: Path) -> None:
    document = imported(LINEAR)
    assert root_of(document)["groups"] == {
        "model": {"tensors": ["*"], "parameters": {"alpha": {"weight": 1.0}, "beta": {"weight": 3.0}}}
    }
    assert run(["rebuild", "recipe.yaml", "out"]) == 0
    merged, alpha, beta = (load_file(here / name / "model.safetensors") for name in ("out", "alpha", "beta"))
    for name in NAMES:
        torch.testing.assert_close(merged[name], 0.25 * alpha[name] + 0.75 * beta[name])


def test_sources_are_named_by_folder_and_found_by_absolute_path(imported: Import, here: Path) -> None:
    document = imported(LINEAR)
    leaves = [node for node in document["nodes"].values() if node["kind"] == "checkpoint"]
    assert {leaf["location"] for leaf in leaves} == {str(here / "alpha"), str(here / "beta")}
    assert root_of(document)["tokenizer"] == "alpha"


def test_stacked_layers_rebuild_as_a_model_that_loads(imported: Import, here: Path) -> None:
    from transformers import AutoModelForCausalLM

    document = imported(
        {
            "merge_method": "passthrough",
            "slices": [
                {"sources": [{"model": "alpha", "layer_range": [0, 3]}]},
                {"sources": [{"model": "beta", "layer_range": [1, 4]}]},
            ],
            "dtype": "float32",
        }
    )
    assert root_of(document)["layers"] == [{"alpha": n} for n in range(3)] + [{"beta": n} for n in range(1, 4)]
    assert run(["rebuild", "recipe.yaml", "out"]) == 0
    config = json.loads((here / "out" / "config.json").read_text(encoding="utf-8"))
    types = ["full_attention", "sliding_attention"]
    assert (config["num_hidden_layers"], config["layer_types"]) == (6, [*types, types[0], types[1], types[0], types[1]])
    beta = load_file(here / "beta" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(here / "out")
    assert torch.equal(model.model.layers[4].mlp.up_proj.weight, beta["model.layers.2.mlp.up_proj.weight"])
    assert torch.equal(model.lm_head.weight, beta["lm_head.weight"])


def test_models_are_found_from_the_working_folder_and_then_beside_the_file(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_model(elsewhere / "beta", 9)
    (here / "merge.yaml").write_text(yaml.safe_dump(LINEAR), encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    assert run(["import", str(here / "merge.yaml")]) == 0
    text = (here / "merge.recipe.yaml").read_text(encoding="utf-8")
    assert f"location: {here / 'alpha'}\n" in text
    assert f"location: {elsewhere / 'beta'}\n" in text


def test_a_model_may_be_moved(imported: Import, here: Path) -> None:
    (here / "beta").rename(here / "moved")
    document = imported(LINEAR, "sources.beta=moved")
    assert str(here / "moved") in yaml.safe_dump(document)


def test_folders_of_the_same_name_are_told_apart(imported: Import, here: Path) -> None:
    write_model(here / "x" / "alpha", 5)
    write_model(here / "y" / "gam.ma v2", 6)
    models = [{"model": name, "parameters": {"weight": 1}} for name in ("alpha", "x/alpha", "y/gam.ma v2")]
    document = imported(LINEAR | {"models": models})
    assert set(root_of(document)["sources"]) == {"alpha", "x-alpha", "gam_ma_v2"}


def test_aliases_do_not_depend_on_the_order_of_models() -> None:
    names = ["a/model", "b/model", "other/union", "hub/Mistral-7B-v0.1", "deep/a/model"]
    models = [ModelName(name) for name in names]
    aliases = aliases_of(models)
    assert aliases == aliases_of(models[::-1])
    assert {aliases[model] for model in models} == {"a-model", "b-model", "union-2", "Mistral-7B-v0_1", "a-model-2"}


def test_an_adapter_lies_over_the_model_before_the_plus(imported: Import, here: Path) -> None:
    from safetensors.torch import save_file

    adapter = here / "lora"
    adapter.mkdir()
    factors = {"lora_A.weight": torch.ones(2, 8), "lora_B.weight": torch.ones(8, 2)}
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{stem}.{name}": tensor for name, tensor in factors.items()}, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    models = [{"model": "alpha"}, {"model": "base+lora"}]
    document = imported(LINEAR | {"models": models, "parameters": {"weight": 1}})
    assert set(root_of(document)["sources"]) == {"alpha", "lora"}
    over = document["nodes"][document["nodes"][root_of(document)["sources"]["lora"]]["over"]]
    assert over["location"] == str(here / "base")
    assert run(["rebuild", "recipe.yaml", "out"]) == 0


def test_settings_of_the_whole_merge_are_kept(imported: Import) -> None:
    more = {"out_dtype": "bfloat16", "tokenizer": {"source": "beta", "pad_to_multiple_of": 4}}
    root = root_of(imported(LINEAR | more))
    assert (root["dtype"], root["tokenizer"], root["pad_vocabulary_to"]) == ("bfloat16", "beta", 4)


def test_without_a_dtype_the_weights_are_stored_as_the_models_are(imported: Import, here: Path) -> None:
    write_model(here / "half", 7, torch.bfloat16)
    write_model(here / "half2", 8, torch.bfloat16)
    models = [{"model": "half"}, {"model": "half2"}]
    changed = {"models": models, "base_model": "half", "parameters": {"weight": 1}, "dtype": None}
    assert root_of(imported(LINEAR | changed))["dtype"] == "bfloat16"


def test_what_differs_from_mergekit_is_told(imported: Import, capsys: pytest.CaptureFixture[str]) -> None:
    dare = {"merge_method": "dare_ties", "base_model": "base", "dtype": "bfloat16"}
    imported(LINEAR | dare | {"parameters": {"density": 0.5}})
    told = capsys.readouterr().out
    assert "mergekit computes this merge in bfloat16; here it is computed in float32" in told
    assert "entries are dropped at random, and not the same ones that mergekit drops" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model": "nowhere/at/all"}, "models of the configuration are missing"),
        ({"merge_method": "ties", "base_model": None}, "ties needs a base"),
        ({"parameters": {"normalize": [True, False]}}, r"parameters.normalize: a recipe has one value"),
        ({"slices": [{"sources": [{"model": "alpha", "layer_range": [0, 2]}]}], "models": None}, "nothing says what"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], changes: Any, message: str
) -> None:
    (here / "merge.yaml").write_text(yaml.safe_dump(LINEAR | changes), encoding="utf-8")
    before = sorted(here.iterdir())
    capsys.readouterr()
    assert run(["import", "merge.yaml"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_a_file_that_is_there_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "merge.yaml").write_text(yaml.safe_dump(LINEAR), encoding="utf-8")
    assert "merge.yaml is there already" in refused(capsys, "import", "merge.yaml", "merge.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "CONFIG is missing; write `import CONFIG [RECIPE]"),
        (["a", "b", "c"], "'c' is one word too many; write `import CONFIG [RECIPE]"),
        (["a", "serch=b"], "'serch=b': no such word (did you mean 'search'?); write `import CONFIG [RECIPE]"),
        (["nothing.yaml"], "cannot read nothing.yaml"),
        (["merge.yaml", "x.yaml", "search=x.yaml"], "x.yaml: the recipe and the experiment need two names"),
        (["merge.yaml", "sources.gamma=base"], "sources.gamma: no such source; there are alpha, beta"),
    ],
)
def test_a_command_asked_wrongly_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (here / "merge.yaml").write_text(yaml.safe_dump(LINEAR), encoding="utf-8")
    assert message in refused(capsys, "import", *arguments)


def test_slices_of_one_model_may_be_fewer_than_its_layers(imported: Import, here: Path) -> None:
    cut = {"merge_method": "passthrough", "slices": [{"sources": [{"model": "alpha", "layer_range": [1, LAYERS]}]}]}
    imported(cut)
    assert run(["rebuild", "recipe.yaml", "out"]) == 0
    merged, alpha = (load_file(here / name / "model.safetensors") for name in ("out", "alpha"))
    assert torch.equal(merged["model.layers.0.mlp.up_proj.weight"], alpha["model.layers.1.mlp.up_proj.weight"])
    assert "model.layers.3.mlp.up_proj.weight" not in merged
