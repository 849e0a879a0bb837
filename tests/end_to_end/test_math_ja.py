"""The paper's experiment: without its weights and problems, and on small models with local copies."""

import json
import time
from pathlib import Path

import pytest

from end_to_end.conftest import assert_one_message
from end_to_end.studies import Search, run_process, started
from optmerge.__main__ import run


@pytest.mark.usefixtures("no_network")
def test_without_network_or_weights_everything_missing_is_named_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_process("+experiment=math_ja", cwd=tmp_path)
    assert time.monotonic() - began < 30
    assert done.returncode == 2
    assert_one_message(done.stderr)
    for alias, checkpoint in (
        ("base", "mistralai/Mistral-7B-v0.1"),
        ("ja", "augmxnt/shisa-gamma-7b-v1"),
        ("math_wizard", "WizardLMTeam/WizardMath-7B-V1.1"),
        ("math_abel", "GAIR/Abel-7B-002"),
    ):
        assert f"hf download {checkpoint}" in done.stderr
        assert f"models.sources.{alias}.path=FOLDER" in done.stderr
    for split, data in (
        ("search", "SakanaAI/gsm8k-ja-test_250-1319"),
        ("validation", "SakanaAI/gsm8k-ja-test_250-1319"),
        ("test", "juletxara/mgsm"),
    ):
        assert f"task.{split}: data set {data}" in done.stderr
        assert f"hf download --repo-type dataset {data}" in done.stderr
    assert "nothing was started" in done.stderr
    assert started(tmp_path) == []


@pytest.fixture
def local_copies(zoo: Path, shared: Path, tmp_path: Path) -> list[str]:
    """The experiment on the quick zoo, with the first problems of local files, to be run in a few seconds."""
    for split in ("search", "validation"):
        with (tmp_path / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for line in (zoo / "problems" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:6]:
                problem = json.loads(line)
                row = {"question": problem["question"], "answer_number": int(problem["answer"])}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return [
        "+experiment=math_ja",
        "models=zoo",
        "models.maker=null",
        f"models.folder={zoo}",
        f"task.search.path={tmp_path / 'search.jsonl'}",
        "task.search.rows=':'",
        f"task.test.path={shared / 'data' / 'mgsm_ja.tsv'}",
        "++task.test.rows='0:6'",
        "task.max_new_tokens=8",
        "study.trials=2",
        "study.baselines=false",
        "tracking=none",
    ]


def test_local_copies_are_searched_to_the_end(local_copies: list[str], here: Path, tmp_path: Path) -> None:
    assert run([*local_copies, f"task.validation.path={tmp_path / 'validation.jsonl'}"]) == 0
    result = Search(here, (), "", "math_ja-seed0").result()
    assert result["trials"] == {"complete": 2, "pruned": 0, "failed": 0}
    assert result["problem_evaluations"] == 12
    assert result["winner"]["validation"] is not None


def test_selection_of_the_paper_takes_the_best_trial_without_validation(local_copies: list[str], here: Path) -> None:
    assert run([*local_copies, "selection=paper"]) == 0
    search = Search(here, (), "", "math_ja-seed0")
    winner = search.result()["winner"]
    best = max(search.trials(), key=lambda trial: (trial.value, -trial.number))
    assert (winner["trial"], winner["search"], winner["validation"]) == (best.number, best.value, None)
