"""No tracking."""

import os
from pathlib import Path

import pytest

from optmerge.tracking.none import Options, build, command


def test_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = build(Options())
    tracker.start("mine", "key", {})
    assert tracker.finish({}, tmp_path) is None
    assert os.listdir(tmp_path) == [] and command(Options()) is None
