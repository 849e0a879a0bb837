"""What there is to choose, a line each."""

from pathlib import Path

import pytest

from optmerge.__main__ import run
from optmerge.config import CONF, compose_config


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The lines that the command prints: the word to write, and what it means."""
    assert run(["list", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {word: about.strip() for word, _, about in (line.partition(" ") for line in lines) if word}


def test_everything_is_listed_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = listed(capsys)
    groups = {path.parent.name for path in CONF.glob("*/*.yaml")}
    written = {word.lstrip("+").partition("=")[::2] for word in words}
    assert written == {(path.parent.name, path.stem) for path in CONF.glob("*/*.yaml")}
    assert {word.lstrip("+").partition("=")[0] for word in words} == groups
    assert words["sampler=random"] == "Random search"
    assert compose_config(["+experiment=math_ja", "sampler=tpe"]).sampler["name"] == "tpe"
    assert {"+experiment=math_ja", "sampler=tpe"} <= set(words)


@pytest.mark.parametrize("word", ["method", "methods"])
def test_one_group_is_listed_by_its_name_in_singular_or_plural(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = listed(capsys, word)
    assert set(words) == {f"method={path.stem}" for path in CONF.glob("method/*.yaml")}


def test_lines_are_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    begins = {len(line) - len(line.partition(" ")[2].lstrip()) for line in lines}
    assert len(begins) == 1
    assert len(lines) == len(list(CONF.glob("task/*.yaml")))


def test_files_of_the_user_are_listed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# My [own] search. Of this year.\n")
    words = listed(capsys, "experiments", "--config-dir", str(tmp_path))
    assert words["+experiment=mine"] == "My [own] search"
    assert "+experiment=demo" in words
    assert listed(capsys, f"--config-dir={tmp_path}")["+experiment=mine"] == "My [own] search"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methdos"], r"unknown group 'methdos' (did you mean 'method'?); known are engine, experiment, "),
        (["methods", "tasks"], "write `list [GROUP]`"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["--config-dir"], "--config-dir needs a folder"),
    ],
)
def test_what_is_not_there_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", *words]) == 2
    assert message in capsys.readouterr().err
