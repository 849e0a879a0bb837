"""What a search leaves behind, and what the same command does when it is given again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from end_to_end.studies import Search, trials, values
from optmerge.__main__ import run
from optmerge.engines import Response
from optmerge.study.trial_scores import SCORES, score_matrix
from optmerge.tasks import ProblemFile
from optmerge.tasks.math_ja import Options, build

GENES = 3 * 3 * 2  # embeddings and two layers, three sources beside the base, weight and density
PROBLEMS = 24


def test_search_prints_where_its_results_are(search: Search) -> None:
    for words in ("studies/demo-seed0/best", "studies/demo-seed0/result.json", "rebuild --check", "optmerge dashboard"):
        assert words in search.printed


def test_folder_of_the_study_holds_model_recipe_result_and_picture(search: Search) -> None:
    found = {path.relative_to(search.folder).as_posix() for path in search.folder.rglob("*")}
    assert {
        "best/model.safetensors",
        "best/recipe.yaml",
        "result.json",
        "report/index.html",
        "report/test.png",
    } <= found
    assert not [name for name in found if "partial" in name]


def test_result_describes_the_winner(search: Search) -> None:
    winner = search.result()["winner"]
    trial = search.trials()[winner["trial"]]
    assert winner["search"] == trial.value
    assert winner["recipe_sha256"] == trial.user_attrs["recipe_sha256"]
    assert len(winner["weights_sha256"]) == 64
    assert 0 <= winner["validation"] <= 1
    assert 0 <= winner["test"]["low"] <= winner["test"]["score"] <= winner["test"]["high"] <= 1


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("sources", {"base", "ja", "math_add", "math_mul"}),
        (
            "baselines",
            {"average", "average with base", "TIES", "DARE-TIES", "best shared weight", "best pair"},
        ),
    ],
)
def test_result_has_the_test_scores_of_what_the_winner_is_compared_with(
    search: Search, group: str, names: set[str]
) -> None:
    entries = search.result()[group]
    assert set(entries) == names
    assert all(set(entry["test"]) == {"score", "low", "high"} for entry in entries.values())


def test_result_counts_trials_and_problems(search: Search) -> None:
    result = search.result()
    assert result["trials"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert result["problem_evaluations"] == result["problem_evaluations_unpruned"] == 4 * PROBLEMS
    assert result["seconds"] > 0


def test_every_trial_keeps_its_genome(search: Search) -> None:
    assert [len(trial.params) for trial in search.trials()] == [GENES] * 4


def test_every_trial_keeps_its_score_of_every_problem(search: Search) -> None:
    found = score_matrix(search.scores(), "acc_ja")
    assert {number: (len(scores), float(scores.mean())) for number, scores in found.items()} == {
        trial.number: (PROBLEMS, trial.value) for trial in search.trials()
    }
    assert not any(np.isnan(scores).any() for scores in found.values())


def test_model_loaded_without_optmerge_scores_what_the_result_says(search: Search, zoo: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    best = search.folder / "best"
    model = AutoModelForCausalLM.from_pretrained(best, trust_remote_code=False, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(best, trust_remote_code=False, local_files_only=True, padding_side="left")
    task = build(Options(test=ProblemFile(path=str(zoo / "problems/test.jsonl")), prompt="{question}", stop=[]))
    problems = task.problems("test")
    prompts = tokenizer([problem.question for problem in problems], return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            max_new_tokens=32,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    texts = tokenizer.batch_decode(output[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    scores = [task.score(p, Response(t, len(t), "stop"))["acc_ja"] for p, t in zip(problems, texts, strict=True)]
    assert np.mean(scores) == search.result()["winner"]["test"]["score"]


def test_same_command_again_reports_and_evaluates_nothing(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = search.copied_to(tmp_path)
    monkeypatch.chdir(copy.cwd)
    before = (copy.folder / "result.json").read_bytes()
    assert run(search.overrides) == 0
    printed = capsys.readouterr().out
    assert "is finished" in printed and "evolved merge" in printed
    assert "scoring" not in printed
    assert (copy.folder / "result.json").read_bytes() == before
    assert len(copy.trials()) == 4


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]"])
def test_result_that_is_not_whole_is_made_again(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    copy = search.copied_to(tmp_path)
    monkeypatch.chdir(copy.cwd)
    (copy.folder / "result.json").write_text(damage)
    assert run(search.overrides) == 0
    assert copy.result()["winner"] == search.result()["winner"]
    assert len(copy.trials()) == 4


def test_another_way_to_end_a_finished_study_is_heeded(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = search.copied_to(tmp_path)
    monkeypatch.chdir(copy.cwd)
    card = copy.folder / "best" / "README.md"
    card.write_text("My own words.", encoding="utf-8")
    assert run([*search.overrides, "study.baselines=false"]) == 0
    assert copy.result()["baselines"] == {}
    assert len(copy.trials()) == 4
    assert card.read_text(encoding="utf-8") == "My own words."  # of the same winner


def test_larger_budget_continues_the_study(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = search.copied_to(tmp_path)
    monkeypatch.chdir(copy.cwd)
    assert run([*search.overrides, "study.trials=6"]) == 0
    assert values(copy.trials())[:4] == values(search.trials())
    assert copy.result()["trials"] == {"complete": 6, "pruned": 0, "failed": 0}


def test_same_seed_gives_the_same_search_bit_for_bit(search: Search, here: Path) -> None:
    assert run(search.overrides) == 0
    again = Search(here, (), "")
    assert values(again.trials()) == values(search.trials())
    assert [t.user_attrs[SCORES] for t in again.trials()] == [t.user_attrs[SCORES] for t in search.trials()]
    assert again.result()["winner"] == search.result()["winner"]


def test_another_seed_gives_another_search(search: Search, small: list[str], here: Path) -> None:
    assert run([*small, "study.seed=1"]) == 0
    assert values(trials(here, "demo-seed1")) != values(search.trials())[:2]
