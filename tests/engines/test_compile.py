"""Compiled code answers as the library's own does, whatever weights it is given later."""

from pathlib import Path

import pytest

from optmerge.commands.assembly import Assembly
from optmerge.engines import Generate
from optmerge.engines.transformers import Options, build, pick_device
from optmerge.errors import UsageError
from optmerge.flow import PathBench
from optmerge.merge import Workbench
from optmerge.merge.kernels import cpp_compiler
from optmerge.recipe import Hop, PathNode, Recipe


@pytest.mark.skipif(cpp_compiler() is None, reason="there is no C++ compiler")
def test_compiled_code_answers_alike_before_and_after_another_candidate(
    assembly: Assembly, bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch._dynamo.utils

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    task = assembly.plugins.task
    prompts = [str(getattr(task.request(problem), "prompt", "")) for problem in task.problems("search")[:9]]
    folder = assembly.checkpoints["base"].folder
    engines = [
        build(Options(device="cpu", threads=1, compile=compiled), folder, "float32") for compiled in (True, False)
    ]
    said = []
    torch._dynamo.utils.counters.clear()
    for alias, number, length in (("ja", 9, 20), ("math_add", 9, 20), ("ja", 5, 16)):
        for engine in engines:
            engine.mount(bench.candidate(assembly.space.ingredients.source(alias)))
        said.append(engines[0].run([Generate(prompt, length) for prompt in prompts[:number]]))
        assert said[-1] == engines[1].run([Generate(prompt, length) for prompt in prompts[:number]])
    assert said[0] != said[1]
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "code was compiled"
    passes = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert passes < 4, "and not for every batch"


def test_paths_are_not_compiled(assembly: Assembly, bench: Workbench) -> None:
    hops = tuple(Hop("ja", layer) for layer in (0, 1, 1))
    node = PathNode(assembly.space.ingredients.sources, hops, "ja", "ja", "ja", "float32")
    engine = build(Options(device="cpu", threads=1, compile=True), assembly.checkpoints["base"].folder, "float32")
    engine.mount(PathBench(bench).candidate(Recipe(node)))
    assert engine._compiling() == {}


def test_continuous_batches_are_not_compiled() -> None:
    with pytest.raises(UsageError, match=r"^engine\.compile=true: continuous batches are not compiled"):
        pick_device(Options(device="cpu", compile=True, continuous=True))


def test_without_a_compiler_a_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"^engine\.compile=true: on the CPU it needs a C\+\+ compiler"):
        pick_device(Options(device="cpu", compile=True))
