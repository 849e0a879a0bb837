"""What many rooms' tests share."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# What is started in the background ignores ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference tensors and real problem sets, which lie beside the checkout where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the checkout")
    return SHARED


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that takes long to make, made by the first process of a run that asks for it; look at it only."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = root / "made" / name, root / "made" / f"{name}.done"
    done.parent.mkdir(exist_ok=True)
    with FileLock(done.with_suffix(".lock")):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of the smallest models, trained in seconds: they answer in sentences, mostly wrongly."""
    from optmerge.zoo import QUICK_PLAN, make

    plan = dataclasses.replace(QUICK_PLAN, search_problems=24, validation_problems=12, test_problems=16)
    return made_once(
        tmp_path_factory, "quick", lambda folder: make(folder, seed=0, report=lambda line: None, plan=plan)
    )
