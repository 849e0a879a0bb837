"""What a search leaves for optuna-dashboard, on a study whose scores are made up."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note
from sqlalchemy import event
from study.studies import begin, proposer, search

from optmerge.commands import noticeboard
from optmerge.commands.assembly import Assembly
from optmerge.commands.noticeboard import Noticeboard
from optmerge.engines import Response
from optmerge.recipe import load_recipe
from optmerge.reports.note import MARK
from optmerge.study.charter import OpenStudy, open_study
from optmerge.study.database import Database
from optmerge.study.judge import EVALUATION
from optmerge.study.memory import Memory
from optmerge.study.slots import Ledger, Slot, slot_of
from optmerge.study.trial_scores import RECIPE, SCORES, decode, encode
from optmerge.study.worker import Outcome


@dataclass
class Made:
    """A study of three trials, with the folder that a search would have."""

    opened: OpenStudy
    folder: Path
    assembly: Assembly

    def board(self, **study: Any) -> Noticeboard:
        config = dataclasses.replace(
            self.assembly.config, study=dataclasses.replace(self.assembly.config.study, **study)
        )
        return Noticeboard(dataclasses.replace(self.assembly, config=config), self.opened, self.folder)

    def note(self) -> str:
        found: str = get_note(self.opened.study)
        return found

    def table(self, number: int) -> list[dict[str, str]]:
        """The table that a trial has, as optuna-dashboard would send it."""
        text = self.file(number, "problems.csv").read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def file(self, number: int, name: str) -> Path:
        trial = self.opened.study.get_trials()[number]
        metas = get_all_artifact_meta(trial, storage=self.opened.database)
        (found,) = [meta.artifact_id for meta in metas if meta.filename == name]
        return self.folder.parent / "artifacts" / found


@pytest.fixture
def made(database: Database, assembly: Assembly, tmp_path: Path) -> Made:
    count = len(assembly.plugins.task.problems("search"))
    proposing = proposer("random", assembly.space.genes)

    def evaluate(slot: Slot, genome: Mapping[str, Any], ledger: Ledger, report: Any) -> Outcome:
        right = np.arange(count) % (slot.member + 2) == 0
        seen = np.where(np.arange(count) < 10, right, np.nan) if slot.member == 2 else right.astype(float)
        left = {SCORES: {"acc_ja": encode(seen)}, RECIPE: assembly.space.decode(genome).sha256}
        return Outcome(TrialState.COMPLETE, float(np.nanmean(seen)), left)

    opened = begin(database, proposing)
    search(opened, proposing, evaluate, 3)
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    return Made(opened, folder, assembly)


def validated(made: Made, number: int) -> None:
    """As if a trial had been scored on validation."""
    problems = len(made.assembly.plugins.task.problems("validation"))
    recipe = made.opened.study.trials[number].user_attrs[RECIPE]
    scores = {"acc_ja": encode(np.ones(problems))}
    made.opened.study.set_user_attr(f"{EVALUATION}:validation:{recipe}", scores)


def test_note_tells_how_far_the_study_is_and_what_is_best(made: Made) -> None:
    made.board().update()
    assert "**All trials are done**: 3 of 3 trials, 0 of them pruned" in made.note()
    assert "[trial 0](/dashboard/studies/1/trials?numbers=0)" in made.note()
    made.opened.database.set_control(made.opened.study_id, trials=9)
    board = made.board()
    board.update()  # by the search, between two trials
    assert "**Running**: 3 of 9 trials" in made.note()
    board.leave()
    assert "**Waiting for workers**: 3 of 9 trials" in made.note()
    made.opened.database.set_control(made.opened.study_id, trials=9, stop=True)
    board.leave()
    assert "**Stopped**: 3 of 9 trials" in made.note()


def test_note_is_written_again_only_after_a_while(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    board = made.board()
    board.update()
    made.opened.database.set_control(made.opened.study_id, trials=9)
    board.update()
    assert "of 3 trials" in made.note()
    monkeypatch.setattr(noticeboard, "_SECONDS", 0.0)
    board.update()
    assert "of 9 trials" in made.note()


def test_what_people_write_below_the_line_is_kept(made: Made) -> None:
    made.board().update()
    save_note(made.opened.study, made.note() + "Mine: try **more** layers.")
    made.opened.database.set_control(made.opened.study_id, trials=9)
    made.board().update()
    text, _, own = made.note().partition(MARK)
    assert own == "Mine: try **more** layers."
    assert "of 9 trials" in text and "Mine" not in text


def test_finalists_have_their_recipe_and_a_table_of_their_problems(made: Made) -> None:
    validated(made, 1)
    made.board().end([])
    trials, task = made.opened.study.trials, made.assembly.plugins.task
    assert load_recipe(made.file(1, "recipe.yaml")).sha256 == trials[1].user_attrs[RECIPE]
    rows = made.table(1)
    for split in ("search", "validation"):
        problems = task.problems(split)
        of_split = [row for row in rows if row["split"] == split]
        assert [(row["id"], row["question"], row["answer"]) for row in of_split] == [
            (problem.id, problem.question, problem.answer) for problem in problems
        ]
    kept = decode(trials[1].user_attrs[SCORES]["acc_ja"])
    assert [float(row["acc_ja"]) for row in rows if row["split"] == "search"] == kept.tolist()
    assert all(row["response"] == "" for row in rows)
    assert not {row["id"] for row in rows} & {problem.id for problem in task.problems("test")}
    assert "problem by problem: trials [1](" in made.note()
    assert [get_all_artifact_meta(trials[i], storage=made.opened.database) for i in (0, 2)] == [[], []]


def test_table_has_only_the_problems_that_were_seen(made: Made) -> None:
    validated(made, 2)
    made.board().end([])
    assert len([row for row in made.table(2) if row["split"] == "search"]) == 10


def test_responses_that_are_kept_go_with_every_trial(made: Made) -> None:
    problem = made.assembly.plugins.task.problems("search")[3]
    slot = slot_of(made.opened.study.trials[0])
    Memory(made.folder / "responses" / f"{slot.generation}-{slot.member}.jsonl").add(
        [problem], [Response('式は"3+4"、\n答えは7本です。', 9, "stop")]
    )
    made.board(keep_responses=True).update()
    rows = made.table(0)
    assert {row["id"]: row["response"] for row in rows if row["response"]} == {
        problem.id: '式は"3+4"、\n答えは7本です。'
    }
    assert len(made.table(1)) == len(made.assembly.plugins.task.problems("search"))
    before = made.file(1, "problems.csv").stat().st_mtime_ns
    made.opened = open_study(made.opened.database, "mine")  # as another process that goes on
    made.board(keep_responses=True).update()
    assert made.file(1, "problems.csv").stat().st_mtime_ns == before


def test_pictures_are_in_the_note_with_what_they_show(made: Made, tmp_path: Path) -> None:
    (tmp_path / "solved.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    board = made.board()
    board.end([(tmp_path / "solved.png", "Which problems | each model solves.")])
    metas = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(made.opened.study)}
    assert set(metas) == {"solved.png"}
    assert f"![Which problems \\| each model solves.](/artifacts/1/{metas['solved.png']})" in made.note()
    assert made.note().count("[solved.png](") == 1
    heads = re.findall("^## (.*)", made.note(), re.MULTILINE)
    assert heads == ["Best in the search", "What is searched", "How to go on", "Pictures"]
    board.end([(tmp_path / "solved.png", "Anew.")])
    assert len(get_all_artifact_meta(made.opened.study)) == 1


def test_results_are_in_the_note(made: Made) -> None:
    test = {"score": 0.91, "low": 0.892, "high": 0.927}
    result = {
        "objective": {"name": "acc_ja"},
        "winner": {"trial": 1, "search": 0.875, "validation": 0.903, "test": test},
        "sources": {"ja": {"test": {"score": 0.067, "low": 0.052, "high": 0.083}}},
        "baselines": {"best pair": {"setting": "ja + math_add", "test": {"score": 0.5, "low": 0.4, "high": 0.6}}},
        "trials": {"complete": 3, "pruned": 0, "failed": 0},
    }
    (made.folder / "result.json").write_text(json.dumps(result))
    made.board().end([])
    assert "**Done**" in made.note()
    assert re.search(r"the winner, \[trial 1\]\(\S+numbers=1\): \S+ \S*91\S* on test\.", made.note())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.note().splitlines() if "|" in line]
    assert ["**evolved merge (trial 1)**", "91.0%", "89.2% to 92.7%"] in rows
    assert ["best pair ja + math_add", "50.0%", "40.0% to 60.0%"] in rows


def test_a_result_of_fewer_trials_is_not_told(made: Made) -> None:
    """A study that goes on for longer has no winner yet."""
    result = {"winner": {"trial": 1, "search": 0.5}, "trials": {"complete": 2, "pruned": 0, "failed": 0}}
    (made.folder / "result.json").write_text(json.dumps(result))
    made.board().update()
    assert "**All trials are done**" in made.note() and "evolved" not in made.note()


def test_a_full_disk_does_not_end_the_search(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (made.folder.parent / "artifacts").write_text("a file where the folder should be")
    validated(made, 1)
    made.board().end([])
    assert "optuna-dashboard will not show all" in caplog.text


def test_note_costs_no_more_where_there_are_more_trials(made: Made) -> None:
    def statements() -> int:
        found: list[str] = []
        engine = made.opened.database.engine

        def note(*given: Any) -> None:
            found.append(given[2])

        event.listen(engine, "before_cursor_execute", note)
        made.board().update()
        event.remove(engine, "before_cursor_execute", note)
        return len(found)

    few = [statements(), statements()]
    proposing = proposer("random", made.assembly.space.genes)
    search(made.opened, proposing, lambda *_: Outcome(TrialState.COMPLETE, 0.5, {}), 40)
    assert statements() <= few[1] + 5 < 65
