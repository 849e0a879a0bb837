"""A small study made by hand, finished or not, whose sources have Japanese names."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from study.studies import Genome, begin, connected, opened_anew, proposer, search

from optmerge.reports.findings import Ending
from optmerge.reports.report import Report as Written
from optmerge.reports.report import write_report
from optmerge.space import Gene
from optmerge.study.charter import CONFIG, GOAL, OpenStudy
from optmerge.study.ease import SOURCES
from optmerge.study.judge import EVALUATION
from optmerge.study.slots import Ledger, Slot
from optmerge.study.trial_scores import PROBLEMS, RECIPE, SCORES, SECONDS, encode
from optmerge.study.worker import Outcome, Report
from optmerge.tasks import Objective, Problem

optuna.logging.set_verbosity(optuna.logging.WARNING)

GENES = [Gene(f"{group}/{alias}/weight") for group in ("layers.00", "layers.01") for alias in ("日本語", "math")]
ACC = Objective("acc_ja")
QUESTIONS = ["りんごが<3>個あります。", "2 + 2?", "三足す四は?", "5 & 6?"]
TRIALS, POPULATION = 24, 6


def sha(name: str) -> str:
    """A recipe's hash, by hand."""
    return f"{name:0<64}"


def evaluate(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
    """Four problems, the later the harder; every sixth trial is stopped after two. Only one gene matters."""
    number = slot.generation * POPULATION + slot.member
    skill = 4 * float(genome["layers.01/math/weight"])
    scores = np.array([float(skill > hardness) for hardness in range(4)])
    stopped = slot.member == 5
    if stopped:
        scores[2:] = np.nan
    report(2, float(scores[:2].mean()))
    left = {
        SCORES: {"acc_ja": encode(scores), "acc": encode(np.where(np.isnan(scores), np.nan, 1.0))},
        PROBLEMS: 2 if stopped else 4,
        RECIPE: sha(f"{number:02d}"),
        SECONDS: {"merge": 1.0, "generate": 3.0, "score": 0.5},
    }
    return Outcome(TrialState.PRUNED if stopped else TrialState.COMPLETE, None if stopped else scores.mean(), left)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of the study before its ending."""
    path = tmp_path_factory.mktemp("study") / "studies.db"
    with connected(f"sqlite:///{path}") as database:
        proposing = proposer("random", GENES)
        opened = begin(database, proposing, name="合成", population=POPULATION, lag=0)
        opened.study.set_user_attr(GOAL, asdict(ACC))
        config = {"models": {"sources": {"日本語": {}, "math": {}}, "base": None}, "method": {"name": "linear"}}
        opened.study.set_user_attr(CONFIG, config)
        scores = {"日本語": [1, 0, 0, 0], "math": [0, 0, 0, 1]}
        kept = {alias: {"acc_ja": encode(np.array(found, float))} for alias, found in scores.items()}
        opened.study.set_user_attr(SOURCES, kept)
        search(opened, proposing, evaluate, TRIALS)
    return path


@pytest.fixture
def opened(made: Path, tmp_path: Path) -> Iterator[OpenStudy]:
    """The study before its ending, in a database of the test's own."""
    shutil.copy(made, tmp_path / "studies.db")
    with opened_anew(f"sqlite:///{tmp_path / 'studies.db'}", "合成") as study:
        yield study


@pytest.fixture(scope="session")
def finished(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, FrozenTrial]:
    """The report of the study after its ending, and the winner's trial; look at them only."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(made, folder / "studies.db")
    with opened_anew(f"sqlite:///{folder / 'studies.db'}", "合成") as study:
        return write_report(study, folder / "report", end(study)), study.study.best_trial


@pytest.fixture
def ending(opened: OpenStudy) -> Ending:
    """What the study's folder says of its end, which its database knows of too."""
    return end(opened)


def end(opened: OpenStudy) -> Ending:
    """Write an ending into a study's database, and say what its folder would."""
    best = opened.study.best_trial
    winner = best.user_attrs[RECIPE]
    judged = {
        winner: [1, 1, 1, 0],  # one that 日本語 solves too, two new ones, and the last, which math solves, lost
        sha("ja"): [1, 0, 0, 0],
        sha("math"): [0, 0, 0, 1],
        sha("average"): [0, 1, 0, 0],
    }
    for sha256, scores in judged.items():
        encoded = {"acc_ja": encode(np.array(scores, float))}
        opened.study.set_user_attr(f"{EVALUATION}:test:{sha256}", encoded)
    other = next(t for t in opened.study.trials if t.value is not None and t.number != best.number)
    # The last problem is of a guard.
    for trial, scores in ((best, [1, 1, 1, 0, 0, np.nan]), (other, [1, 0, *[np.nan] * 4])):
        encoded = {"acc_ja": encode(np.array(scores, float))}
        opened.study.set_user_attr(f"{EVALUATION}:validation:{trial.user_attrs[RECIPE]}", encoded)

    def tested(score: float, name: str) -> dict[str, Any]:
        interval = {"score": score, "low": score - 0.1, "high": score + 0.1}
        return {"test": interval, "means": {"acc_ja": score}, "recipe_sha256": sha(name)}

    result = {
        "study": "合成",
        "objective": asdict(ACC),
        "winner": {
            **tested(0.75, ""),
            "trial": best.number,
            "recipe_sha256": winner,
            "weights_sha256": sha("w"),
            "search": best.value,
            "validation": 0.6,
            "selection": {"finalists": 2, "not_separated": []},
            "broken": {"chat": 0.03},
        },
        "sources": {"日本語": tested(0.25, "ja"), "math": tested(0.25, "math")},
        "baselines": {"average": {"setting": "", **tested(0.25, "average")}},
        "trials": {"complete": 20, "pruned": 4, "failed": 0},
        "problem_evaluations": 96,
        "problem_evaluations_unpruned": 96,
        "seconds": 7200.0,
    }
    problems = [Problem(f"p{i}", question, str(i)) for i, question in enumerate(QUESTIONS)]
    responses = {winner: {"p1": "答えは4です。"}, sha("ja"): {"p1": "わからない"}}
    return Ending(result, None, problems, responses)
