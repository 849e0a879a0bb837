"""Several tasks as one: whose problem is whose, weights, and guards."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optmerge.config import options_of
from optmerge.engines import Response
from optmerge.errors import UsageError
from optmerge.tasks import Objective, Task


def write(path: Path, count: int, answer: str) -> str:
    rows = [{"question": f"{path.stem} {n}?", "answer": answer} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    def task(name: str, count: int, **more: Any) -> dict[str, Any]:
        path = write(tmp_path / f"{name}.jsonl", count, "4")
        return {
            "name": "gsm8k",
            "prompt": "{question}",
            **{split: {"path": path} for split in ("search", "test")},
        } | more

    return {
        "parts": {"sums": {"weight": 3, "task": task("sums", 2)}, "words": {"task": task("words", 6)}},
        "guards": {"chat": {"margin": 0.1, "task": task("chat", 4)}},
    }


def made(settings: Mapping[str, Any]) -> Task:
    module, options = options_of("task", {"name": "composite", **settings}, "optmerge.tasks")
    task: Task = module.build(options)
    return task


def scores(task: Task, right: Mapping[str, set[int]]) -> list[Mapping[str, float]]:
    """The scores of all search problems, of which some are answered rightly: part to the numbers of those."""
    found = []
    for problem in task.problems("search"):
        name, number = problem.question.rstrip("?").split()
        found.append(task.score(problem, Response("4" if int(number) in right[name] else "5", 1)))
    return found


def test_a_part_weighs_as_much_as_it_says_however_many_problems_it_has(settings: dict[str, Any]) -> None:
    found = scores(made(settings), {"sums": {0}, "words": {0, 1}, "chat": set()})
    fitness = [one["score"] for one in found if "score" in one]
    assert len(fitness) == 8, "a guard adds nothing"
    assert np.mean(fitness) == pytest.approx(0.75 * 1 / 2 + 0.25 * 2 / 6)


def test_every_score_is_there_under_its_parts_name(settings: dict[str, Any]) -> None:
    found = scores(made(settings), {"sums": {0}, "words": set(), "chat": {1, 2, 3}})
    assert [one["chat/acc"] for one in found if "chat/acc" in one] == [0, 1, 1, 1]
    assert {name for one in found for name in one} == {"score", "ease", "sums/acc", "words/acc", "chat/acc"}


def test_problems_are_those_of_all_parts_and_are_asked_as_each_asks(settings: dict[str, Any]) -> None:
    settings["parts"]["words"]["task"]["max_new_tokens"] = 7
    task = made(settings)
    problems = task.problems("search")
    assert [problem.id.split("/")[0] for problem in problems] == ["sums"] * 2 + ["words"] * 6 + ["chat"] * 4
    assert task.request(problems[2]).max_new_tokens == 7  # type: ignore[union-attr]
    assert task.request(problems[2]).prompt == "words 0?"
    assert list(task.problems("validation")) == []


def test_sorted_by_ease_problems_are_sorted_by_part(settings: dict[str, Any]) -> None:
    found = scores(made(settings), {"sums": {0, 1}, "words": {1, 3}, "chat": set()})
    ease = [one["ease"] for one in found]
    assert max(ease[:2]) < min(ease[2:8]) <= max(ease[2:8]) < min(ease[8:])
    assert ease[3] > ease[2]


def test_a_task_of_which_less_is_better_counts_the_other_way(settings: dict[str, Any]) -> None:
    settings["parts"]["words"]["task"] |= {"name": "perplexity"}
    task = made(settings)
    problem = task.problems("search")[2]
    scored = task.score(problem, Response("", 1, log_likelihoods=(-np.log(2) * 3,)))
    assert scored["words/bits_per_byte"] == pytest.approx(3.0)
    assert scored["score"] == pytest.approx(-3.0 * 0.25 * 8 / 6)
    assert not task.objectives[0].share


def test_every_part_may_be_an_objective(settings: dict[str, Any]) -> None:
    settings["parts"]["words"]["task"] |= {"name": "perplexity"}
    task = made(settings | {"objectives": "parts"})
    assert task.objectives == [
        Objective("sums/acc"),
        Objective("words/bits_per_byte", "minimize", share=False),
    ]
    assert task.goal == Objective("score", share=False)
    assert made(settings).objectives == (task.goal,)
    assert made(settings).fingerprint() != task.fingerprint()


@pytest.mark.parametrize(
    ("parts", "objectives", "message"),
    [
        (2, "each", "task.objectives=each: unknown; known are mean, parts"),
        (1, "parts", "task.objectives=parts needs two parts or more"),
    ],
)
def test_objectives_that_cannot_be_are_refused(
    settings: dict[str, Any], parts: int, objectives: str, message: str
) -> None:
    chosen = dict(list(settings["parts"].items())[:parts])
    with pytest.raises(UsageError, match=message):
        made(settings | {"parts": chosen, "objectives": objectives})


def test_guards_name_what_must_not_fall(settings: dict[str, Any]) -> None:
    (guard,) = made(settings).guards
    assert (guard.name, guard.goal.name, guard.margin, guard.of) == ("chat", "chat/acc", 0.1, None)


def test_weights_guards_and_parts_decide_scores(settings: dict[str, Any]) -> None:
    before = made(settings).fingerprint()
    settings["parts"]["sums"]["weight"] = 2
    settings["guards"]["chat"]["margin"] = 0.2
    settings["parts"]["words"]["task"]["stop"] = ["x"]
    after = made(settings).fingerprint()
    assert {name for name in before if before[name] != after[name]} == {"weights", "guards", "words.stop"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {}}, "task.parts is empty"),
        ({"parts": {"a": {"weight": 1}}}, r"task\.parts\.a needs `task`"),
        ({"parts": {"a": {"wait": 1, "task": {}}}}, r"task\.parts\.a needs `task`.* may have task, weight"),
        ({"parts": {"a": {"task": "gsm8k"}}}, r"task\.parts\.a needs `task`, the settings of a task"),
        ({"parts": {"a": {"task": None}}}, r"task\.parts\.a needs `task`, the settings of a task"),
        ({"parts": {"a": {"weight": 0, "task": {"name": "gsm8k"}}}}, r"task\.parts\.a\.weight must be more than 0"),
        ({"parts": {"a": {"weight": "x", "task": {"name": "gsm8k"}}}}, r"task\.parts\.a\.weight must be a number"),
        ({"parts": {"a": {"task": {"name": "gsm9k"}}}}, r"unknown task 'gsm9k' \(did you mean 'gsm8k'"),
        (
            {"parts": {"a": {"task": {"name": "gsm8k", "answers": "x"}}}},
            r"task\.parts\.a\.task\.answers must be one of",
        ),
        ({"guards": {"sums": {"task": {"name": "gsm8k"}}}}, "task: sums is among the parts and the guards"),
        ({"guards": {"b": {"margin": -1, "task": {"name": "gsm8k"}}}}, r"task\.guards\.b\.margin must be at least 0"),
        ({"guards": {"b": {"task": {"name": "composite", "parts": {}}}}}, r"parts is empty"),
    ],
)
def test_what_cannot_be_put_together_is_refused(settings: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(settings | change)


def test_missing_files_are_named_with_their_part(settings: dict[str, Any]) -> None:
    settings["guards"]["chat"]["task"]["search"] = {"path": "nowhere.jsonl"}
    task = made(settings)
    assert task.missing() == ["task.guards.chat.task.search: no problem file at nowhere.jsonl"]
    with pytest.raises(UsageError, match=r"^task\.guards\.chat\.task\.search: no problem file"):
        task.problems("search")
