"""The compare command on a store with versions of two sets of validation problems."""

import csv
import json
from pathlib import Path

import pytest
from rich.console import Console
from scipy.stats import binomtest

from optmerge.commands.compare import run_compare
from optmerge.errors import UsageError
from optmerge.study.touched import touch
from optmerge.tracking.mlflow import Options
from tracking.followed import follow, judged, model_folder, result

NAME = "compared"
FIRST = [1, 1, 1, 1, 0, 0, 0, 0]
SECOND = [1, 1, 0, 0, 1, 0, 0, 0]  # one that the first has not, two less
THIRD = [0, 1, 1, 1, 1, 1, 0, 0]  # one that neither of the others has


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, uri: str) -> str:
    folder = tmp_path_factory.mktemp("compared")
    options = Options(uri, str(folder / "artifacts"), experiment=NAME, model=NAME)
    for number, (scores, problems) in enumerate(((FIRST, "v"), (SECOND, "v"), (THIRD, "v"), (FIRST, "w")), start=1):
        document = result(f"{number}" * 64, study=f"study{number}", validation=sum(scores) / 8)
        document["licence"] = "apache-2.0"
        best = model_folder(folder / f"study{number}" / "best")
        follow(options, best, [], document, judged(scores), problems=problems)
    return uri


def printed(uri: str, *arguments: str, width: int | None = None) -> str:
    """What it says, to a terminal of a width or to none."""
    console = Console(width=width or 200, force_terminal=width is not None, color_system=None)
    with console.capture() as capture:
        run_compare([f"tracking.uri={uri}", *arguments], console)
    return capture.get()


def row(text: str, version: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {version}")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_versions_are_side_by_side(registered: str) -> None:
    cells = row(printed(registered, NAME), "2 ")
    assert cells[:4] == [
        "2 challenger" if "challenger" in cells[0] else "2",
        "study2",
        "37.5%",
        "30.0% (20.0% to 40.0%)",
    ]
    assert cells[6:] == ["apache-2.0", "base, ja"]


def test_a_narrow_terminal_has_all_but_the_sources_whole(registered: str) -> None:
    text = printed(registered, NAME, width=119)
    assert row(text, "2 ")[6:] == ["apache-2.0"] and "\u2026" not in text
    assert row(printed(registered, NAME, width=120), "4 ")[6] == "apache-2.0"


def test_a_version_without_weights_is_marked(tmp_path: Path, uri: str) -> None:
    name = "forgetful"
    for number in (1, 2, 3):
        options = Options(uri, str(tmp_path / "artifacts"), experiment=name, model=name, keep=1)
        document = result(f"{number}" * 64, study=f"study{number}")
        follow(options, model_folder(tmp_path / f"study{number}" / "best"), [], document, judged(FIRST))
    text = printed(uri, name, f"csv={tmp_path / 'table.csv'}")
    assert "Registered model forgetful: validation problems 76767676" in text
    assert [row(text, version)[0] for version in "123"] == ["1 champion", "2 (weights removed)", "3 challenger"]
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [one["weights"] for one in csv.DictReader(file)] == ["", "removed", ""]


def test_each_is_held_against_the_champion_by_a_paired_test(registered: str) -> None:
    text = printed(registered, NAME)
    assert row(text, "1 champion")[4] == ""
    p_value = binomtest(2, 3, alternative="two-sided").pvalue  # two lost, one won
    assert row(text, "2 ")[4] == f"-12.5 points, p = {p_value:.2g}"


def test_problems_that_each_alone_solves_are_told(registered: str) -> None:
    text = printed(registered, NAME)
    assert [row(text, version)[5] for version in ("1 ", "2 ", "3 ")] == ["0", "0", "1"]
    assert "Version 3 alone solves 1 problem: question 5 of v (v5)" in text


def test_versions_of_other_problems_are_apart(registered: str) -> None:
    text = printed(registered, NAME)
    assert "validation problems 77777777; not to be compared with the versions above" in text
    assert row(text, "4 champion-77777777")[4:6] == ["", "0"]


def test_how_many_models_have_seen_the_test_problems_is_told(registered: str) -> None:
    assert "Test problems 74747474 were answered by 3 different models" in printed(registered, NAME)


def test_models_that_were_only_evaluated_are_counted_with_them(registered: str, tmp_path: Path) -> None:
    touch(tmp_path, "74" * 32, ["one that evaluate has asked"], "evaluate")
    assert "by 4 different models" in printed(registered, NAME, f"study.folder={tmp_path}")


def test_why_each_has_its_title_is_told(registered: str) -> None:
    text = printed(registered, NAME)
    assert "Version 1: the first version that was validated." in text
    assert "Version 2: not better beyond chance than version 1 on the same validation problems" in text
    assert "Version 4: the first version with these validation problems." in text


def test_the_table_is_written(registered: str, tmp_path: Path) -> None:
    printed(registered, NAME, f"csv={tmp_path / 'table.csv'}", f"json={tmp_path / 'table.json'}")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(one["version"], one["study"], one["difference"], one["alone"]) for one in rows] == [
        ("1", "study1", "", "0"),
        ("2", "study2", "-0.125", "0"),
        ("3", "study3", "0.125", "1"),
        ("4", "study4", "", "0"),
    ]
    document = json.loads((tmp_path / "table.json").read_text())
    third = document["versions"][2]
    assert third["against"] == {"champion": 1, "difference": 0.125, "p_value": 1.0}
    assert third["alone"] == [{"id": "v5", "question": "question 5 of v"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["comapred"], "comapred: no such registered model in this store .did you mean 'compared'"),
        ([NAME, "another"], "compare takes one registered model, got 2: compared, another"),
        (["--json"], "unknown option --json"),
        ([NAME, "json=/no/such/folder/x.json"], "there is no folder /no/such/folder"),
        ([NAME, "csv="], "csv=: this is no file name"),
        ([NAME, "tracking.uir=x"], "tracking.uir"),
        ([NAME, "study.fodler=x"], "compare knows no such word .did you mean 'study.folder'"),
    ],
)
def test_mistakes_are_usage_errors(registered: str, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        printed(registered, *arguments)


def test_without_mlflow_there_are_no_versions() -> None:
    with pytest.raises(UsageError, match="tracking=none: versions are in the registry of tracking=mlflow"):
        run_compare(["tracking=none"], Console())


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        printed(f"sqlite:///{tmp_path / 'mlflow.db'}", NAME)
    assert list(tmp_path.iterdir()) == []
