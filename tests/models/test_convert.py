import json
import pickle

import pytest
import torch
from safetensors.torch import load_file

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, convert, scan

EMBEDDING = "model.embed_tokens.weight"


class Malicious:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def pickled(make):
    """A checkpoint in pickled form, with the tensors it holds."""

    def pickled(files=1, legacy=False, change=lambda tensors: None, **options):
        folder = make(**options)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        change(tensors)
        names = [f"pytorch_model-{n + 1:05}-of-{files:05}.bin" for n in range(files)]
        names = ["pytorch_model.bin"] if files == 1 else names
        weight_map = {name: names[i % files] for i, name in enumerate(tensors)}
        for file in names:
            part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
            torch.save(part, folder / file, _use_new_zipfile_serialization=not legacy)
        if files > 1:
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder, tensors

    return pickled


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_converted_tensors_are_the_same(pickled, tmp_path, files, legacy, dtype):
    folder, tensors = pickled(files, legacy, dtype=dtype)
    convert(str(folder), tmp_path / "out")
    out = Checkpoint.open(tmp_path / "out", "out")
    assert out.names() == sorted(tensors)
    assert all(torch.equal(out.tensor(name), tensor) for name, tensor in tensors.items())
    assert out.config == json.loads((folder / "config.json").read_text())
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_hash_is_that_of_the_original(pickled, opened, tmp_path):
    convert(str(pickled(2)[0]), tmp_path / "out")
    expected = scan(opened("original"), cache=tmp_path / "cache")
    assert scan(Checkpoint.open(tmp_path / "out", "out"), cache=tmp_path / "cache") == expected


def test_pickle_that_runs_code_is_refused_and_not_run(pickled, tmp_path):
    folder, tensors = pickled()
    for protocol in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        protocol({**tensors, "evil": Malicious(tmp_path / "ran")}, folder / "pytorch_model.bin")
        with pytest.raises(UsageError, match=r"pytorch_model.bin is damaged or holds more than tensors") as caught:
            convert(str(folder), tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [3, {"weight": torch.ones(1)}, None])
def test_pickle_of_other_things_is_refused(pickled, tmp_path, value):
    folder, _ = pickled(change=lambda tensors: tensors.update({"extra": value}))
    with pytest.raises(UsageError, match=r"holds 'extra', which is not a tensor"):
        convert(str(folder), tmp_path / "out")


def test_truncated_pickle_is_refused(pickled, tmp_path):
    folder, _ = pickled()
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UsageError, match=r"pytorch_model.bin is damaged"):
        convert(str(folder), tmp_path / "out")


@pytest.mark.parametrize("tied", [True, False])
def test_shared_head_is_written_as_the_config_says(pickled, tmp_path, tied):
    def share(tensors):
        tensors["lm_head.weight"] = tensors[EMBEDDING]

    folder, _ = pickled(change=share, tie_word_embeddings=tied)
    convert(str(folder), tmp_path / "out")
    out = Checkpoint.open(tmp_path / "out", "out")
    assert ("lm_head.weight" in out.names()) != tied


@pytest.mark.parametrize(("model_type", "tied"), [("llama", False), ("gemma", True)])
def test_config_that_does_not_say_is_tied_as_its_architecture_is(pickled, tmp_path, model_type, tied):
    folder, _ = pickled(change=lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING]}))
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    convert(str(folder), tmp_path / "out")
    assert ("lm_head.weight" in Checkpoint.open(tmp_path / "out", "out").names()) != tied


def test_safetensors_checkpoint_is_not_converted(make, tmp_path):
    with pytest.raises(UsageError, match="nothing to convert"):
        convert(str(make()), tmp_path / "out")


def test_folder_that_is_not_empty_is_not_overwritten(pickled, tmp_path):
    folder, _ = pickled()
    with pytest.raises(UsageError, match="is not empty"):
        convert(str(folder), tmp_path)
