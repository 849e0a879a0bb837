"""The evaluate command, and tasks of the user's own."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from end_to_end.conftest import assert_one_message
from end_to_end.studies import Search, run_process, trials
from optmerge import registered
from optmerge.__main__ import run
from optmerge.recipe import MergeNode, Recipe, load_recipe

LENGTH = '''\
"""The nearer a response's length is to the answer, the better."""

from optmerge.tasks import NUMBERS, DataOptions, DataTask, Objective, Scoring

Options = DataOptions


def build(options):
    def score(problem, response):
        return {"near": 1 / (1 + abs(len(response.text) - int(problem.answer)))}

    return DataTask(options, Scoring((Objective("near"),), NUMBERS, score))
'''


@pytest.fixture(autouse=True)
def _no_plugins_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_FILES", {})


def own_task(zoo: Path) -> list[str]:
    splits = [f"task.{split}.path={zoo / 'problems' / f'{split}.jsonl'}" for split in ("search", "validation", "test")]
    return ["task=own", "task.name=length", "task.max_new_tokens=16", *splits]


def scored(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_a_recipe_and_the_folder_of_its_study_score_what_the_search_said(
    search: Search, zoo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["models.maker=null", f"models.folder={zoo}"]
    said = search.result()["winner"]["test"]
    for model, name in ((search.recipe, "recipe"), (search.folder, "folder")):
        assert run(["evaluate", str(model), *where, f"json={name}.json"]) == 0
        found = scored(here / f"{name}.json")
        assert found["scores"]["acc_ja"] == pytest.approx(said)
    printed = capsys.readouterr().out
    assert "acc_ja" in printed and "16 problems" in printed and "language: py3langid" in printed
    recipe, folder = (scored(here / f"{name}.json")["problems"] for name in ("recipe", "folder"))
    assert recipe == folder
    assert len(recipe) == 16
    assert all({"id", "question", "answer", "response", "finish", "tokens", "scores"} == set(one) for one in recipe)


def test_every_model_that_answers_test_problems_is_counted_once(
    search: Search, zoo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["models.maker=null", f"models.folder={zoo}", f"study.folder={search.folder.parent}"]
    result = search.result()
    # The winner, its sources, and naive merges: some of these may be one and the same recipe.
    asked = [
        result["winner"],
        *(one for kind in ("sources", "baselines", "ablations") for one in result[kind].values()),
    ]
    models = len({one["recipe_sha256"] for one in asked})
    assert result["models_on_test"] == models
    assert f"{models} different models, sources and naive merges among them, have answered" in search.printed

    def counted(model: Path, *words: str) -> str:
        assert run(["evaluate", str(model), *where, *words]) == 0
        return capsys.readouterr().out

    told = "different models have answered these test problems so far"
    assert f"{models} {told}" in counted(search.recipe)  # by the study before
    assert f"{models} {told}" in counted(zoo / "ja")  # a source, as it stood in the study
    assert "answered these" not in counted(zoo / "ja", "split=validation")
    other = search.folder.parent.parent / "other.yaml"
    other.write_text(search.recipe.read_text(encoding="utf-8"), encoding="utf-8")
    recipe = load_recipe(other)
    assert isinstance(recipe.root, MergeNode)
    Recipe(dataclasses.replace(recipe.root, seed=recipe.root.seed + 1)).save(other)
    assert f"{models + 1} {told}" in counted(other)
    assert f"{models + 1} {told}" in counted(other)
    assert "1 model has answered" in counted(other, "study.folder=elsewhere")


def test_another_split_and_another_task_can_be_scored(search: Search, zoo: Path, here: Path) -> None:
    where = ["models.maker=null", f"models.folder={zoo}"]
    assert run(["evaluate", str(search.recipe), *where, "split=validation", "json=v.json"]) == 0
    assert len(scored(here / "v.json")["problems"]) == 12
    test = zoo / "problems" / "test.jsonl"
    assert run(["evaluate", str(zoo / "ja"), "task=perplexity", f"task.test.path={test}", "json=p.json"]) == 0
    found = scored(here / "p.json")
    assert found["scores"]["bits_per_byte"]["score"] > 0
    assert all(len(one["log_likelihoods"]) == 1 for one in found["problems"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere/model"], "nowhere/model"),
        (["./nowhere", "task.test.path=nowhere.jsonl"], "./nowhere"),  # what was asked for comes first
        (["MODEL", "split=exam"], "split=exam: unknown; known are search, validation, test"),
        (["MODEL", "task=nothing"], "nothing"),
        (["MODEL", "json=no/folder/x.json"], "there is no folder"),
        (["MODEL", "json=."], "this is a folder; name a file"),
        (["."], "holds no model: it has no config.json"),
        (["MODEL", "task.test.path=nowhere.jsonl"], "task.test: no problem file at nowhere.jsonl"),
        ([], "write `evaluate MODEL"),
        (["recipe.yaml"], "recipe.yaml"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    zoo: Path, here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    words = [str(zoo / "ja") if word == "MODEL" else word for word in words]
    assert run(["evaluate", "models.maker=null", f"models.folder={zoo}", *words]) == 2
    said = capsys.readouterr().err
    assert_one_message(said)
    assert message in said
    assert list(here.iterdir()) == []


# Tasks of the user's own


def test_a_task_in_a_file_is_searched_and_scored(
    zoo: Path, small: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By several workers, who need the file too."""
    (here / "length.py").write_text(LENGTH)
    done = run_process(
        "--plugin", "length.py", *small, *own_task(zoo), "launcher.workers=2", "study.trials=3", cwd=here
    )
    assert done.returncode == 0, done.stderr
    assert "near on the test problems" in done.stdout
    result = scored(here / "studies" / "demo-seed0" / "result.json")
    assert len(result["task"]["plugin"]) == 64
    assert all(0 < float(trial.value or 0) < 1 for trial in trials(here) if trial.state.name == "COMPLETE")
    again = [*small, *own_task(zoo), "study.trials=4"]
    assert run(again) == 2
    assert "unknown task 'length'" in capsys.readouterr().err
    (here / "length.py").write_text(LENGTH.replace("1 / (1", "2 / (2"))
    assert run(["--plugin", "length.py", *again]) == 2
    changed = capsys.readouterr().err
    assert "task.plugin" in changed
    assert_one_message(changed)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.py", None, "no such Python file"),
        ("task.txt", "x = 1", "no such Python file"),
        ("math_ja.py", LENGTH, "there is a task 'math_ja' already"),
        ("broken.py", "import nothing_of_that_name", "line 1: ModuleNotFoundError: No module named"),
        ("syntax.py", "x = 1\ndef (", "line 2: SyntaxError"),
        ("silent.py", "assert False", "line 1: AssertionError"),
        ("empty.py", "x = 1", "a task needs `Options` and `build`"),
    ],
)
def test_a_file_that_is_no_task_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (here / name).write_text(text)
    assert run(["evaluate", "model", "--plugin", name]) == 2
    said = capsys.readouterr().err
    assert_one_message(said)
    assert message in said
