"""Sources that cannot be merged are refused before anything starts, and the message says which and why."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from end_to_end.conftest import Refuse

WEIGHTS = "model.safetensors"
NORM = "model.norm.weight"


@pytest.fixture
def ja(zoo: Path, tmp_path: Path) -> Path:
    """A copy of one source, to be damaged."""
    return Path(shutil.copytree(zoo / "ja", tmp_path / "damaged"))


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_folder_that_is_not_there_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    message = refuse(f"models.sources.ja.path={tmp_path / 'moon'}")
    assert "ja: there is no folder" in message and "moon" in message


def test_folder_without_a_checkpoint_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    assert "has no config.json" in refuse(f"models.sources.ja.path={tmp_path}")


def test_truncated_file_is_refused(refuse: Refuse, ja: Path) -> None:
    whole = (ja / WEIGHTS).read_bytes()
    (ja / WEIGHTS).write_bytes(whole[:-100])
    message = refuse(f"models.sources.ja.path={ja}")
    assert message.startswith(f"optmerge: ja: {ja / WEIGHTS}")


def test_file_that_is_not_safetensors_is_refused(refuse: Refuse, ja: Path) -> None:
    (ja / WEIGHTS).write_text("These are not the weights that you are looking for.")
    message = refuse(f"models.sources.ja.path={ja}")
    assert message.startswith(f"optmerge: ja: {ja / WEIGHTS}") and "safetensors" in message


def test_checkpoint_with_bin_weights_only_is_sent_to_convert(refuse: Refuse, ja: Path) -> None:
    torch.save(load_file(ja / WEIGHTS), ja / "pytorch_model.bin")
    (ja / WEIGHTS).unlink()
    message = refuse(f"models.sources.ja.path={ja}")
    assert "ja: " in message and f"python -m optmerge convert {ja} OUT" in message


def test_shapes_that_differ_are_refused(refuse: Refuse, ja: Path) -> None:
    tensors = load_file(ja / WEIGHTS)
    rewrite(ja, {**tensors, NORM: torch.ones(len(tensors[NORM]) + 8)})
    message = refuse(f"models.sources.ja.path={ja}")
    assert "base and ja do not fit" in message and NORM in message


def test_tensor_names_that_differ_are_refused(refuse: Refuse, ja: Path) -> None:
    tensors = load_file(ja / WEIGHTS)
    rewrite(ja, {("moon" if name == NORM else name): tensor for name, tensor in tensors.items()})
    message = refuse(f"models.sources.ja.path={ja}")
    assert "base and ja do not fit" in message and NORM in message


def test_rows_that_cannot_be_counted_are_refused_where_tokenizers_differ(refuse: Refuse, ja: Path) -> None:
    tokenizer = json.loads((ja / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words["りんご"], words["卵"] = words["卵"], words["りんご"]
    (ja / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = json.loads((ja / "config.json").read_text(encoding="utf-8"))
    (ja / "config.json").write_text(json.dumps(config | {"vocab_size": 7}), encoding="utf-8")
    message = refuse(f"models.sources.ja.path={ja}")
    assert "ja: the vocabularies differ, and no tensor has the vocab_size rows of its config.json" in message


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_source_with_a_number_that_is_none_is_refused(refuse: Refuse, ja: Path, number: float) -> None:
    tensors = load_file(ja / WEIGHTS)
    tensors[NORM][3] = number
    rewrite(ja, tensors)
    message = refuse(f"models.sources.ja.path={ja}")
    assert f"ja: {NORM} holds NaN or infinity" in message
