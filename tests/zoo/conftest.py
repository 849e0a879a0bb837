"""A short zoo, made once for all tests that only look at it."""

from pathlib import Path

import pytest

from optmerge.zoo import QUICK_PLAN, make


@pytest.fixture(scope="session")
def quick_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "quick"
    make(folder, seed=0, report=lambda line: None, plan=QUICK_PLAN)
    return folder
