"""optmerge's merges against mergekit's, side by side: in place, from disk to disk, and how near to a plain copy.

    python benchmarks/merge.py [--parameters 494e6] [--mergekit ENVIRONMENT] [--methods ties dare_ties] [--quick]

Makes a base and three fine-tunes of about half a billion parameters, and for mergekit an environment of its own if none
is given; both stay in a work folder. About an hour on two cores, on Linux. Writes the results and a picture to
benchmarks/merge/, or to the work folder if not all of it was measured.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge import Kernels, Workbench, get_method, merge_tensors
from optmerge.models import Checkpoint, check_fit, default_cache, open_checkpoints, scan
from optmerge.models.layers import layer_of
from optmerge.recipe import CheckpointNode, Group, MergeNode, Recipe, node_sha256
from optmerge.registered import names as registered

HERE = Path(__file__).parent
OUT = HERE / "merge"
SOURCES = ("one", "two", "three")
DISK = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")
PARTS = ("in_place", "disk")
RANDOM = ("dare", "della")  # methods whose masks are drawn at random: not the same entries here and there
METHODS = registered("optmerge.merge.methods")
CORES = len(os.sched_getaffinity(0))
NOISE = 5e-4  # of a fine-tune, where weights are spread by 0.02
LIMIT = 20.0  # seconds; what takes us longer is repeated less, and mergekit estimated from one tensor of each shape
COPIED = 2**28  # bytes
RTOL, ATOL, AGREEING = 1e-5, 1e-6, 0.999

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Case:
    """A method with its options, and how often it is measured.

    Attributes:
        name: What the tables call it.
        method: The method.
        options: Ours.
        theirs: The options that make mergekit do the same.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """The fine-tunes that it merges."""
        return SOURCES[: get_method(self.method).sources[1] or len(SOURCES)]

    @property
    def has_base(self) -> bool:
        """Whether it takes the base too: wherever a method can."""
        return get_method(self.method).base != "ignored"

    @property
    def models(self) -> tuple[str, ...]:
        """All that it reads, the base first."""
        return ("base", *self.sources) if self.has_base else self.sources

    @property
    def bytes(self) -> int:
        """How many bytes are read and written for a parameter."""
        return 2 * (len(self.models) + 1)

    def draw(self, number: int) -> dict[str, Any]:
        """One genome: a list for a parameter that each source has, else a number."""
        drawn, found = random.Random(f"{self.name} {number}"), dict[str, Any]()
        for name, parameter in get_method(self.method).parameters.items():
            low, high = parameter.search or (parameter.default, parameter.default)
            values = [low + (high - low) * drawn.uniform(0.3, 0.7) for _ in self.sources]
            found[name] = values[0] if parameter.shared else values
        return found

    def their_parameters(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The same for mergekit, with its options."""
        return {name.rstrip("_"): value for name, value in drawn.items()} | dict(self.theirs)


def cases(methods: Sequence[str]) -> list[Case]:
    """Every method with its defaults, and DARE also with the options that make both do the very same."""
    found = []
    for method in methods:
        found.append(Case(method, method))
        if method.startswith("dare"):
            found.append(Case(f"{method} l1_norm", method, {"rescale": "l1_norm"}, {"rescale": True}))
            found.append(Case(f"{method} none", method, {"rescale": "none"}, {"rescale": False}))
    return found


# Models


def shapes(heads: int) -> dict[str, tuple[int, ...]]:
    """The tensors of Qwen2-0.5B (14 heads), or of a smaller or larger model of like proportions."""
    hidden, inner, kv = 64 * heads, 4864 * heads // 14, 64 * max(1, heads // 7)
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (151936 * heads // 14, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(round(24 * heads / 14)):
        of_layer: dict[str, tuple[int, ...]] = {
            f"{place}_layernorm.weight": (hidden,) for place in ("input", "post_attention")
        }
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            of_layer |= {f"self_attn.{name}_proj.weight": (rows, hidden), f"self_attn.{name}_proj.bias": (rows,)}
        of_layer |= {"self_attn.o_proj.weight": (hidden, hidden), "mlp.down_proj.weight": (hidden, inner)}
        of_layer |= {"mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden)}
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    return dict(sorted(found.items()))


def count(heads: int) -> int:
    """How many parameters a model has."""
    return sum(map(math.prod, shapes(heads).values()))


def make_models(work: Path, parameters: float) -> Path:
    """A folder with a base and three fine-tunes of about so many parameters, made if it is not there."""
    heads = min(range(1, 64), key=lambda heads: abs(count(heads) - parameters))
    folder = work / f"models-{heads}"
    if not folder.exists():
        console.print(f"making models of {count(heads) / 1e6:.0f}M parameters")
        making = work / f"models-{heads}.{os.getpid()}"
        base = {name: _base(name, shape) for name, shape in shapes(heads).items()}
        for seed, alias in enumerate(("base", *SOURCES)):
            chance = torch.Generator().manual_seed(seed)
            tuned = {name: (t + _noise(name, t, chance) * (seed > 0)).bfloat16() for name, t in base.items()}
            _write(making / alias, tuned, heads)
        making.rename(folder)
    return folder


def _base(name: str, shape: Sequence[int]) -> Tensor:
    drawn = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(sum(name.encode())))
    return (drawn + 1.0 if "norm" in name else drawn).bfloat16()


def _noise(name: str, tensor: Tensor, chance: torch.Generator) -> Tensor:
    # Norms, near 1, need more of it to change at all in bfloat16; where nothing does, some of mergekit's methods fail.
    return torch.randn(tensor.shape, generator=chance) * (20 * NOISE if "norm" in name else NOISE)


def _write(folder: Path, tensors: Mapping[str, Tensor], heads: int) -> None:
    folder.mkdir(parents=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
        "hidden_size": 64 * heads, "intermediate_size": 4864 * heads // 14, "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 7), "num_hidden_layers": round(24 * heads / 14),
        "vocab_size": 151936 * heads // 14, "tie_word_embeddings": True,
    }  # fmt: skip
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"}}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    for name, value in (("config", config), ("tokenizer", tokenizer), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})


# In place


class Ours:
    """The models opened and in memory, and a live model to write into.

    Args:
        models: As `make_models` gives it.
        kernels: Where compiled kernels are kept.
    """

    def __init__(self, models: Path, kernels: Path) -> None:
        self.opened = open_checkpoints({alias: models / alias for alias in ("base", *SOURCES)}, {})
        self.fit = check_fit(self.opened, base="base", tokenizer="base")
        self.nodes = {alias: _leaf(checkpoint) for alias, checkpoint in self.opened.items()}
        for checkpoint in self.opened.values():
            for name in self.fit.names:
                torch.aminmax(self.fit.tensor(checkpoint, name))
        self.live = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in self.fit.shapes.items()}
        self.parameters = sum(map(math.prod, self.fit.shapes.values()))
        self.smallest = min(self.fit.names, key=lambda name: (math.prod(self.fit.shapes[name]), name))
        self.kernels_folder = kernels

    def recipe(self, case: Case, number: int) -> Recipe:
        """What a search with a group for each layer asks for, with a drawn genome."""
        method, drawn = get_method(case.method), case.draw(number)
        layers = sorted({layer for name in self.fit.names if (layer := layer_of(name)) is not None})
        patterns = {f"layer{layer}": (f"model.layers.{layer}.*",) for layer in layers}
        patterns["rest"] = tuple(name for name in self.fit.names if layer_of(name) is None)
        own = {alias: {p: drawn[p][i] for p in method.per_source()} for i, alias in enumerate(case.sources)}
        shared = {p: drawn[p] for p in method.shared()}
        root = MergeNode(
            method=case.method,
            sources={alias: self.nodes[alias] for alias in case.models},
            base="base" if case.has_base else None,
            tokenizer=case.models[0],
            dtype="bfloat16",
            groups={name: Group(tensors, own, shared) for name, tensors in patterns.items()},
            options=case.options,
        )
        return Recipe(root)

    def compile(self, case: Case, say: Callable[[str], None]) -> tuple[Workbench, float]:
        """A bench with the kernels of a case, and the seconds that compiling them took."""
        bench = self._bench(Kernels(say, folder=self.kernels_folder))
        start = time.perf_counter()  # one small tensor needs all the kernels that a model does
        bench.tensor(self.recipe(case, 0).root, self.smallest, out=self.live[self.smallest])
        return bench, time.perf_counter() - start

    def measure(self, case: Case, repetitions: int) -> dict[str, Any]:
        """Seconds a candidate, compiled and plain, on one thread and on all, and what is done only once."""
        torch.set_num_threads(1)
        said: list[str] = []
        bench, compiling = self.compile(case, said.append)
        once = {"compile_seconds": compiling}
        first, *rest = self._times(case, bench, repetitions + 1)
        found = {"compiled": statistics.median(rest), "copy": copy_seconds(case.bytes * self.parameters)}
        once["tables_seconds"] = max(0.0, first - found["compiled"])
        torch.set_num_threads(CORES)
        found["compiled_threads"] = statistics.median(self._times(case, bench, repetitions))
        found["copy_threads"] = copy_seconds(case.bytes * self.parameters)
        torch.set_num_threads(1)
        del bench
        _, *rest = self._times(case, self._bench(None), repetitions + 1)
        found["plain"] = statistics.median(rest)
        return {**once, "seconds": found, "without_kernel": any("without" in line for line in said)}

    def _bench(self, kernels: Kernels | None) -> Workbench:
        opened = {node_sha256(self.nodes[alias]): checkpoint for alias, checkpoint in self.opened.items()}
        return Workbench(opened, self.fit, torch.device("cpu"), resident=True, kernels=kernels, keep_facts=True)

    def _times(self, case: Case, bench: Workbench, repetitions: int) -> list[float]:
        found = []
        for number in range(repetitions):
            recipe = self.recipe(case, number)
            start = time.perf_counter()
            bench.candidate(recipe).write_into(self.live)
            found.append(time.perf_counter() - start)
            if len(found) >= 2 and sum(found) > LIMIT:
                break  # long runs vary less
        return found


def _leaf(checkpoint: Checkpoint) -> CheckpointNode:
    return CheckpointNode(str(checkpoint.folder), scan(checkpoint).weights_sha256)


def copy_seconds(moved: int) -> float:
    """How long the machine takes to move so many bytes: half of them read, half written."""
    source, target = torch.ones(COPIED // 2, dtype=torch.bfloat16), torch.zeros(COPIED // 2, dtype=torch.bfloat16)
    found = []
    for _ in range(6):
        start = time.perf_counter()
        target.copy_(source)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:]) * moved / (2 * COPIED)


class Theirs:
    """mergekit in its own process, on one thread.

    Args:
        environment: Folder of a virtual environment with mergekit.
        models: As `make_models` gives it.
    """

    def __init__(self, environment: Path, models: Path) -> None:
        folders = {alias: str(models / alias) for alias in ("base", *SOURCES)}
        command = [str(environment / "bin" / "python"), str(HERE / "merge_mergekit.py"), json.dumps(folders)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, case: Case, repetitions: int) -> dict[str, Any]:
        """Seconds for a whole model."""
        parameters = [case.their_parameters(case.draw(number)) for number in range(repetitions + 1)]
        return self._ask("measure", case, parameters=parameters, limit=LIMIT)

    def agreement(self, case: Case, tensors: Path) -> float | None:
        """Share of entries that are the same here and there, on a few tensors; None for random masks."""
        if case.method.startswith(RANDOM):
            return None
        out, drawn = tensors.with_name("merged.safetensors"), case.draw(0)
        answer = self._ask("check", case, parameters=case.their_parameters(drawn), tensors=str(tensors), out=str(out))
        # What they do not have, such as the weights of a Karcher mean, has its default here.
        drawn = {name: value for name, value in drawn.items() if name.rstrip("_") in answer["parameters"]}
        few, equal, total = load_file(tensors), 0, 0
        for name, theirs in load_file(out).items():
            ours = merge_tensors(
                case.method,
                [few[f"{alias}/{name}"] for alias in case.sources],
                base=few[f"base/{name}"] if case.has_base else None,
                **drawn,
                **case.options,
            )
            equal += int(torch.isclose(ours, theirs, rtol=RTOL, atol=ATOL).sum())
            total += theirs.numel()
        return equal / total

    def _ask(self, what: str, case: Case, **more: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        request = {"what": what, "method": case.method, "models": case.models, "base": case.has_base, **more}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = dict(json.loads(self._process.stdout.readline() or sys.exit("mergekit's process ended")))
        if "error" in answer:
            raise OptmergeError(f"mergekit: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def write_check(ours: Ours, path: Path) -> None:
    """One small tensor of each shape, in float32 and with noise: no two magnitudes are equal, no choice is free."""
    by_shape = {ours.fit.shapes[name]: name for name in ours.fit.names if math.prod(ours.fit.shapes[name]) <= 2**19}
    chance, found = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for name in by_shape.values():
        for alias, checkpoint in ours.opened.items():
            stored = checkpoint.tensor(name).float()
            found[f"{alias}/{name}"] = stored + _noise(name, stored, chance) * (alias != "base")
    save_file(found, path)


# From disk to disk


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command, and find its wall time and the memory of its processes at their largest.

    Returns:
        `seconds`; `bytes`, with what is mapped from files; `own_bytes`, without.
    """
    os.sync()  # what the last command left to write is not this one's to wait for
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, cwd=HERE.parent, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        with _largest_memory(process) as largest:
            status = process.wait()
        taken = time.perf_counter() - start
        output.seek(0)
        if status:
            sys.exit(f"{command[0]} failed:\n{output.read()[-2000:]}")
    return {"seconds": taken, **largest}


@contextmanager
def _largest_memory(process: psutil.Popen) -> Iterator[dict[str, float]]:
    largest, done = {"bytes": 0.0, "own_bytes": 0.0}, threading.Event()

    def poll() -> None:
        while not done.wait(0.01):
            with suppress(psutil.Error, OSError):
                now = [_memory(each.pid) for each in (process, *process.children(recursive=True))]
                for key, values in zip(largest, zip(*now, strict=True), strict=True):
                    largest[key] = max(largest[key], sum(values))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield largest
    finally:
        done.set()
        thread.join()


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process that are in memory, and those that are its own and cannot be read again from a file."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return 1024 * int(found.get("VmRSS", 0)), 1024 * int(found.get("RssAnon", 0))


def disk_to_disk(case: Case, ours: Ours, environment: Path, folder: Path) -> dict[str, Any]:
    """The command lines of both, each a whole process.

    Ours is run three times: first with nothing known, then as after a search: the sources' hashes are remembered, and
    the kernels compiled.
    """
    recipe, configuration, out = folder / "recipe.yaml", folder / "mergekit.yaml", folder / "out"
    ours.recipe(case, 0).save(recipe)
    configuration.write_text(yaml.safe_dump(their_configuration(case, ours)), encoding="utf-8")
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        rebuild = [sys.executable, "-m", "optmerge", "rebuild", str(recipe), str(out)]
        cached = offline | {"XDG_CACHE_HOME": cache}
        (first,) = _runs(rebuild, cached, out, 1)
        (Path(cache) / "optmerge" / "kernels").symlink_to(ours.kernels_folder)
        warm = _runs(rebuild, cached, out, 2)
    merge = [str(environment / "bin" / "mergekit-yaml"), str(configuration), str(out)]
    theirs = _runs(merge, offline, out, 2)
    return {"first": first, "ours": _best(warm), "mergekit": _best(theirs)}


def _runs(command: Sequence[str], environment: Mapping[str, str], out: Path, times: int) -> list[dict[str, float]]:
    found = []
    for _ in range(times):
        found.append(run_command(command, environment))
        shutil.rmtree(out)
    return found


def _best(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: min(each[key] for each in runs) for key in runs[0]}


def their_configuration(case: Case, ours: Ours) -> dict[str, Any]:
    """The same merge, as mergekit-yaml reads it."""
    drawn, per_source = case.their_parameters(case.draw(0)), get_method(case.method).per_source()
    own = [name.rstrip("_") for name in per_source]
    models = [
        {"model": str(ours.opened[alias].folder), "parameters": {name: drawn[name][i] for name in own}}
        for i, alias in enumerate(case.sources)
    ]
    found = {"merge_method": case.method, "dtype": "bfloat16", "models": models}
    if case.has_base:
        found["base_model"] = str(ours.opened["base"].folder)
    return found | {"parameters": {name: value for name, value in drawn.items() if name not in own}}


# What is reported


def ratios(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that targets are about."""
    seconds = result["seconds"]
    return {
        "compiled": seconds["mergekit"] / seconds["compiled"],
        "plain": seconds["mergekit"] / seconds["plain"],
        "ceiling": seconds["compiled"] / seconds["copy"],
        "threads": seconds["compiled"] / seconds["compiled_threads"],
    }


def print_in_place(results: Mapping[str, Any], parameters: int) -> None:
    """One row a case, in two tables."""
    table = Table(
        title=f"in place, {parameters / 1e6:.0f}M parameters, one thread: nanoseconds a parameter, and ratios"
    )
    once = Table(title=f"the same: seconds, first what is done once, and {CORES} threads")
    columns = ("mergekit", "plain", "ours", "copy", "mergekit/ours", "mergekit/plain", "ours/copy", "agree")
    for each, names in ((table, columns), (once, ("compiling", "tables", "a candidate", "with threads", "ratio"))):
        each.add_column("method", no_wrap=True)
        for name in names:
            each.add_column(name, justify="right", no_wrap=True)
    for name, result in results.items():
        seconds, ratio, agree = result["seconds"], ratios(result), result["agree"]
        nanoseconds = {key: f"{1e9 * value / parameters:.2f}" for key, value in seconds.items()}
        table.add_row(
            name + " (no kernel)" * result["without_kernel"],
            nanoseconds["mergekit"] + "*" * (not result["mergekit_whole"]),
            *(nanoseconds[key] for key in ("plain", "compiled", "copy")),
            *(f"{ratio[key]:.1f}x" for key in ("compiled", "plain", "ceiling")),
            "random" if agree is None else f"{100 * agree:.2f}%",
        )
        done = (result["compile_seconds"], result["tables_seconds"], seconds["compiled"], seconds["compiled_threads"])
        once.add_row(name, *(f"{value:.2f}" for value in done), f"{ratio['threads']:.2f}x")
    console.print(table, once)
    console.print(
        "* measured once, on one tensor of each shape, times how many there are\n"
        f"agree: entries equal to mergekit's within {RTOL:g} relative or {ATOL:g} absolute, ours computing in "
        "float32 and mergekit in float64, on one small tensor of each shape, with the same genome and options\n"
        "mergekit is timed computing in bfloat16, its default, and its results are dropped, not copied\n"
        "rescale: ours by default divides by the density, mergekit's restores the L1 norm; l1_norm and none are equal "
        "to mergekit's true and false",
        highlight=False,
    )


def print_disk(results: Mapping[str, Any]) -> None:
    """One row a method."""
    table = Table(title=f"from disk to disk, whole processes, {CORES} cores")
    table.add_column("method", no_wrap=True)
    for column in (
        "mergekit s", "first s", "ours s", "ratio", "mergekit MB", "ours MB", "share", "mergekit own MB",
        "ours own MB", "share",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name, result in results.items():
        theirs, first, ours = result["mergekit"], result["first"], result["ours"]
        table.add_row(
            name,
            *(f"{each['seconds']:.2f}" for each in (theirs, first, ours)),
            f"{theirs['seconds'] / ours['seconds']:.1f}x",
            *(cell for key in ("bytes", "own_bytes") for cell in _memory_cells(theirs[key], ours[key])),
        )
    console.print(table)
    console.print(
        "first: with nothing known; ours: as after a search, the sources' hashes remembered and the kernels compiled\n"
        "own: memory without pages that are mapped from files"
    )


def _memory_cells(theirs: float, ours: float) -> tuple[str, str, str]:
    return f"{theirs / 1e6:.0f}", f"{ours / 1e6:.0f}", f"{ours / theirs:.2f}"


def targets(in_place: Mapping[str, Any], disk: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at, whether it is reached, and what misses it or comes nearest; only of what was measured."""
    found = {name: ratios(result) for name, result in in_place.items()}
    four = {"linear", "task_arithmetic", "ties", "dare_ties"}
    everything, lines = set(found), list[dict[str, Any]]()

    def add(target: str, values: Mapping[str, float], reached: Callable[[float], bool], worst: Any = min) -> None:
        if values:
            nearest = worst(values, key=values.__getitem__)
            shown = {name: value for name, value in values.items() if not reached(value)} or {nearest: values[nearest]}
            measured = ", ".join(f"{name} {value:.2f}x" for name, value in shown.items())
            lines.append({"target": target, "reached": all(map(reached, values.values())), "measured": measured})

    def of(key: str, names: set[str]) -> dict[str, float]:
        return {name: found[name][key] for name in found if name in names}

    add("in place: dare_ties 50x", of("compiled", {"dare_ties"}), lambda x: x >= 50)
    add("in place: ties 100x", of("compiled", {"ties"}), lambda x: x >= 100)
    add("in place: linear and task_arithmetic 3x", of("compiled", {"linear", "task_arithmetic"}), lambda x: x >= 3)
    add("in place: every method 1.5x", of("compiled", everything), lambda x: x >= 1.5)
    add("in place: the four within 4x of a copy", of("ceiling", four), lambda x: x <= 4, max)
    add("in place, plain: every method 2x", of("plain", everything), lambda x: x >= 2)
    for name, least in (("ties", 15), ("dare_ties", 8), ("linear", 2)):
        fast = {key: r["mergekit"]["seconds"] / r["ours"]["seconds"] for key, r in disk.items() if key == name}
        add(f"disk to disk: {name} {least}x", fast, partial(le, least))
    for key, what in (("bytes", "memory"), ("own_bytes", "memory without mapped files")):
        share = {name: r["ours"][key] / r["mergekit"][key] for name, r in disk.items()}
        add(f"disk to disk: a third of the peak {what}", share, lambda x: x <= 1 / 3, max)
    return lines


def write(document: Mapping[str, Any], out: Path) -> list[dict[str, Any]]:
    """Write results and picture; gives the targets."""
    out.mkdir(exist_ok=True)
    reached = targets(document["in_place"], document["disk"])
    text = json.dumps({**document, "targets": reached}, indent=2)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    draw(document["in_place"], document["parameters"], out / "merge.png")
    return reached


def draw(results: Mapping[str, Any], parameters: int, path: Path) -> None:
    """Bars for each case, nanoseconds a parameter."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = {"mergekit": "0.85", "plain": "0.6", "compiled": "0.2"}
    labels = {"mergekit": "mergekit 0.1.5", "plain": "optmerge without a compiler", "compiled": "optmerge"}
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.55 * len(results)), layout="constrained")
    for row, result in enumerate(results.values()):
        for place, (key, colour) in enumerate(bars.items()):
            value, label = 1e9 * result["seconds"][key] / parameters, labels[key] if row == 0 else None
            axes.barh(row + 0.27 * (place - 1), value, 0.25, color=colour, edgecolor="0.2", linewidth=0.5, label=label)
            axes.text(1.05 * value, row + 0.27 * (place - 1), f"{value:.3g}", va="center", fontsize=7)
        ceiling, label = 1e9 * result["seconds"]["copy"] / parameters, "a copy of the same bytes" if row == 0 else None
        axes.plot([ceiling] * 2, [row - 0.42, row + 0.42], color="0", linestyle=":", linewidth=2, label=label)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="nanoseconds a parameter, one thread", title="A merged candidate, in place")
    axes.margins(x=0.1, y=0.02)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / len(results) - 0.04), ncols=4, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def machine(environment: Path) -> dict[str, Any]:
    """What it was measured on."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    about = "import torch, importlib.metadata as m; print(torch.__version__, m.version('mergekit'))"
    asked = subprocess.run([environment / "bin" / "python", "-c", about], capture_output=True, text=True, check=True)
    their_torch, mergekit = asked.stdout.split()
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "processor": processor, "cores": CORES, "capability": capability, "memory": psutil.virtual_memory().total,
        "python": sys.version.split()[0], "torch": torch.__version__, "mergekit": mergekit, "their_torch": their_torch,
    }  # fmt: skip


def make_environment(folder: Path) -> Path:
    """An environment with mergekit, made if it is not there."""
    if not (folder / "bin" / "mergekit-yaml").exists():
        console.print("installing mergekit into an environment of its own")
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq"]
        subprocess.run([*pip, "-r", str(HERE / "requirements-mergekit.txt")], check=True)
    return folder


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, help="about how many; by default 494e6, or 20e6 if quick")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="by default all")
    parser.add_argument("--mergekit", type=Path, help="a virtual environment that has mergekit")
    parser.add_argument("--work", type=Path, default=default_cache() / "benchmarks", help="folder for what is large")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="others stay as they were measured")
    parser.add_argument("--quick", action="store_true", help="small models, and kernels compiled before")
    chosen = parser.parse_args()
    work = chosen.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    environment = make_environment((chosen.mergekit or work / "mergekit").absolute())
    models = make_models(work, chosen.parameters or (20e6 if chosen.quick else 494e6))
    if not chosen.quick and "in_place" in chosen.parts:
        shutil.rmtree(work / "kernels", ignore_errors=True)
    ours, about = Ours(models, work / "kernels"), machine(environment)
    console.print(json.dumps(about), highlight=False)
    # What is not the whole measurement does not take its place.
    out = work if chosen.quick or chosen.parameters or chosen.methods != METHODS else OUT
    known = json.loads((out / "results.json").read_text()) if (out / "results.json").exists() else {}
    document = {"machine": about, "parameters": ours.parameters} | {part: known.get(part, {}) for part in PARTS}
    with tempfile.TemporaryDirectory(dir=work) as name:
        if "in_place" in chosen.parts:
            document["in_place"] = measure_in_place(chosen.methods, ours, Theirs(environment, models), Path(name))
            print_in_place(document["in_place"], ours.parameters)
            write(document, out)
        for method in [method for method in DISK if method in chosen.methods and "disk" in chosen.parts]:
            ours.compile(Case(method, method), console.print)
            with console.status(f"{method}, from disk to disk"):
                document["disk"][method] = disk_to_disk(Case(method, method), ours, environment, Path(name))
            write(document, out)
    if document["disk"]:
        print_disk(document["disk"])
    for target in write(document, out):
        line = f"{'reached' if target['reached'] else 'MISSED '}  {target['target']}: {target['measured']}"
        console.print(line, highlight=False, soft_wrap=True)


def measure_in_place(methods: Sequence[str], ours: Ours, theirs: Theirs, folder: Path) -> dict[str, Any]:
    """Ours and theirs for every case, one after the other, so that both see the same machine."""
    found: dict[str, Any] = {}
    write_check(ours, folder / "check.safetensors")
    for case in cases(methods):
        with console.status(f"{case.name}, in place"):
            try:
                result = ours.measure(case, repetitions=3)
                answer = theirs.measure(case, repetitions=3)
                result["agree"] = theirs.agreement(case, folder / "check.safetensors")
            except OptmergeError as error:
                console.print(f"{case.name}: {error}")
                continue
            result["seconds"]["mergekit"], result["mergekit_whole"] = answer["seconds"], answer["whole"]
            found[case.name] = result
        console.print(f"{case.name}: {ratios(result)['compiled']:.1f}x", highlight=False)
    theirs.close()
    differing = [name for name, r in found.items() if r["agree"] is not None and r["agree"] < AGREEING]
    if differing:
        console.print(f"not the same as mergekit's: {', '.join(differing)}")
    return found


if __name__ == "__main__":
    main()
