"""The form of a folder's weights, by what lies there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from optmerge.models.form import Form, form_at, form_of


@pytest.mark.parametrize(
    ("files", "form"),
    [
        ((), None),
        (("model.safetensors",), None),
        (("model.safetensors", "model-f16.gguf"), None),
        (("model-q8_0.gguf",), Form("gguf", "Q8_0", ("model-q8_0.gguf",))),
        (("My.Model-BF16.gguf",), Form("gguf", "BF16", ("My.Model-BF16.gguf",))),
        (("x-f32.gguf", "x-q8_0.gguf"), Form("gguf", "", ("x-f32.gguf", "x-q8_0.gguf"))),
        (("mine.gguf",), Form("gguf", "", ("mine.gguf",))),
    ],
)
def test_form_by_the_names_of_files(tmp_path: Path, files: tuple[str, ...], form: Form | None) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert form_of(tmp_path) == form


def test_form_of_a_file_alone(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, dtype=torch.int8), "b": torch.zeros(2)}, tmp_path / "eight.safetensors")
    save_file({"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.int64)}, tmp_path / "plain.safetensors")
    assert form_at(tmp_path / "eight.safetensors") == Form("int8")
    assert form_at(tmp_path / "plain.safetensors") is None
    assert form_at(tmp_path / "a-q8_0.gguf") == Form("gguf", "Q8_0", ("a-q8_0.gguf",))
    assert form_at(tmp_path / "recipe.yaml") is None


@pytest.mark.parametrize(
    ("config", "form"),
    [
        ({"quantization_config": {"quant_method": "torchao"}}, Form("int8")),
        ({"quantization_config": {"quant_method": "gptq"}}, None),
        ({"quantization_config": None}, None),
        ({}, None),
        ([], None),
    ],
)
def test_form_by_the_configuration(tmp_path: Path, config: object, form: Form | None) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert form_of(tmp_path) == form
