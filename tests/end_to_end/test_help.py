"""The help is quick, and what it says is so."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from end_to_end.conftest import assert_one_message
from end_to_end.studies import run_process
from optmerge.__main__ import run
from optmerge.commands.catalogue import COMMANDS, EVERYWHERE, Command
from optmerge.config import CONF, compose_config
from optmerge.interchange import FORMATS
from optmerge.registered import names
from optmerge.tasks import SPLITS

EXAMPLES = [(command, example) for command in COMMANDS for example in command.examples]
RUN_AT_ONCE = ("search", "zoo")  # what they need is always there
HEAVY = {"torch", "transformers", "mlflow", "matplotlib", "optuna", "hydra", "omegaconf", "rich"}


def test_help_takes_less_than_a_second(tmp_path: Path) -> None:
    best = float("inf")
    for _ in range(3):  # other work on the machine may slow one
        began = time.monotonic()
        done = run_process("--help", cwd=tmp_path)
        best = min(best, time.monotonic() - began)
        assert (done.returncode, done.stderr) == (0, "")
    assert best < 1


def test_no_help_needs_anything_heavy() -> None:
    code = f"""
import sys
from optmerge.__main__ import run
from optmerge.commands.catalogue import COMMANDS
for words in [[], *([command.name] for command in COMMANDS)]:
    assert run([*words, "--help"]) == 0
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_lists_every_command_and_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-h"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command.name} " in text
        assert command.summary in text
    listed = text.partition("groups: ")[2].partition("\n")[0].split()
    assert set(listed) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment"}


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_says_how_it_is_used(command: Command, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command.name, "anything", option]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{command.name}: {command.summary}\n")
    for part in (*command.usage, *(one.form for one in command.options), "Examples:", "Exit status"):
        assert part in text
    assert all(example.partition("  # ")[0] in text for example in command.examples)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_line_usage_and_examples(command: Command) -> None:
    assert command.summary
    assert "\n" not in command.summary
    assert len(command.summary) <= 100
    assert command.usage
    assert command.examples
    if command.name != "search":
        assert all(words.split()[0] == command.name for words in (*command.usage, *command.examples))


@pytest.mark.parametrize(("command", "example"), EXAMPLES)
def test_options_and_settings_of_examples_are_known(
    command: Command, example: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = here / "my" / "experiment" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\nstudy: {seed: 3}\n")
    words = shlex.split(example, comments=True)
    known = {name for option in (*command.options, *EVERYWHERE) for name in option.form.replace(",", "").split()}
    assert {word for word in words if word.startswith("-")} <= known
    own = [name for option in command.options if (name := option.form.partition("=")[0]) != option.form]
    settings = [word for word in words if "=" in word and word.partition("=")[0] not in own]
    if command.name == "search":
        search = ["--config-dir", "my"] if "--config-dir" in words else []
        assert run([*search, *settings, "--cfg", "job"]) == 0 if "-m" not in words else compose_config([])
    elif command.settings and not any(word.startswith("study.name=") for word in words):
        compose_config([word for word in settings if not word.startswith("sources.")])
    else:
        assert all(word.startswith(("sources.", "models.", "study.", "storage.")) for word in settings)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("command", "example"), [one for one in EXAMPLES if one[0].name not in RUN_AT_ONCE])
def test_examples_are_understood_and_fail_only_for_what_is_not_here(
    command: Command, example: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "my").mkdir()
    (here / "url.txt").write_text("sqlite:///studies.db")
    status = run(shlex.split(example, comments=True))
    printed = capsys.readouterr()
    if command.name == "list":
        assert (status, printed.err) == (0, "")
        return
    assert status == 2
    assert_one_message(printed.err)
    reasons = ("no study", "no problem file", "missing", "no such", "cannot", "there is no", "neither a folder")
    assert any(reason in printed.err for reason in reasons), printed


def test_choices_in_forms_are_those_that_there_are() -> None:
    forms = [option.form for command in COMMANDS for option in command.options]
    assert {form.partition("=")[2] for form in forms if form.startswith("split=")} == {"|".join(SPLITS)}
    (formats,) = (form.partition("=")[2] for form in forms if form.startswith("format="))
    assert set(formats.split("|")) == set(names(FORMATS))


def test_the_program_is_called_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/optmerge"])
    run(["status", "--help"])
    assert "Usage: optmerge status study.name=NAME" in capsys.readouterr().out


def test_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rebiuld", "recipe.yaml"]) == 2
    assert "unknown command 'rebiuld' (did you mean 'rebuild'?); known are search, " in capsys.readouterr().err
