"""The tiny models are made by a command of their own."""

import dataclasses
from pathlib import Path

import pytest

from optmerge.__main__ import run
from optmerge.zoo import MODELS, QUICK_PLAN, Schedule
from optmerge.zoo.manifest import hashes

SHORTEST = dataclasses.replace(
    QUICK_PLAN, **dict.fromkeys(("base", "ja", "math_add", "math_mul"), Schedule(steps=1, learning_rate=1e-2))
)


@pytest.fixture(autouse=True)
def _trained_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is over at once."""
    monkeypatch.setattr("optmerge.zoo.making.TrainingPlan", lambda: SHORTEST)


def test_zoo_is_made_once_and_then_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["zoo", "a [zoo]", "models.seed=1"]) == 0
    first = capsys.readouterr().out
    assert first.splitlines()[0] == "zoo: making a [zoo] (not there yet)"
    *_, last = first.splitlines()
    assert last == (
        "a [zoo]: base, ja, math_add, math_mul, problems; "
        "python -m optmerge models.maker=null 'models.folder=a [zoo]' merges them"
    )
    made = hashes(tmp_path / "a [zoo]")
    assert all((tmp_path / "a [zoo]" / name / "model.safetensors").is_file() for name in MODELS)
    assert run(["zoo", "a [zoo]", "models.seed=1"]) == 0
    (again,) = capsys.readouterr().out.splitlines()
    assert again.startswith("a [zoo]: base, ja, math_add, math_mul, problems, there already; ")
    assert hashes(tmp_path / "a [zoo]") == made


def test_without_a_folder_it_is_made_where_the_demo_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["zoo"]) == 0
    assert (tmp_path / "studies/.cache/zoo/seed-0/base/model.safetensors").is_file()
    assert capsys.readouterr().out.splitlines()[-1].startswith("studies/.cache/zoo/seed-0: base, ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "two"], "write `zoo [FOLDER]"),
        (["--fast"], "write `zoo [FOLDER]"),
        (["models.maker=null"], "models.maker is null: nothing makes these models"),
        (["models.sead=1"], "models.sead: no such setting"),
        (["/dev/null"], "is a file; name a folder for the zoo"),
    ],
)
def test_what_cannot_be_made_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["zoo", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
