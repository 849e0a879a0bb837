import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from optmerge.errors import OptmergeError, UsageError
from optmerge.models import Checkpoint, scan, write_checkpoint
from optmerge.models.shard import read_metadata
from optmerge.models.write import write_weights

IDS = torch.tensor([[1, 5, 9, 3]])


def stream(checkpoint, dtype=None):
    for name in checkpoint.names():
        yield name, checkpoint.tensor(name).to(dtype or checkpoint.dtype(name))


def copy(checkpoint, folder, dtype=torch.float32, tensors=None, **options):
    shapes = {name: checkpoint.shape(name) for name in checkpoint.names()}
    tensors = stream(checkpoint, dtype) if tensors is None else tensors
    return write_checkpoint(folder, tensors, like=checkpoint, shapes=shapes, dtype=dtype, **options)


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 4000], ids=["single", "sharded"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_written_model_reloads_with_the_same_logits(opened, tmp_path, dtype, max_shard_bytes, tied):
    source = opened(dtype=dtype, tie_word_embeddings=tied)
    copy(source, tmp_path / "out", dtype, max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "out" / "model.safetensors").exists() == (max_shard_bytes > 4000)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == dtype
    assert torch.equal(logits(tmp_path / "out"), logits(source.folder))
    assert ("lm_head.weight" in Checkpoint.open(tmp_path / "out", "out").names()) != tied


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 4000])
def test_hash_is_that_of_the_written_files(opened, tmp_path, max_shard_bytes):
    source = opened()
    digest = copy(source, tmp_path / "out", max_shard_bytes=max_shard_bytes)
    cache = tmp_path / "cache"
    assert digest == scan(Checkpoint.open(tmp_path / "out", "out"), cache=cache).weights_sha256
    assert digest == scan(source, cache=cache).weights_sha256


def test_shards_stay_within_the_limit(opened, tmp_path):
    copy(opened(), tmp_path / "out", max_shard_bytes=4000)
    for file in Checkpoint.open(tmp_path / "out", "out").files:
        assert sum(tensor.nbytes for tensor in load_file(file).values()) <= 4000


