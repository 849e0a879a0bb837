"""A search for several tasks at once, with a guard."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from end_to_end.conftest import Refuse
from end_to_end.studies import trials
from optmerge.__main__ import run

SPLITS = ("search", "validation", "test")


def composite(zoo: Path, here: Path, margin: float, of: str) -> list[str]:
    """The words that choose an experiment of the user's, which is written into a folder of theirs."""

    def task(name: str, rows: str) -> dict[str, Any]:
        files = {split: {"path": str(zoo / "problems" / f"{split}.jsonl"), "rows": rows} for split in SPLITS}
        return {"name": name, "prompt": "{question}", **files}

    parts = {"ja": {"weight": 2, "task": task("math_ja", ":8")}, "bits": {"task": task("perplexity", ":8")}}
    guards = {"sums": {"margin": margin, "of": of, "task": task("gsm8k", "8:")}}
    both = {"defaults": [{"override /task": "composite"}], "task": {"parts": parts, "guards": guards}}
    folder = here.parent / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "both.yaml").write_text("# @package _global_\n" + yaml.safe_dump(both, sort_keys=False))
    return ["--config-dir", str(folder.parent), "+experiment=both", "study.name=demo-seed0"]


def result(here: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((here / "studies" / "demo-seed0" / "result.json").read_text())
    return found


def test_a_search_has_several_tasks_and_keeps_a_guard(
    zoo: Path, small: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*small, *composite(zoo, here, 0.5, "ja"), "study.trials=12", "study.finalists=3", "pruner.batch=12"]
    assert run(words) == 0
    found, done = result(here), trials(here)
    assert set(found["winner"]["means"]) == {"score", "ease", "ja/acc", "ja/acc_ja", "bits/bits_per_byte", "sums/acc"}
    complete = [trial for trial in done if trial.state.name == "COMPLETE"]
    assert all(set(trial.constraints) == {"sums"} for trial in complete)
    winner = next(trial for trial in complete if trial.number == found["winner"]["trial"])
    assert winner.constraints["sums"] <= 0
    printed = capsys.readouterr().out
    assert "score on the test problems" in printed and "bits/bits_per_byte" in printed


def test_a_guard_that_nothing_keeps_is_told(
    zoo: Path, small: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the part that the guard asks for only the base's own answers are right: every merge falls."""
    words = [*small, *composite(zoo, here, 0.0, "base"), "study.trials=2", "pruner=none"]
    assert run(words) == 0
    broken = [trial.constraints["sums"] > 0 for trial in trials(here)]
    if all(broken):
        assert "No trial kept the guard sums" in capsys.readouterr().out
        assert result(here)["winner"]["broken"]["sums"] > 0
    else:
        assert "broken" not in result(here)["winner"]


def test_a_guard_names_a_source(zoo: Path, here: Path, refuse: Refuse) -> None:
    words = composite(zoo, here, 0.1, "english")
    assert "task.guards.sums.of=english: no such source; models.sources has base, ja" in refuse(*words)
