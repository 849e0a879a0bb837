"""Compiled sweeps give the bits of plain PyTorch, compile once, and are done without where there is no compiler."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optmerge.merge import Kernels, Sweeper, kernels, merge_tensors

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling takes g++")

# Each is compiled once here, for seconds, so they are few: a plain sum, a trim by magnitude and a random drop.
COMPILED: dict[str, dict[str, Any]] = {
    "linear": {"weight": [0.7, 0.4, -0.2], "normalize": True},
    "ties": {"weight": [0.7, 0.4, 0.2], "density": [0.3, 0.5, 0.9], "normalize": True},
    "dare_ties": {"weight": [0.7, 0.4, -0.2], "density": [0.3, 0.5, 0.9]},
}
TYPES = [torch.float32, torch.bfloat16, torch.float16]  # of the sources of `linear`, which may differ


@dataclass(frozen=True)
class Compiler:
    """Kernels in a folder, and what they said."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def sweeper(self, compile_missing: bool = True) -> Sweeper:
        """A sweeper that begins with what lies in the folder."""
        return Sweeper(Kernels(self.said.append, compile_missing, self.folder))


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def compiled(compiler: Compiler) -> Sweeper:
    return compiler.sweeper()


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many threads, and what there were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def stored(size: int, seed: int, types: Sequence[torch.dtype]) -> tuple[list[Tensor], Tensor]:
    """Three sources of these types near a base that has zeros of either sign, where some sources have them too."""
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=random)
    base[::5] = -0.0
    base[1::7] = 0.0
    sources = [base + 0.1 * torch.randn(size, generator=random) for _ in range(3)]
    for source in sources:
        unchanged = torch.rand(size, generator=random) < 0.2
        source[unchanged] = base[unchanged]
    return [misplaced(source.to(dtype)) for source, dtype in zip(sources, types, strict=True)], misplaced(
        base.bfloat16()
    )


def misplaced(tensor: Tensor) -> Tensor:
    """The same one entry further, where no wide load would want it; in mapped files tensors begin anywhere."""
    return torch.cat([tensor[:1], tensor])[1:]


def merge(method: str, size: int, sweeper: Sweeper | None, seed: int = 0, **changed: Any) -> Tensor:
    types = TYPES if method == "linear" else [torch.bfloat16] * 3
    sources, base = stored(size, seed, types)
    parameters = {**COMPILED[method], **changed}
    out = misplaced(torch.empty(size, dtype=torch.bfloat16))
    return merge_tensors(method, sources, base=base, seed=seed, name="w", out=out, sweeper=sweeper, **parameters)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


@needs_compiler
@pytest.mark.parametrize("size", [64, 65, 4097, 70001])
@pytest.mark.parametrize("method", COMPILED)
def test_compiled_merges_have_the_bits_of_plain_ones(
    method: str, size: int, threads: int, compiled: Sweeper, compiler: Compiler
) -> None:
    assert torch.equal(bits(merge(method, size, compiled)), bits(merge(method, size, None)))
    assert not [line for line in compiler.said if "without" in line]


@needs_compiler
def test_other_genomes_tensors_and_processes_reuse_a_kernel(compiled: Sweeper, compiler: Compiler) -> None:
    for method in COMPILED:
        merge(method, 100, compiled)
    before = list(compiler.said)
    again = compiler.sweeper()  # as another process would find the folder
    for sweeper in (compiled, again):
        for method in COMPILED:
            changed = {"weight": [0.1, 0.9, 0.5]} | ({} if method == "linear" else {"density": [0.6, 0.2, 0.1]})
            for size in (100, 3001):
                found = merge(method, size, sweeper, seed=1, **changed)
                assert torch.equal(bits(found), bits(merge(method, size, None, seed=1, **changed)))
    assert compiler.said == before
    assert len(before) == len(COMPILED) and all(line.startswith("compiling the merge kernel") for line in before)
    assert len(list(compiler.folder.glob("*.pt2"))) == len(COMPILED)


@needs_compiler
def test_just_in_time_kernels_have_the_bits_of_plain_merges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # What a GPU's kernels are made by, here for the CPU.
    def just_in_time(self: Kernels, function: str, key: str, body: Any, *arguments: Any) -> kernels.Kernel:
        return kernels._jit(body)

    monkeypatch.setattr(Kernels, "_ahead_of_time", just_in_time)
    compiler = Compiler(tmp_path)
    sweeper = compiler.sweeper()
    for size in (65, 70001):
        found = merge("dare_ties", size, sweeper, normalize=True, weight=[0.7, 0.4, 0.2])
        plain = merge("dare_ties", size, None, normalize=True, weight=[0.7, 0.4, 0.2])
        assert torch.equal(bits(found), bits(plain))
    assert compiler.said == []


@pytest.mark.parametrize("method", COMPILED)
def test_nothing_is_compiled_where_that_is_not_wanted(method: str, tmp_path: Path) -> None:
    compiler = Compiler(tmp_path)
    assert torch.equal(bits(merge(method, 4097, compiler.sweeper(False))), bits(merge(method, 4097, None)))
    assert compiler.said == [] and list(tmp_path.iterdir()) == []


def test_tensors_too_small_to_be_worth_it_are_not_compiled(tmp_path: Path) -> None:
    compiler = Compiler(tmp_path)
    merge("linear", 63, compiler.sweeper())
    assert compiler.said == [] and list(tmp_path.iterdir()) == []


def test_without_a_compiler_one_line_says_so_and_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compiler = Compiler(tmp_path / "kernels")
    sweeper = compiler.sweeper()
    for size in (4097, 65):
        assert torch.equal(bits(merge("ties", size, sweeper)), bits(merge("ties", size, None)))
    (line,) = compiler.said
    assert "without a compiled kernel for optmerge.merge.methods.ties" in line
    assert "there is no C++ compiler" in line


def test_a_damaged_kernel_costs_a_line_and_not_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: object) -> None:
        package = arguments[-1]
        assert isinstance(package, Path)
        package.write_bytes(b"no package")

    monkeypatch.setattr(kernels, "_compile", damaged)
    monkeypatch.setattr(kernels, "cpp_compiler", lambda: "g++")
    compiler = Compiler(tmp_path)
    assert torch.equal(bits(merge("ties", 4097, compiler.sweeper())), bits(merge("ties", 4097, None)))
    assert [line.split(" kernel")[0] for line in compiler.said] == ["compiling the merge", "merging without a compiled"]
