"""The help is quick, and what it lists is there."""

import re
import time
from pathlib import Path

import pytest

from end_to_end.studies import run_process
from optmerge.__main__ import COMMANDS, HELP, run
from optmerge.config import CONF, compose_config


def test_help_takes_less_than_a_second(tmp_path: Path) -> None:
    best = float("inf")
    for _ in range(3):  # other work on the machine may slow one
        began = time.monotonic()
        done = run_process("--help", cwd=tmp_path)
        best = min(best, time.monotonic() - began)
        assert (done.returncode, done.stderr) == (0, "")
    assert best < 1


def test_help_lists_every_command() -> None:
    assert set(re.findall(r"python -m optmerge \[?([a-z]+)\b(?!\.)", HELP)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_knows_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Exit status" in capsys.readouterr().out


def test_every_group_that_the_help_lists_is_there() -> None:
    listed = HELP.partition("groups: ")[2].partition("\n\n")[0].split()
    assert set(listed) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment"}


def test_settings_that_the_help_gives_as_examples_are_right() -> None:
    config = compose_config(
        ["+experiment=math_ja", "study.name=NAME", "study.trials=400", "study.seed=1", "method=ties", "sampler=tpe"]
    )
    assert (config.study.name, config.study.trials, config.method.name) == ("NAME", 400, "ties")
