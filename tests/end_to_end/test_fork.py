"""A fork: a new study that begins from the best trials of an old one."""

import json
from pathlib import Path

import optuna
import pytest

from end_to_end.conftest import assert_one_message
from optmerge.__main__ import run

URL = "sqlite:///studies/studies.db"


@pytest.fixture(scope="module")
def forked(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, and a fork of it on fewer problems that was made longer by its own command."""
    folder = tmp_path_factory.mktemp("forked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*small, "study.name=old", "study.trials=8"]) == 0
        for trials in (3, 6):
            assert run(["fork", "study.name=old", "as=new", "task.search.rows=:12", f"study.trials={trials}"]) == 0
    return folder


@pytest.fixture
def inside(forked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(forked)
    return forked


def test_fork_begins_from_the_best_of_the_old_study(inside: Path) -> None:
    old, new = (optuna.load_study(study_name=name, storage=URL) for name in ("old", "new"))
    best = sorted((t for t in old.trials if t.value is not None), key=lambda trial: (-trial.value, trial.number))[:5]
    assert [trial.params for trial in new.trials[: len(best)]] == [pytest.approx(trial.params) for trial in best]


def test_same_command_again_goes_on_with_the_fork(inside: Path) -> None:
    result = json.loads((inside / "studies" / "new" / "result.json").read_text())
    assert result["trials"]["complete"] + result["trials"]["pruned"] == 6


def test_old_study_stays_as_it_was(inside: Path) -> None:
    assert len(optuna.load_study(study_name="old", storage=URL).trials) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study.name=old", "as=../elsewhere"], "names a folder"),
        (["study.name=old", "as="], "as= is empty"),
        (["study.name=new", "as=old"], "study old exists already"),
        (["study.name=nothing", "as=other"], "no such study"),
    ],
)
def test_fork_that_cannot_be_is_refused(
    inside: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(inside.rglob("*"))
    assert run(["fork", *arguments]) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    assert said in message
    assert sorted(inside.rglob("*")) == before
