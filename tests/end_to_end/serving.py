"""The command dashboard in a process of its own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Dashboards:
    """What runs.

    Attributes:
        process: The command.
        printed: What it has said.
        cwd: Where.
    """

    process: "subprocess.Popen[str]"
    printed: list[str]
    cwd: Path

    def address(self, begins: str) -> str:
        """What a line says that begins so."""
        (found,) = [line.removeprefix(begins).strip() for line in self.printed if line.startswith(begins)]
        return found

    def stop(self, by: int = signal.SIGTERM) -> int:
        """Tell it to stop; gives its exit status."""
        self.process.send_signal(by)
        rest, _ = self.process.communicate(timeout=60)
        self.printed += rest.splitlines()
        return self.process.returncode


@contextmanager
def dashboards(*arguments: str, cwd: Path) -> Iterator[Dashboards]:
    """The dashboards, when both answer; ended afterwards."""
    command = [sys.executable, "-m", "optmerge", "dashboard", "port=0", "mlflow_port=0", *arguments]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watchdog = threading.Timer(150, process.terminate)  # it takes MLflow with it
    watchdog.start()
    try:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        watchdog.cancel()
        yield Dashboards(process, printed, cwd)
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)
