"""What many rooms' tests share: a zoo trained for seconds, and the command line as a user runs it."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference tensors and real problem sets, which lie beside the checkout where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of the smallest models, trained in seconds: they answer in sentences, mostly wrongly."""
    from optmerge.zoo import QUICK_PLAN, make

    plan = dataclasses.replace(QUICK_PLAN, search_problems=24, validation_problems=12, test_problems=16)
    folder = tmp_path_factory.mktemp("zoo") / "quick"
    make(folder, seed=0, report=lambda line: None, plan=plan)
    return folder


@pytest.fixture
def on_zoo(zoo: Path) -> list[str]:
    """Overrides that let a search use the ready zoo, with a small budget and no tracking."""
    return ["models.maker=null", f"models.folder={zoo}", "study.trials=4", "study.finalists=2", "tracking=none"]


@pytest.fixture
def optmerge(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m optmerge ARGUMENTS` in an empty folder."""

    def run(*arguments: str, cwd: Path = tmp_path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "optmerge", *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "COLUMNS": "200"},
        )

    return run
