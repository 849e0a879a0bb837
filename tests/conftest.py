"""What many rooms' tests share."""

import dataclasses
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
