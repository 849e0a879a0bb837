"""The report of a small study: one page that needs nothing else, finished or not."""

import base64
import dataclasses
import os
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial
from study.studies import opened_anew, proposer, search

from optmerge.errors import OptmergeError, UsageError
from optmerge.reports import report
from optmerge.reports.findings import Ending, Findings, read_findings
from optmerge.reports.report import Report, write_report
from optmerge.study.charter import OpenStudy
from reports.conftest import GENES, QUESTIONS, TRIALS, evaluate

_VOID = {"img", "meta", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page as a browser would begin to read it: elements, their attributes, text, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += f" {data.strip()}" if data.strip() else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(opened: OpenStudy, folder: Path, ending: Ending | None = None, **words: float) -> Page:
    return Page(write_report(opened, folder, ending, **words).page.read_text(encoding="utf-8"))


def test_the_page_needs_no_other_file_and_every_picture_has_words(finished: tuple[Report, FrozenTrial]) -> None:
    report, _ = finished
    text = report.page.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    pictures = page.all("img")
    assert len(pictures) == len(report.figures) == len(page.all("figcaption")) >= 7
    for found, figure in zip(pictures, report.figures, strict=True):
        assert found["alt"] == figure.alt and len(figure.alt) > 40
        kind, _, data = (found["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == figure.path.read_bytes()
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|https?://|@import""", text)
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert [tag for tag, _ in page.elements if tag in ("h1", "h2")][:2] == ["h1", "h2"]


def test_a_finished_study_tells_winner_gap_guards_and_who_solves_what(finished: tuple[Report, FrozenTrial]) -> None:
    report, best = finished
    page = Page(report.page.read_text(encoding="utf-8"))
    assert best.value is not None
    for text in (
        f"evolved merge (trial {best.number}) scores 75.0%",
        "the best source, 日本語, 25.0%",
        "source 日本語 25.0% 15.0% to 35.0%",
        "average 25.0%",
        "No trial kept the guard chat: the winner is 0.03 below its floor.",
        "On validation the other finalist is worse beyond chance.",
        "validation 5 60.0%",
        "test 4 75.0%",
        f"-{100 * (best.value - 0.75):.1f} points",
        "2 new (50%), 1 inherited (25%), 1 lost (25%), 0 unsolved (0%)",
        "5 of 5 chosen",
        "2 of 5 worse beyond chance",
        "trials complete 20",
        "trials pruned 4",
        "problems spared 8 (8%)",
        "problems answered by sources beforehand 8",
        "65 W (assumed",
    ):
        assert text in page.text, text
    assert "So far" not in page.text


def test_examples_show_question_and_responses_as_they_are(finished: tuple[Report, FrozenTrial]) -> None:
    page = Page(finished[0].page.read_text(encoding="utf-8"))
    assert "New: the merged model alone solves them (2 of 2)" in page.text
    assert f"2 {QUESTIONS[1]} 1 答えは4です。 日本語: わからない" in page.text
    assert f"4 {QUESTIONS[3]} 3" in page.text  # the one that is lost
    assert QUESTIONS[0] not in page.text  # inherited


def test_what_examples_lack_is_said(opened: OpenStudy, ending: Ending, tmp_path: Path) -> None:
    page = read(opened, tmp_path, dataclasses.replace(ending, responses={}))
    assert "study.keep_responses=true" in page.text
    assert "questions are not where" in read(opened, tmp_path, dataclasses.replace(ending, problems=())).text


def test_a_search_that_has_not_ended_is_reported_so_far(opened: OpenStudy, tmp_path: Path) -> None:
    page = read(opened, tmp_path, watts=300.0)
    best = opened.study.best_trial
    assert "times 300 W (as given by watts=)" in page.text
    assert "So far." in page.text and "has not ended (24 of 24 trials, nothing runs)" in page.text
    assert f"the best so far, trial {best.number}, scores {best.value:.1%} (acc_ja) on the search problems" in page.text
    names = [figure["id"] for figure in page.all("figure")]
    assert names == ["progress", "problems", "solved-acc_ja", "parameters", "importance", "cost"]
    (matrix,) = [
        found["alt"] for found in page.all("img") if "search problems, dark where a model" in str(found["alt"])
    ]
    assert "日本語 25.0%" in str(matrix)


def test_trials_that_end_while_the_report_is_written_are_not_in_it(
    opened: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_go_on(study: OpenStudy, ending: Ending) -> Findings:
        findings = read_findings(study, ending)
        search(opened, proposer("random", GENES), evaluate, TRIALS + 3)
        return findings

    monkeypatch.setattr(report, "read_findings", read_and_go_on)
    page = read(opened, tmp_path / "report")
    assert len(opened.study.trials) == TRIALS + 3
    (importance,) = (str(one["alt"]) for one in page.all("img") if "importance" in str(one["alt"]))
    assert "by 20 complete trials" in importance


def test_a_study_without_trials_has_a_report(opened: OpenStudy, tmp_path: Path) -> None:
    with closing(sqlite3.connect(str(opened.database.engine.url.database))) as connection, connection:
        connection.execute("DELETE FROM trials")
    with opened_anew(str(opened.database.engine.url), "合成") as emptied:
        page = read(emptied, tmp_path / "report")
    assert "No trial has ended yet." in page.text and not page.all("img")


def test_the_database_is_only_read(opened: OpenStudy, tmp_path: Path) -> None:
    def contents() -> list[str]:
        with closing(sqlite3.connect(str(opened.database.engine.url.database))) as connection:
            return list(connection.iterdump())

    before = contents()
    write_report(opened, tmp_path / "report")
    assert contents() == before


def test_pictures_of_an_earlier_report_go_and_other_files_stay(
    opened: OpenStudy, ending: Ending, tmp_path: Path
) -> None:
    folder = tmp_path / "report"
    first = write_report(opened, folder, ending)
    (folder / "mine.png").write_bytes(b"mine")
    second = write_report(opened, folder)
    gone = {figure.path for figure in first.figures} - {figure.path for figure in second.figures}
    assert folder / "test.png" in gone and not any(path.exists() for path in gone)
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"mine.png", "index.html", *(figure.path.name for figure in second.figures)}


def test_a_page_of_somebody_else_is_not_overwritten(opened: OpenStudy, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>my site</p>")
    with pytest.raises(UsageError, match=r"index\.html is there, and is no report; choose another folder"):
        write_report(opened, tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == []
    with pytest.raises(UsageError, match="no folder"):
        write_report(opened, tmp_path / "index.html")


def test_a_picture_of_somebody_else_is_not_overwritten(opened: OpenStudy, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "progress.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"holds progress\.png, which no report has left there"):
        write_report(opened, folder)
    assert [path.name for path in folder.iterdir()] == ["progress.png"]
    assert (folder / "progress.png").read_bytes() == b"mine"


def test_a_report_that_broke_off_is_written_again(
    opened: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(first: Path, second: Path) -> None:
        if Path(second).suffix == ".png":
            raise OSError("the disk is full")
        replace(first, second)

    folder, replace = tmp_path / "report", os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OptmergeError, match="the disk is full"):
            write_report(opened, folder)
    report = write_report(opened, folder)
    assert {path.name for path in folder.iterdir()} == {"index.html", *(one.path.name for one in report.figures)}


def test_names_with_marks_of_html_are_shown_as_they_are(opened: OpenStudy, ending: Ending, tmp_path: Path) -> None:
    assert ending.result is not None
    ending.result["sources"]["<b>&\"'"] = ending.result["sources"].pop("math")
    page = read(opened, tmp_path, ending)
    assert "source <b>&\"' 25.0%" in page.text
    assert any("<b>&\"'" in str(found["alt"]) for found in page.all("img"))


def test_results_of_earlier_versions_are_told_without_who_solves_what(
    opened: OpenStudy, ending: Ending, tmp_path: Path
) -> None:
    assert ending.result is not None
    for entry in [*ending.result["sources"].values(), *ending.result["baselines"].values()]:
        del entry["recipe_sha256"]
    page = read(opened, tmp_path, ending)
    assert "75.0%" in page.text and "solved-acc_ja" not in [figure["id"] for figure in page.all("figure")]
    assert "was written by an earlier version" in page.text
