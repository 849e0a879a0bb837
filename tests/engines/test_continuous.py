"""Continuous batching, on the CPU by the same path as on a GPU, held against plain batches."""

import _thread
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flow.conftest import make

from optmerge.commands.assembly import Assembly
from optmerge.engines import Generate, LogLikelihood
from optmerge.engines.transformers import Options, TransformersEngine, build
from optmerge.errors import OptmergeError
from optmerge.merge import Workbench


def loaded(folder: Path, continuous: bool | None = True) -> TransformersEngine:
    return build(Options(device="cpu", threads=1, continuous=continuous), folder, "float32")


def joins(engine: TransformersEngine) -> list[int]:
    """The rows of every forward pass of a model; in continuous batching all tokens lie in one."""
    rows: list[int] = []
    engine._model.register_forward_pre_hook(
        lambda module, _, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    return rows


WRITTEN = [Generate("".join("abcdefgh"[(i >> k) % 8] for k in range(1 + i % 9)), 12) for i in range(90)]


def test_responses_are_those_of_plain_batches_before_and_after_another_candidate(
    assembly: Assembly, bench: Workbench, zoo: Path
) -> None:
    lines = [line for file in sorted(zoo.glob("problems/*.jsonl")) for line in file.open(encoding="utf-8")]
    asked = [Generate(json.loads(line)["question"], 24) for line in lines]
    assert len(asked) > 50
    folder = assembly.checkpoints["base"].folder
    engines = [loaded(folder), loaded(folder, False)]
    rows = joins(engines[0])
    said = []
    for alias in ("ja", "math_add", "ja"):
        for engine in engines:
            engine.mount(bench.candidate(assembly.space.ingredients.source(alias)))
        said.append(engines[0].run(asked))
        assert said[-1] == engines[1].run(asked)
    assert said[0] == said[2] != said[1]
    assert set(rows) == {1}


@pytest.mark.parametrize("family", ["mistral", "qwen2", "gemma2", "gemma3_text", "gpt2"])
def test_families_with_windows_and_positions_of_their_own_say_the_same(family: str, tmp_path: Path) -> None:
    make(tmp_path / "model", family, seed=0)
    asked = [Generate("abcdefghijklmnopqrstuvwxyz"[:n], 20) for n in (1, 3, 11, 26)]
    engine = loaded(tmp_path / "model")
    rows = joins(engine)
    found = engine.run(asked)
    assert set(rows) == {1}
    assert found == loaded(tmp_path / "model", False).run(asked)
    assert len({response.text for response in found}) > 1


def test_more_responses_than_there_are_pages_for_at_once(babbler: Path) -> None:
    engine = loaded(babbler)
    rows = joins(engine)
    assert engine.run(WRITTEN) == loaded(babbler, False).run(WRITTEN)
    assert set(rows) == {1}


@pytest.mark.parametrize("change", [{"stop": ("a", "bc")}, {"stop_loops": True}])
def test_what_ends_a_response_early_is_for_plain_batches(babbler: Path, change: dict[str, Any]) -> None:
    asked = [replace(request, **change) if i % 2 else request for i, request in enumerate(WRITTEN)]
    engine = loaded(babbler)
    rows = joins(engine)
    assert engine.run([*asked, LogLikelihood("abc", ("d",))])[:-1] == loaded(babbler, False).run(asked)
    assert 1 in rows and len(WRITTEN) // 2 in rows


def test_penalties_of_a_generation_config_are_for_plain_batches(babbler: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(babbler, tmp_path / "penalty"))
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "repetition_penalty": 1.8})
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    found = loaded(folder).run(WRITTEN)
    assert found == loaded(folder, False).run(WRITTEN) != loaded(babbler, False).run(WRITTEN)


def test_paths_are_for_plain_batches(assembly: Assembly, bench: Workbench, babbler: Path) -> None:
    from optmerge.flow import PathBench
    from optmerge.recipe import CheckpointNode, Hop, PathNode, Recipe

    nodes = {
        alias: node for alias, node in assembly.space.ingredients.sources.items() if isinstance(node, CheckpointNode)
    }
    hops = tuple(Hop("ja", layer) for layer in (0, 1, 1))
    candidate = PathBench(bench).candidate(Recipe(PathNode(nodes, hops, "ja", "ja", "ja", "float32")))
    folder = assembly.checkpoints["base"].folder
    engines = [loaded(folder), loaded(folder, False)]
    for engine in engines:
        engine.mount(candidate)
    assert engines[0].run(WRITTEN[:5]) == engines[1].run(WRITTEN[:5])


def test_logits_that_are_no_numbers_fail_the_candidate(babbler: Path) -> None:
    engine = loaded(babbler)
    with torch.no_grad():
        engine._model.lm_head.weight[3, 3] = float("nan")
    with pytest.raises(OptmergeError, match=r"logits are not numbers \(NaN\)"):
        engine.run(WRITTEN[:3])


def test_where_the_library_fails_plain_batches_take_its_place(
    babbler: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = loaded(babbler)
    capfd.readouterr()

    def exhaust(module: object, arguments: tuple[()], given: dict[str, Any]) -> None:
        if "cache" in given:  # only continuous batching hands one over
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine._model.register_forward_pre_hook(exhaust, with_kwargs=True)
    assert engine.run(WRITTEN) == loaded(babbler, False).run(WRITTEN)
    assert "plain batches: CUDA out of memory" in caplog.text
    assert "Traceback" not in "".join(capfd.readouterr())


def test_ctrl_c_leaves_nothing_running(babbler: Path) -> None:
    engine = loaded(babbler)
    passes: list[int] = []

    def interrupt(*_: object) -> None:
        passes.append(1)
        if len(passes) == 3:
            _thread.interrupt_main()

    hook = engine._model.register_forward_pre_hook(interrupt)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        engine.run([replace(request, max_new_tokens=4000) for request in WRITTEN])
    assert set(threading.enumerate()) <= before
    assert len(passes) < 1000
    hook.remove()
    assert engine.run(WRITTEN) == loaded(babbler, False).run(WRITTEN)


def test_on_the_cpu_batches_are_plain_unless_it_is_said(babbler: Path) -> None:
    engine = loaded(babbler, None)
    rows = joins(engine)
    engine.run(WRITTEN)
    assert rows[0] == len(WRITTEN)
