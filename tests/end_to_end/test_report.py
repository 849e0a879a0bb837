"""A search leaves a report, and the command writes it again: finished, in between, and from elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from end_to_end.studies import DATABASE, Search
from optmerge.commands.report import run_report
from optmerge.errors import UsageError


@pytest.fixture
def copied(search: Search, here: Path) -> Search:
    """The finished search, in the folder where the test works."""
    return search.copied_to(here)


def report(*words: str) -> None:
    run_report(words, Console(quiet=True))


def test_a_search_ends_with_a_report_and_the_command_writes_the_same(copied: Search) -> None:
    folder = copied.folder / "report"
    page = (folder / "index.html").read_text(encoding="utf-8")
    result = copied.result()
    assert f"{result['winner']['test']['score']:.1%}" in page
    assert 'id="solved-acc_ja"' in page and 'id="parameters"' in page
    report("study.name=demo-seed0", "out=again")
    again = (Path("again") / "index.html").read_text(encoding="utf-8")
    *_, without_date = page.rpartition("</main>")
    assert page.removesuffix(without_date) == again.removesuffix(again.rpartition("</main>")[2])
    assert {path.name for path in Path("again").iterdir()} == {path.name for path in folder.iterdir()}


def test_the_new_and_the_lost_are_shown_with_the_questions_of_the_test_split(copied: Search, zoo: Path) -> None:
    lines = (zoo / "problems" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    page = (copied.folder / "report" / "index.html").read_text(encoding="utf-8")
    block = "Lost: a source solves them" in page or "New: the merged model alone" in page
    assert block == any(question in page for question in questions)


def test_without_its_result_a_study_is_reported_so_far(copied: Search) -> None:
    (copied.folder / "result.json").unlink()
    report("study.name=demo-seed0", "watts=100")
    page = (copied.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "has not ended (4 of 4 trials, nothing runs)" in page
    assert "times 100 W" in page
    assert not (copied.folder / "report" / "test.png").exists()


def test_it_does_not_load_what_runs_models(copied: Search) -> None:
    code = (
        "import sys; from rich.console import Console; from optmerge.commands.report import run_report;"
        "run_report(['study.name=demo-seed0', 'out=elsewhere'], Console());"
        "print('transformers.modeling_utils' in sys.modules, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=copied.cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"
    assert "elsewhere/index.html" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study.name=other"], "study.name=other: no such study in this database; it has demo-seed0"),
        ([], "study.name is missing"),
        (["study.name=demo-seed0", "report"], "'report': report knows no such word: words are NAME=VALUE"),
        (["study.name=demo-seed0", "wats=3"], "'wats=3': report knows no such word (did you mean 'watts'?)"),
        (["study.name=demo-seed0", "watts=many"], "watts=many: write how many watts"),
        (["study.name=demo-seed0", "out=studies/studies.db"], "studies/studies.db is there, and is no folder"),
        (["study.name=demo-seed0", "task.test.path=gone.jsonl"], "gone.jsonl"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_one_line(copied: Search, words: list[str], message: str) -> None:
    before = (copied.cwd / DATABASE).stat().st_size
    with pytest.raises(UsageError) as refused:
        report(*words)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (copied.cwd / DATABASE).stat().st_size == before