def test_safetensors_reads_mixed_dtypes_of_odd_sizes(tmp_path):
    tensors = {
        "a": torch.arange(3, dtype=torch.uint8),
        "b": torch.tensor(2.5, dtype=torch.bfloat16),
        "c": torch.randn(2, 3, dtype=torch.float64).T,
        "d": torch.empty(0, 4),
        "e": torch.tensor([True, False, True]),
    }
    names = {torch.uint8: "U8", torch.bfloat16: "BF16", torch.float64: "F64", torch.float32: "F32", torch.bool: "BOOL"}
    layout = {name: (names[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_weights(tmp_path, tensors.items(), layout)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_config_says_what_was_written(make, tmp_path):
    folder = make()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16", "_name_or_path": "/x"}))
    source = Checkpoint.open(folder, "ja")
    shapes = {name: source.shape(name) for name in source.names()}
    rows = dict.fromkeys(("lm_head.weight", "model.embed_tokens.weight"), (30, 16))
    write_checkpoint(
        tmp_path / "out",
        ((name, source.tensor(name)[: shape[0]].bfloat16()) for name, shape in sorted((shapes | rows).items())),
        like=source,
        shapes=shapes | rows,
        dtype=torch.bfloat16,
    )
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = {"vocab_size": 30, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    assert written == config | expected
    assert logits(tmp_path / "out").shape == (1, 4, 30)


def test_tokenizer_comes_along(opened, tmp_path):
    source = opened()
    copy(source, tmp_path / "out")
    text = "word3 word1 word4"
    ids = [AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (source.folder, tmp_path / "out")]
    assert ids[0] == ids[1]


def test_written_model_can_be_saved_again_in_spite_of_sampling_options(make, tmp_path):
    folder = make()
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6, "top_p": 0.9}')
    copy(Checkpoint.open(folder, "ja"), tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")


def test_sampling_options_of_a_sampling_model_are_kept(make, tmp_path):
    folder = make()
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6}')
    copy(Checkpoint.open(folder, "ja"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.6


def test_failure_while_writing_leaves_nothing(opened, tmp_path):
    source = opened()

    def failing():
        yield next(stream(source))
        raise MemoryError

    with pytest.raises(MemoryError):
        copy(source, tmp_path / "out", tensors=failing())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_killed_writer_leaves_no_model_and_the_next_one_tidies_up(opened, tmp_path):
    source = opened()
    pid = os.fork()
    if pid == 0:
        try:
            copy(source, tmp_path / "out", tensors=iter(lambda: os.kill(os.getpid(), signal.SIGKILL), 0))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob("out.partial-*"))) == 1
    copy(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_writer_that_is_still_at_work_is_left_alone(opened, tmp_path):
    source = opened()

    def slow():
        copy(source, tmp_path / "out")
        yield from stream(source)

    copy(source, tmp_path / "out", tensors=slow(), replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_failure_of_a_replacement_keeps_what_was_there(opened, tmp_path):
    source = opened()
    digest = copy(source, tmp_path / "out")
    with pytest.raises(ValueError, match="ended before"):
        copy(source, tmp_path / "out", tensors=[], replace=True)
    assert scan(Checkpoint.open(tmp_path / "out", "out"), cache=tmp_path / "cache").weights_sha256 == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out", "source"]


def test_folder_with_something_in_it_is_replaced_only_if_told(opened, tmp_path):
    source = opened()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out is not empty"):
        copy(source, tmp_path / "out")
    copy(source, tmp_path / "out", replace=True)
    assert not (tmp_path / "out" / "notes.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_empty_folder_may_be_written_to(opened, tmp_path):
    (tmp_path / "out").mkdir()
    copy(opened(), tmp_path / "out")
    assert Checkpoint.open(tmp_path / "out", "out").names()


def test_lack_of_disk_space_is_told_before_writing(opened, tmp_path):
    source = opened()
    with pytest.raises(UsageError, match=r"^writing needs 4503599\.\d GB in .*out, [\d.]+ GB are free$"):
        write_checkpoint(tmp_path / "out", [], like=source, shapes={"a": (2**50,)}, dtype=torch.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_folder_that_cannot_be_made_is_one_line(opened, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptmergeError, match=r"out cannot be made: .*file is a file$"):
        copy(opened(), tmp_path / "file" / "out")


@pytest.mark.parametrize("change", ["order", "shape", "dtype", "more"])
def test_tensors_other_than_announced_are_refused(opened, tmp_path, change):
    source = opened()
    tensors = list(stream(source))
    name, tensor = tensors[0]
    if change == "order":
        tensors[:2] = reversed(tensors[:2])
    elif change == "more":
        tensors.append(("zzz", tensor))
    else:
        tensors[0] = (name, tensor.bfloat16() if change == "dtype" else tensor[1:])
    with pytest.raises(ValueError, match="zzz was not announced" if change == "more" else "^expected lm_head.weight"):
        copy(source, tmp_path / "out", tensors=tensors)


def test_report_counts_bytes(opened, tmp_path):
    source = opened()
    calls = []
    copy(source, tmp_path / "out", report=lambda done, total: calls.append((done, total)))
    assert len(calls) == len(source.names())
    assert calls[-1] == (source.nbytes, source.nbytes)


def test_importing_the_room_loads_no_torch():
    code = "import sys, optmerge.models; print({'torch', 'transformers', 'safetensors'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 4000])
def test_every_file_says_what_it_is_and_names_the_hash_of_the_weights(opened, tmp_path, max_shard_bytes):
    source = opened()
    said = "漢字 " + "x" * 40_000  # a recipe of 400 genes
    plain = copy(source, tmp_path / "plain", max_shard_bytes=max_shard_bytes)
    digest = copy(
        source,
        tmp_path / "out",
        max_shard_bytes=max_shard_bytes,
        metadata=lambda sha256: {"said": said, "of": sha256},
    )
    assert digest == plain == scan(Checkpoint.open(tmp_path / "out", "out"), cache=tmp_path / "cache").weights_sha256
    files = Checkpoint.open(tmp_path / "out", "out").files
    assert (len(files) > 1) == (max_shard_bytes == 4000)
    for file in files:
        with safe_open(file, "pt") as opened_file:
            assert opened_file.metadata() == {"format": "pt", "said": said, "of": digest}
        assert read_metadata(file)["of"] == digest
    assert torch.equal(logits(tmp_path / "out"), logits(source.folder))


def test_metadata_whose_length_depends_on_the_hash_is_refused(opened, tmp_path):
    with pytest.raises(ValueError, match="longer for one hash"):
        copy(opened(), tmp_path / "out", metadata=lambda sha256: {"of": sha256.lstrip("0")})
    assert not (tmp_path / "out").exists()
