"""Problem sets that cannot be searched or tested on are refused before anything starts."""

from pathlib import Path

import pytest

from end_to_end.conftest import Refuse, assert_one_message
from end_to_end.studies import run_process, started


@pytest.mark.parametrize("split", ["search", "validation", "test"])
def test_empty_split_is_refused(refuse: Refuse, tmp_path: Path, split: str) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    message = refuse(f"task.{split}.path={empty}")
    assert f"task.{split}" in message and "empty.jsonl" in message


def test_no_validation_split_is_refused_where_it_is_to_choose(refuse: Refuse) -> None:
    message = refuse("task.validation=null")
    assert "task.validation is empty" in message and "study.selection" in message


@pytest.mark.parametrize("pair", [("search", "validation"), ("search", "test"), ("validation", "test")])
def test_splits_that_share_problems_are_refused(refuse: Refuse, zoo: Path, pair: tuple[str, str]) -> None:
    one, other = pair
    message = refuse(f"task.{other}.path={zoo / 'problems' / one}.jsonl")
    assert f"the {one} and {other} splits share" in message


def test_file_that_is_not_there_is_refused(small: list[str], tmp_path: Path) -> None:
    done = run_process(*small, "task.search.path=moon.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert_one_message(done.stderr)
    assert "task.search: no problem file at moon.jsonl" in done.stderr
    assert started(tmp_path) == []
