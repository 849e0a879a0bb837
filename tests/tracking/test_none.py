"""No tracking."""

import os
from pathlib import Path

import pytest

from optmerge.study.judged import Judged
from optmerge.tasks import Objective
from optmerge.tracking.none import Options, build


def test_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = build(Options())
    tracker.start("mine", "key", {}, Objective("acc"), {})
    assert tracker.finish({}, tmp_path, Judged({}, [], [])) is None
    assert os.listdir(tmp_path) == []
