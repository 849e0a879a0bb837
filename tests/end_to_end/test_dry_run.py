"""A dry run says what a search would do, and leaves nothing behind."""

from pathlib import Path

import pytest

from end_to_end.studies import Search
from optmerge.__main__ import run

SAID = (
    "groups (3)",
    "genes (18)",
    "24 search, 12 validation, 16 test; 2 trials",
    "placement: sources",
    "time (",
    "Nothing was",
)


def test_plan_of_a_search_is_printed_and_no_file_left(
    small: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--dry-run", *small]) == 0
    printed = capsys.readouterr().out
    assert [words for words in SAID if words not in printed] == []
    assert list(here.iterdir()) == []


def test_zoo_that_is_not_made_is_not_made(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--dry-run", f"models.folder={here / 'zoo'}"]) == 0
    printed = capsys.readouterr().out
    assert "not made yet" in printed and "Nothing was started" in printed
    assert list(here.iterdir()) == []


def test_hybrid_over_a_zoo_that_is_not_made_is_planned_whole(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--dry-run", "+experiment=demo_hybrid", f"models.folder={here / 'zoo'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Nothing was started") == 2 and "paths" in printed
    assert list(here.iterdir()) == []


def test_default_command_leaves_no_file(here: Path) -> None:
    assert run(["--dry-run"]) == 0
    assert list(here.iterdir()) == []


def test_finished_study_is_left_as_it_is(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = search.copied_to(tmp_path)
    monkeypatch.chdir(copy.cwd)
    before = {path: path.read_bytes() for path in copy.folder.rglob("*") if path.is_file()}
    assert run(["--dry-run", *search.overrides, "study.trials=9"]) == 0
    assert {path: path.read_bytes() for path in copy.folder.rglob("*") if path.is_file()} == before
    assert len(copy.trials()) == 4


def test_search_that_could_not_start_is_refused(
    small: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--dry-run", *small, "models.sources.ja.path=moon/ja"]) == 2
    assert "ja: " in capsys.readouterr().err
    assert list(here.iterdir()) == []
