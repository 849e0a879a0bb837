import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, weights_sha256


def digest(checkpoint):
    return weights_sha256((name, checkpoint.tensor(name)) for name in checkpoint.names())


def rewrite_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_shapes_and_dtypes_come_from_the_headers(opened):
    checkpoint = opened(dtype=torch.bfloat16)
    assert checkpoint.shape("model.embed_tokens.weight") == (32, 16)
    assert checkpoint.dtype("model.embed_tokens.weight") == torch.bfloat16
    assert checkpoint.config["model_type"] == "llama"
    assert checkpoint.names() == sorted(checkpoint.names())
    assert checkpoint.nbytes == sum(checkpoint.tensor(name).nbytes for name in checkpoint.names())


def test_tensors_are_those_that_safetensors_reads(opened):
    checkpoint = opened()
    expected = load_file(checkpoint.files[0])
    assert set(expected) == set(checkpoint.names())
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards_change_neither_tensors_nor_hash(opened, dtype):
    single, sharded = opened("single", dtype=dtype), opened("sharded", dtype=dtype, shard="4KB")
    assert len(single.files) == 1 and len(sharded.files) > 2
    assert digest(single) == digest(sharded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["1GB", "4KB"])
def test_tensors_that_are_read_are_those_that_are_mapped(make, dtype, shard):
    folder = make(dtype=dtype, shard=shard)
    mapped, read = Checkpoint.open(folder, "ja"), Checkpoint.open(folder, "ja", kept=False)
    for name in mapped.names():
        one, other = mapped.tensor(name), read.tensor(name)
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_tensors_that_are_read_have_memory_of_their_own(make):
    checkpoint = Checkpoint.open(make(), "ja", kept=False)
    first = checkpoint.tensor("model.norm.weight")
    before = first.clone()
    first.fill_(7.0)
    assert torch.equal(checkpoint.tensor("model.norm.weight"), before)


@pytest.mark.parametrize("kept", [True, False])
def test_tensors_of_every_type_and_shape_are_read(make, kept):
    folder = make()
    integers = torch.tensor([[1, -2], [3, 4]])
    types = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.float64, torch.float16, torch.bool]
    tensors = {f"as {dtype}": integers.to(dtype) for dtype in types}
    tensors |= {"number": torch.tensor(3.5), "empty": torch.zeros(0, 4), "one": torch.ones(1, 1, 1)}
    save_file(tensors, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder, "ja", kept=kept)
    for name, expected in tensors.items():
        found = checkpoint.tensor(name)
        assert found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(found, expected)


def test_a_file_that_became_shorter_after_it_was_opened_is_an_error(make):
    folder = make()
    checkpoint = Checkpoint.open(folder, "ja", kept=False)
    last = max(checkpoint.names(), key=lambda name: checkpoint._entries[name][1].start)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate((folder / "model.safetensors").stat().st_size - 4)
    with pytest.raises(OSError, match="ended early"):
        checkpoint.tensor(last)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"^ja: there is no folder .*nowhere$"):
        Checkpoint.open(tmp_path / "nowhere", "ja")


def test_folder_without_config_is_refused(make):
    folder = make()
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"^ja: .*source has no config.json"):
        Checkpoint.open(folder, "ja")


def test_folder_without_weights_is_refused(make):
    folder = make()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"^ja: .*source has neither model.safetensors nor"):
        Checkpoint.open(folder, "ja")


def test_bin_weights_are_pointed_to_convert(make):
    folder = make()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"^ja: .*python -m optmerge convert .*source OUT"):
        Checkpoint.open(folder, "ja")


@pytest.mark.parametrize("kept", [5, 100, -1])
def test_truncated_file_is_named(make, kept):
    file = make() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UsageError, match=r"^ja: .*model.safetensors is (truncated|not a safetensors file)"):
        Checkpoint.open(file.parent, "ja")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"PK\x03\x04" + bytes(100), "is not a safetensors file|truncated"),
        ((4).to_bytes(8, "little") + b"null", "is not a safetensors file"),
        ((17).to_bytes(8, "little") + b'{"a":{"dtype":1}}', "is not a safetensors file"),
        ((60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9]}}'.ljust(60) + bytes(9),
         "is not a safetensors file"),
        ((60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'.ljust(60) + bytes(8),
         "overlap or leave gaps"),
    ],
)  # fmt: skip
def test_other_files_are_refused(make, content, told):
    file = make() / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=told):
        Checkpoint.open(file.parent, "ja")


def test_index_naming_a_missing_shard_is_refused(make):
    folder = make(shard="4KB")
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(UsageError, match=r"^ja: .*index.json names model-00002-of-.*, which is not in"):
        Checkpoint.open(folder, "ja")


def test_index_naming_a_missing_tensor_is_refused(make):
    folder = make(shard="4KB")
    rewrite_index(folder, lambda files: files.update({"model.extra": files["model.norm.weight"]}))
    with pytest.raises(UsageError, match=r"^ja: .*lacks model.extra"):
        Checkpoint.open(folder, "ja")


def test_index_leading_out_of_its_folder_is_refused(make):
    folder = make(shard="4KB")
    rewrite_index(folder, lambda files: files.update({"model.norm.weight": "../other/model.safetensors"}))
    with pytest.raises(UsageError, match="is not an index of weight files"):
        Checkpoint.open(folder, "ja")


def test_tensor_in_two_shards_is_refused(make):
    folder = make(shard="4KB")
    file = next(folder.glob("model-00002-*"))
    save_file({**load_file(file), "model.embed_tokens.weight": torch.ones(2)}, file)
    with pytest.raises(UsageError, match=r"^ja: model.embed_tokens.weight is in two files"):
        Checkpoint.open(folder, "ja")
