"""Trains models of the zoo side by side, each in a process of its own."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import optmerge
from optmerge.errors import OptmergeError
from optmerge.zoo.manifest import Order

# What a training process prints to be passed on; anything else is kept as the reason, should it fail.
PROGRESS_PREFIX = "zoo: "
# One thread each: the models are too small for more, and the order of sums stays the same.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def train_in_processes(folder: Path, names: Sequence[str], order: Order, report: Callable[[str], None]) -> None:
    """Train some of the zoo's models at once.

    Args:
        folder: The zoo; the base must be there already, unless it is itself to be trained.
        names: Folder names of the models.
        order: Seed and plan.
        report: Called with the processes' lines of progress.

    Raises:
        OptmergeError: If a process fails; the others are then ended.
    """
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
    processes = {name: _start(folder, name, order) for name in names}
    try:
        for name, process in processes.items():
            threading.Thread(target=_read, args=(name, process, lines), daemon=True).start()
        _follow(processes, lines, report)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _start(folder: Path, name: str, order: Order) -> subprocess.Popen[str]:
    job = json.dumps({"folder": str(folder), "name": name, "seed": order.seed, "plan": asdict(order.plan)})
    root = str(Path(optmerge.__file__).resolve().parents[1])
    search_path = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH")) if path)
    return subprocess.Popen(
        [sys.executable, "-m", "optmerge.zoo.one_training", job],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": search_path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def _read(name: str, process: subprocess.Popen[str], lines: queue.Queue[tuple[str, str | None]]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put((name, line.rstrip()))
    lines.put((name, None))


def _follow(
    processes: Mapping[str, subprocess.Popen[str]],
    lines: queue.Queue[tuple[str, str | None]],
    report: Callable[[str], None],
) -> None:
    """Pass on progress until all processes have ended, or one has failed."""
    running = set(processes)
    other: dict[str, deque[str]] = {name: deque(maxlen=1) for name in processes}
    while running:
        name, line = lines.get()
        if line is None:
            running.discard(name)
            status = processes[name].wait()
            if status != 0:
                reason = other[name][-1] if other[name] else f"it ended with status {status}"
                raise OptmergeError(f"training of the zoo's model {name!r} failed: {reason}")
        elif line.startswith(PROGRESS_PREFIX):
            report(line)
        elif line:
            other[name].append(line)
