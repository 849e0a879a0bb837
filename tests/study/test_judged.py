"""What a study has kept of its last models' answers, and whose answers can be compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optmerge.study.judged import judged, problem_sets
from optmerge.study.trial_scores import RECIPE, SAME_AS, encode
from optmerge.tasks import ProblemFile
from optmerge.tasks.composite import Options as CompositeOptions
from optmerge.tasks.composite import build as build_composite
from optmerge.tasks.gsm8k import Options, build

Write = Callable[..., ProblemFile]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of problems with these answers."""

    def write(name: str, answers: list[int]) -> ProblemFile:
        path = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"question": f"{name} {i}", "answer": str(answer)}) for i, answer in enumerate(answers)]
        path.write_text("\n".join(lines))
        return ProblemFile(path=str(path), question="question", answer="answer")

    return write


def hashes(name: str = "gsm8k", version: dict[str, str] | None = None, **options: Any) -> dict[str, str]:
    task = build(Options(**options))
    return {split: found.sha256 for split, found in problem_sets(task, name, version or {}).items()}


def test_validation_scores_are_compared_whatever_else_was_searched_and_tested_on(write: Write) -> None:
    validation = write("validation", [1, 2])
    one = hashes(search=write("search", [3]), validation=validation, test=write("test", [4]))
    other = hashes(search=write("others", [5, 6]), validation=validation, test=write("test", [4]))
    assert (one["validation"], one["test"]) == (other["validation"], other["test"])
    assert one["search"] != other["search"]


@pytest.mark.parametrize(
    "change", [{"prompt": "Q: {question}"}, {"max_new_tokens": 7}, {"name": "mine"}, {"version": {"plugin": "1a"}}]
)
def test_scores_made_otherwise_are_not_compared(write: Write, change: dict[str, Any]) -> None:
    given = {"search": write("search", [3]), "validation": write("validation", [1, 2]), "test": write("test", [4])}
    assert hashes(**given)["validation"] != hashes(**given, **change)["validation"]


def test_scores_of_other_problems_are_not_compared(write: Write) -> None:
    rest = {"search": write("search", [3]), "test": write("test", [4])}
    before = hashes(**rest, validation=write("validation", [1, 2]))["validation"]
    assert before != hashes(**rest, validation=write("validation", [1, 3]))["validation"]


def test_a_split_without_problems_is_not_there(write: Write) -> None:
    assert set(hashes(search=write("search", [3]), test=write("test", [4]))) == {"search", "test"}


def test_validation_of_parts_is_compared_whatever_their_parts_searched_on(write: Write) -> None:
    def of(search: ProblemFile) -> dict[str, str]:
        files = {"search": search, "validation": write("validation", [1]), "test": write("test", [4])}
        settings = {
            split: {"path": file.path, "question": "question", "answer": "answer"} for split, file in files.items()
        }
        task = build_composite(CompositeOptions(parts={"en": {"task": {"name": "gsm8k", **settings}}}))
        return {split: found.sha256 for split, found in problem_sets(task, "composite", {}).items()}

    one, other = of(write("search", [3])), of(write("others", [5]))
    assert one["validation"] == other["validation"] and one["search"] != other["search"]


def test_winner_finalists_and_what_was_tested_are_read_back() -> None:
    study = optuna.create_study()
    for recipe, more in (("a", {}), ("b", {}), ("a", {SAME_AS: 0}), ("c", {})):
        trial = study.ask()
        for name, value in {RECIPE: recipe, **more}.items():
            trial.set_user_attr(name, value)
        study.tell(trial, 1.0)
    scores = {"a": [1.0, 0, 1], "b": [np.nan, 1, np.nan]}
    for recipe, found in scores.items():
        study.set_user_attr(f"evaluation:validation:{recipe}", {"acc": encode(np.array(found))})
    study.set_user_attr("evaluation:test:a", {"acc": encode(np.array([1.0])), "ease": encode(np.array([4.5]))})
    study.set_user_attr("evaluation:test:source", {"acc": encode(np.array([0.0]))})
    study.set_user_attr("evaluation:test:path:a", {"acc": encode(np.array([0.0]))})
    found = judged(study, 0, study.get_trials(states=[TrialState.COMPLETE]), {"source": "weights"})
    assert [finalist.trial.number for finalist in found.finalists] == [0, 1]
    np.testing.assert_array_equal(found.finalists[1].scores["acc"], scores["b"])
    assert {split: list(found.winner[split]) for split in found.winner} == {"validation": ["acc"], "test": ["acc"]}
    assert found.tested == ["a", "weights"]
