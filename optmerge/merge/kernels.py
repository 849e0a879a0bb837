"""Sweeps compiled into one kernel each, kept on disk so that only the first run ever waits for the compiler.

On the CPU a kernel is compiled ahead of time (AOTInductor) into a package that loads within milliseconds, takes
microseconds to call and needs no compiler afterwards. Elsewhere `torch.compile` makes it, whose own cache keeps it.
Neither fuses a multiplication with an addition nor reorders sums, so the bits are those of plain PyTorch.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optmerge.models import default_cache

if TYPE_CHECKING:
    from optmerge.merge.sweep import Entries

Kernel = Callable[[Sequence[Tensor], Tensor, Tensor], object]
"""Called with the tensors (the output first, then the base if there is one), the numbers and the integers."""

Layout = tuple[tuple[str, int], ...]

_PROBE = 4096  # entries of a first call

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernels:
    """The compiled kernels of a process.

    Attributes:
        say: Told in a line when the compiler is at work, or cannot be used.
        compile_missing: Whether to compile what is not on disk yet; otherwise plain PyTorch does that work.
        folder: Where kernels are kept; by default `optmerge/kernels` in the user's cache.
    """

    say: Callable[[str], None] = log.info
    compile_missing: bool = True
    folder: Path = field(default_factory=lambda: default_cache() / "kernels")
    _loaded: dict[Any, Kernel | None] = field(default_factory=dict, repr=False)

    def get(
        self,
        entries: "Entries",
        flat: Sequence[Tensor],
        has_base: bool,
        floats: Tensor,
        float_layout: Layout,
        words: Tensor,
        word_layout: Layout,
    ) -> Kernel | None:
        """The kernel of a function for tensors of these types, or None where there is to be none."""
        types = tuple(tensor.dtype for tensor in flat)
        function, settings = _named(entries)
        key = (function, settings, types, flat[0].device, has_base, float_layout, word_layout)
        if key not in self._loaded:
            body = _Body(entries, has_base, float_layout, word_layout)
            self._loaded[key] = self._make(function, str(key), body, flat, floats, words)
        return self._loaded[key]

    def _make(
        self, function: str, key: str, body: "_Body", flat: Sequence[Tensor], floats: Tensor, words: Tensor
    ) -> Kernel | None:
        try:
            if flat[0].device.type != "cpu":
                return self._just_in_time(function, body, flat, floats, words)
            return self._ahead_of_time(function, key, body, flat, floats, words)
        except Exception as error:  # whatever a compiler can run into, plain PyTorch does the same work
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self.say(f"merging without a compiled kernel for {function}, which is slower: {first[:160]}")
            return None

    def _just_in_time(
        self, function: str, body: "_Body", flat: Sequence[Tensor], floats: Tensor, words: Tensor
    ) -> Kernel | None:
        if not self.compile_missing:
            return None
        self.say(f"compiling the merge kernel {function} (up to a minute, once)")
        kernel = _jit(body)
        # The compiler is called by the first call, which is to fail here if it must.
        kernel([tensor[:_PROBE].clone() for tensor in flat], floats, words)
        return kernel

    def _ahead_of_time(
        self, function: str, key: str, body: "_Body", flat: Sequence[Tensor], floats: Tensor, words: Tensor
    ) -> Kernel | None:
        from filelock import FileLock

        identity = json.dumps([key, torch.__version__, torch.backends.cpu.get_cpu_capability(), _processor(), _code()])
        package = self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.pt2"
        if package.exists():
            try:
                return _load(package)
            except RuntimeError:  # damaged: it is compiled anew
                package.unlink(missing_ok=True)
        if not self.compile_missing:
            return None
        if not cpp_compiler():
            raise OSError("there is no C++ compiler (g++ or clang++) here")
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{package}.lock"):  # workers of one machine compile once
            if not package.exists():
                self.say(f"compiling the merge kernel {function} (up to a minute, once; kept in {self.folder})")
                _compile(body, flat, floats, words, package)
        return _load(package)


class _Body(torch.nn.Module):
    """What is compiled: stored tensors in, merged tensor out."""

    def __init__(self, entries: "Entries", has_base: bool, float_layout: Layout, word_layout: Layout) -> None:
        super().__init__()
        self.entries = entries
        self.has_base = has_base
        self.float_layout = float_layout
        self.word_layout = word_layout

    def forward(self, out: Tensor, rest: list[Tensor], floats: Tensor, words: Tensor) -> tuple[()]:
        from optmerge.merge.sweep import piece_of, unpacked

        position = torch.arange(out.numel(), dtype=torch.int32, device=out.device)
        numbers, integers = unpacked(floats, self.float_layout), unpacked(words, self.word_layout)
        out.copy_(self.entries(piece_of(rest, self.has_base, numbers, integers, position)))
        return ()


def _compile(body: _Body, flat: Sequence[Tensor], floats: Tensor, words: Tensor, package: Path) -> None:
    import torch._inductor
    import torch._inductor.config

    out, *rest = (torch.empty(4096, dtype=tensor.dtype) for tensor in flat)
    count = torch.export.Dim("count", min=2, max=2**31)
    shapes = ({0: count}, [{0: count}] * len(rest), None, None)
    settings: dict[str, object] = {"cpp.dynamic_threads": True, "cpp.enable_floating_point_contract_flag": "off"}
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory(dir=package.parent) as folder:
        warnings.simplefilter("ignore")
        exported = torch.export.export(body, (out, rest, floats, words), dynamic_shapes=shapes)
        made = torch._inductor.aoti_compile_and_package(
            exported, package_path=f"{folder}/kernel.pt2", inductor_configs=settings
        )
        os.replace(made, package)


def _load(package: Path) -> Kernel:
    # What `torch._inductor.aoti_load_package` uses itself; that one imports the whole compiler first, for seconds.
    loader = torch._C._aoti.AOTIModelPackageLoader(str(package), "model", False, 1, -1)

    def kernel(flat: Sequence[Tensor], floats: Tensor, words: Tensor) -> None:
        loader.boxed_run([*flat, floats, words])

    return kernel


def _jit(body: _Body) -> Kernel:
    """A kernel by `torch.compile`, with a compiled function of its own: those that share one evict each other."""
    import torch._inductor.config as config

    forward = _Body.forward
    assert isinstance(forward, FunctionType)
    own = FunctionType(forward.__code__.replace(), forward.__globals__)
    # No multiplication fused with an addition, and divisions rounded as everywhere.
    options: dict[str, Any] = {"emulate_precision_casts": True, "eager_numerics.division_rounding": True}
    known = {name: value for name, value in options.items() if name in config.get_config_copy()}
    compiled = torch.compile(partial(own, body), dynamic=True, fullgraph=True, options=known)
    return lambda flat, floats, words: compiled(flat[0], list(flat[1:]), floats, words)


def _named(entries: "Entries") -> tuple[str, tuple[tuple[str, Any], ...]]:
    """A function's name, and the settings that a `partial` gives it."""
    settings: dict[str, Any] = {}
    while isinstance(entries, partial):
        settings = {**entries.keywords, **settings}
        entries = entries.func
    return f"{entries.__module__}.{entries.__qualname__}", tuple(sorted(settings.items()))


@cache
def _code() -> str:
    """Hash of the code that kernels are made from."""
    hashed = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


@cache
def _processor() -> str:
    """What code compiled for this processor may use; a cache can be shared by machines of several kinds."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        import platform

        return platform.processor()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")


def cpp_compiler() -> str | None:
    """The C++ compiler that PyTorch would call, if there is one."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
