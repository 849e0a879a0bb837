import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, check_finite, scan, weights_sha256

NAME = "model.layers.1.mlp.up_proj.weight"


def put(folder, value, name=NAME):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[name][3, 5] = value
    save_file(tensors, file, {"format": "pt"})


def counting():
    calls = []
    return calls, lambda done, total: calls.append((done, total))


def test_scan_gives_the_hash_of_the_weights(opened, tmp_path):
    checkpoint = opened()
    found = scan(checkpoint, cache=tmp_path / "cache")
    assert found.weights_sha256 == weights_sha256((name, checkpoint.tensor(name)) for name in checkpoint.names())
    assert found.bad == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_tensor_that_is_not_finite_is_found(make, tmp_path, dtype, value):
    folder = make(dtype=dtype)
    put(folder, value)
    found = scan(Checkpoint.open(folder, "ja"), cache=tmp_path / "cache")
    assert found.bad == [NAME]
    with pytest.raises(UsageError, match=f"^ja: {NAME} holds NaN or infinity"):
        check_finite({"ja": found})


def test_second_scan_reads_nothing(opened, tmp_path):
    calls, report = counting()
    checkpoint = opened()
    first = scan(checkpoint, report, cache=tmp_path / "cache")
    assert calls[-1] == (checkpoint.nbytes, checkpoint.nbytes)
    calls.clear()
    assert scan(checkpoint, report, cache=tmp_path / "cache") == first
    assert calls == []


def test_changed_file_is_read_again(make, tmp_path):
    folder = make()
    before = scan(Checkpoint.open(folder, "ja"), cache=tmp_path / "cache")
    put(folder, 1.0)
    assert scan(Checkpoint.open(folder, "ja"), cache=tmp_path / "cache") != before


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"weights_sha256": 1, "bad": 2}'])
def test_damaged_cache_is_ignored(opened, tmp_path, content):
    first = scan(opened(), cache=tmp_path / "cache")
    (remembered,) = (tmp_path / "cache" / "scans").iterdir()
    remembered.write_bytes(content)
    assert scan(Checkpoint.open(tmp_path / "source", "ja"), cache=tmp_path / "cache") == first


def test_cache_that_cannot_be_written_is_no_error(opened, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert scan(opened(), cache=tmp_path / "cache").bad == []
    assert "cannot remember" in caplog.text


def test_default_cache_honours_the_environment(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "xdg"))
    scan(opened())
    assert len(list((tmp_path / "xdg" / "optmerge" / "scans").iterdir())) == 1
