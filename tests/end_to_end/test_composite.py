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
    broken = all(trial.constraints["sums"] > 0 for trial in trials(here))
    assert broken == ("No trial kept the guard sums" in capsys.readouterr().out)
    assert broken == ("broken" in result(here)["winner"])


def test_every_part_is_an_objective_and_the_best_compromises_are_kept(
    zoo: Path, small: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*small, *composite(zoo, here, 0.9, "ja"), "task.objectives=parts", "sampler=nsgaii"]
    words += ["sampler.population=4", "study.trials=14", "study.finalists=3"]
    assert run(words) == 0
    found, done = result(here), trials(here)
    assert all(trial.state.name == "COMPLETE" and len(trial.values) == 2 for trial in done)
    assert not any(trial.intermediate_values for trial in done)
    front = {one["trial"]: one for one in found["front"]}
    # By definition, of the values as Optuna has them: the more right the better, the fewer bits the better.
    feasible = [trial for trial in done if trial.constraints["sums"] <= 0]
    for trial in feasible:
        right, bits = trial.values
        better = [t for t in feasible if t.values[0] >= right and t.values[1] <= bits and t.values != trial.values]
        twin = any(t.values == trial.values for t in feasible if t.number < trial.number)
        assert (trial.number in front) == (not better and not twin)
    validated = [one for one in front.values() if "validation" in one]
    assert len(validated) == min(3, len(front))
    best = max(validated, key=lambda one: 2 * one["validation"]["ja/acc_ja"] - one["validation"]["bits/bits_per_byte"])
    assert best["trial"] == found["winner"]["trial"]
    assert {"source base", "source ja"} < set(found["others_on_validation"])
    folder = here / "studies" / "demo-seed0"
    assert (folder / "report" / "front.png").stat().st_size > 10_000
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    for named in ("ja/acc_ja</th>", "bits/bits_per_byte (less is better)</th>"):
        assert f'<th scope="col" class="n">{named}' in page
    assert "score = 0.667 \u00d7 ja/acc_ja \u2212 0.333 \u00d7 bits/bits_per_byte." in page
    means = found["winner"]["means"]
    weighed = (2 * means["ja/acc_ja"] - means["bits/bits_per_byte"]) / 3
    assert weighed == pytest.approx(means["score"], rel=1e-3)  # scores of problems are kept rounded
    assert f'<td class="n">{means["bits/bits_per_byte"]:.4g}</td>' in page
    assert "](front.png)" in (folder / "best" / "README.md").read_text(encoding="utf-8")
    assert (folder / "best" / "front.png").read_bytes() == (folder / "report" / "front.png").read_bytes()
    assert {path.name for path in (folder / "front").iterdir()} == {f"trial-{number}.yaml" for number in front}
    printed = capsys.readouterr().out
    assert "Pareto front" in printed and "on the Pareto front" in printed

    assert run(["status", "study.name=demo-seed0"]) == 0
    assert "trials on the Pareto front" in capsys.readouterr().out
    other = next(iter(front))
    assert run(["rebuild", str(folder / "front" / f"trial-{other}.yaml"), str(here / "other")]) == 0
    assert (here / "other" / "model.safetensors").exists()

    # Another study begins with the ends of the front; with one finalist the best by weight is the winner.
    assert run(["fork", "study.name=demo-seed0", "as=second", "study.trials=6", "study.finalists=1"]) == 0
    capsys.readouterr()
    begun = {path.stem.rpartition("-")[2] for path in (here / "studies" / "second" / "starts").iterdir()}
    assert begun & {str(number) for number in front} and len(begun) == 5
    second = json.loads((here / "studies" / "second" / "result.json").read_text())
    values = {
        one["trial"]: 2 * one["search"]["ja/acc_ja"] - one["search"]["bits/bits_per_byte"] for one in second["front"]
    }
    assert second["winner"]["trial"] == max(values, key=values.__getitem__)


def test_a_sampler_for_one_objective_is_refused_where_there_are_two(zoo: Path, here: Path, refuse: Refuse) -> None:
    words = [*composite(zoo, here, 0.9, "ja"), "task.objectives=parts"]
    refused = refuse(*words)
    assert "sampler=cmaes searches for one objective, and the task has 2" in refused
    assert "nsgaii" in refused


def test_a_guard_names_a_source(zoo: Path, here: Path, refuse: Refuse) -> None:
    words = composite(zoo, here, 0.1, "english")
    assert "task.guards.sums.of=english: no such source; models.sources has base, ja" in refuse(*words)
