"""Shells complete the words of `optmerge`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optmerge.__main__ import run
from optmerge.commands.catalogue import COMMANDS
from optmerge.commands.completion import completions

ASK = """
eval "$(optmerge --completion bash)"
ask() {
    COMP_LINE="optmerge $1" COMP_POINT=$((9 + ${#1})) COMP_TYPE=9 COMPREPLY=()
    $(complete -p optmerge | sed 's/.*-F \\([^ ]*\\).*/\\1/') optmerge
    echo "$1 -> ${COMPREPLY[*]}"
}
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which the program is called `optmerge`, as its console script is."""
    script = tmp_path / "bin" / "optmerge"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom optmerge.__main__ import main\nmain()\n")
    script.chmod(0o755)
    here = tmp_path / "here"
    (here / "studies" / "first-seed0").mkdir(parents=True)
    (here / "recipe.yaml").touch()
    monkeypatch.chdir(here)
    return {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}


def asked(shell: str, *words: str, environment: dict[str, str]) -> str:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_bash_completes_commands_options_choices_settings_and_files(environment: dict[str, str]) -> None:
    lines = {
        "reb": "rebuild ",
        "rebuild --ch": "--check ",
        "rebuild rec": "recipe.yaml ",
        "task=gs": "gsm8k ",  # bash keeps what stands before the last =
        "study.tri": "study.trials=",
        "evaluate split=": "search validation test",
        "status study.name=f": "first-seed0 ",
        "nonsense ": "",
    }
    script = ASK + "".join(f"ask '{line}'\n" for line in lines)
    printed = asked("bash", "--norc", "-c", script, environment=environment).splitlines()
    found = dict(line.split(" -> ") for line in printed)
    # Newer ones add the space themselves, where completing is interactive.
    assert {line: words.strip() for line, words in found.items()} == {line: one.strip() for line, one in lines.items()}


def test_fish_completes_with_descriptions(environment: dict[str, str]) -> None:
    script = 'optmerge --completion fish | source; complete -C "optmerge reb"; complete -C "optmerge sampler=t"'
    printed = asked("fish", "--no-config", "-c", script, environment=environment)
    summary = next(command.summary for command in COMMANDS if command.name == "rebuild")
    assert printed.splitlines() == [f"rebuild\t{summary}", "sampler=tpe\tTree-structured Parzen estimator"]


def test_zsh_takes_the_script(environment: dict[str, str]) -> None:
    script = 'autoload -Uz compinit; compinit -u -D; eval "$(optmerge --completion zsh)"; print $_comps[optmerge]'
    assert asked("zsh", "-f", "-c", script, environment=environment) == "_python_argcomplete\n"


def test_an_answer_takes_less_than_half_a_second_and_nothing_heavy(environment: dict[str, str], tmp_path: Path) -> None:
    line = "optmerge sampler=tpe sampler.start"
    answer = tmp_path / "answer"
    asking = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run(["optmerge"], env={**environment, **asking}, capture_output=True, text=True)
    assert answer.read_text().strip() == "sampler.startup_trials="
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argcomplete" in imported
    assert not {"hydra", "omegaconf", "optuna", "torch", "numpy", "rich"} & imported  # they would take seconds


@pytest.mark.parametrize(
    ("before", "prefix", "some"),
    [
        ([], "", {"search", "rebuild", "list", "+experiment=", "method="}),
        ([], "--", {"--dry-run", "--config-dir", "--plugin", "--help"}),
        (["--completion"], "", {"bash", "zsh", "fish"}),
        (["export", "a.yaml", "out"], "format=", {"format=mergekit", "format=fold"}),
        (["list"], "", {"method", "experiment"}),
        (["worker"], "study.n", {"study.name="}),
        (["rebuild", "recipe.yaml"], "so", {"sources."}),
        (["search"], "study.baselines=", {"study.baselines=true", "study.baselines=false"}),
        (["study.name=x"], "space.path.sw", {"space.path.switches="}),
    ],
)
def test_words_that_may_come(before: list[str], prefix: str, some: set[str]) -> None:
    found = completions(before, prefix)
    assert some <= set(found)
    assert all(word.startswith(prefix) for word in found)


def test_files_are_offered_where_files_are_meant(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "more.txt").touch()
    (tmp_path / ".hidden").touch()
    start = f"{tmp_path}/mo"
    assert set(completions(["evaluate"], start)) == {f"{tmp_path}/model/", f"{tmp_path}/more.txt"}
    assert set(completions(["evaluate"], f"json={start}")) == {f"json={tmp_path}/model/", f"json={tmp_path}/more.txt"}
    assert set(completions(["--config-dir"], start)) == {f"{tmp_path}/model/"}
    assert set(completions([], f"models.sources.ja.path={start}")) == {
        f"models.sources.ja.path={tmp_path}/{name}" for name in ("model/", "more.txt")
    }
    assert completions(["status"], start) == {}


def test_groups_of_the_user_are_completed_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# Mine.\n")
    assert completions(["--config-dir", str(tmp_path)], "+experiment=mi") == {"+experiment=mine": "Mine"}


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "optmerge: --completion tcsh: known are bash, zsh, fish\n"
    assert run(["--completion"]) == 2
