"""The page of a report, as one file of HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from optmerge.phrases import listed, plural
from optmerge.reports.chosen import Chosen
from optmerge.reports.cost import Cost, duration
from optmerge.reports.drawing import shown_difference
from optmerge.reports.examples import Block
from optmerge.reports.findings import Findings
from optmerge.reports.gene_importance import LEAST
from optmerge.reports.results import (
    BASELINE,
    SOURCE,
    Seen,
    Tested,
    placed_finalists,
    shown_range,
    tested_models,
    tested_table,
    weighing,
    winners_gap,
)
from optmerge.reports.table import models_on_test, told_from_rivals
from optmerge.study.slots import front_of
from optmerge.tasks import SORTING, Objective

GENERATOR = '<meta name="generator" content="optmerge">'  # by it a report is known
_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Picture:
    """A picture as the page has it.

    Attributes:
        name: Which it is.
        title: A line over it.
        alt: What it shows.
        caption: How it is to be read.
        uri: The picture itself, as a data URI.
        width: In the page's pixels.
        height: The same.
    """

    name: str
    title: str
    alt: str
    caption: str
    uri: str
    width: int
    height: int


def page_of(
    findings: Findings,
    pictures: Mapping[str, Picture],
    chosen: Chosen,
    cost: Cost,
    examples: Sequence[Block],
) -> str:
    """The page.

    Args:
        findings: What is known of the study.
        pictures: By name.
        chosen: Which they are.
        cost: What the search has cost.
        examples: Tables of problems.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    goal, result = findings.goal, findings.result
    seen = winners_gap(findings) if result is not None else []
    models = tested_models(result) if result is not None else []
    return environment.get_template(_TEMPLATE).render(
        title=f"{findings.name}: {'report' if result is not None else 'report so far'}",
        goal=goal,
        summary=_summary(findings, models),
        so_far=_so_far(findings),
        facts=_facts(findings, cost),
        figures=pictures,
        tested=tested_table(models, goal, findings.objectives) if models else [],
        weighing=weighing(goal, findings.objectives, findings.config.get("task", {})),
        test_problems=next((str(one.problems) for one in seen if one.split == "test"), "the"),
        notes=_notes(findings),
        gap_title=f"Scores of the {findings.best_name}",
        gap=[(s.split, f"{s.problems}", goal.shown(s.score.score), shown_range(s.score, goal), s.fallen) for s in seen],
        gap_note=_gap_note(findings, seen),
        finalists=[tuple(vars(one).values()) for one in placed_finalists(findings)],
        finalists_note=_finalists_note(findings),
        solved=[one.drawing.name for one in chosen.compared],
        examples=examples,
        examples_note=_examples_note(findings, chosen, examples),
        evolved=chosen.evolved,
        front=_front(findings),
        no_importance=f"That takes {LEAST} complete trials of different scores; there are {len(findings.complete)}.",
        cost=_cost(cost),
        energy=_energy(cost),
        footer=f"Written by optmerge on {datetime.now():%Y-%m-%d at %H:%M} from the database of the study.",
    )


def _summary(findings: Findings, models: Sequence[Tested]) -> str:
    goal, result = findings.goal, findings.result
    if result is None:
        done = f"{len(findings.trials)} of {findings.budget} trials are done"
        if findings.best is None:
            return f"{done}; none has answered every problem yet."
        trial, value = findings.best
        scores = f"scores {goal.shown(value)} ({goal.name}) on the search problems"
        return f"{done}; the best so far, trial {trial.number}, {scores}."
    winner = models[0]
    text = (
        f"After {plural(len(findings.trials), 'trial')} the {winner.name} scores {goal.shown(winner.test.score)} "
        f"({goal.name}; 95% interval {shown_range(winner.test, goal)}) on the test problems"
    )
    for kind, what in ((SOURCE, "best source"), (BASELINE, "best naive merge")):
        others = [model for model in models if model.kind == kind]
        if others:
            best = max(others, key=lambda model: goal.sign * model.test.score)
            text += f"; the {what}, {best.name}, {goal.shown(best.test.score)}"
    return f"{text}."


def _so_far(findings: Findings) -> str:
    if findings.result is not None:
        return ""
    work = f"{plural(findings.at_work, 'trial')} running" if findings.at_work else "nothing runs"
    what = "study" if len(findings.trials) >= findings.budget else "search"
    return (
        f"The {what} has not ended ({len(findings.trials)} of {findings.budget} trials, {work}): no model has been "
        "scored on validation and test problems, and the scores below are those of the search, which flatter the best."
    )


def _facts(findings: Findings, cost: Cost) -> list[tuple[str, str]]:
    config, result = findings.config, findings.result
    models, space = config.get("models", {}), config.get("space", {})
    base = models.get("base")
    sources = [f"{alias} (base)" if alias == base else alias for alias in sorted(models.get("sources", {}))]
    genes = len(findings.trials[0].params) if findings.trials else 0
    path = space.get("path") is not None
    method = "paths over layers" if path else config.get("method", {}).get("name")
    facts: list[tuple[str, Any]] = [
        ("state", f"{findings.state}, {len(findings.trials)} of {findings.budget} trials"),
        ("searched for", ", ".join(goal.name for goal in findings.objectives)),
        ("sources", listed(sources, 20) if sources else None),
        ("search space", f"{method or 'a merge'}, {genes} genes"),
        ("sampler", config.get("sampler", {}).get("name")),
        ("pruner", findings.opened.pruner),
        ("seed", config.get("study", {}).get("seed")),
        (
            "time, problems",
            f"{duration(cost.worker_hours)} of work, {cost.answered + cost.answered_by_sources:,} answered",
        ),
    ]
    if result is not None:
        facts += [
            ("recipe", result["winner"]["recipe_sha256"]),
            ("weights", result["winner"]["weights_sha256"]),
        ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _notes(findings: Findings) -> list[str]:
    result = findings.result
    if result is None:
        return []
    winner, notes = result["winner"], []
    notes += [
        f"No trial kept the guard {name}: the winner is {below:.4g} below its floor."
        for name, below in winner.get("broken", {}).items()
    ]
    if sure := told_from_rivals(result) + models_on_test(result):
        notes.append(sure.strip())
    if "agreement" in winner:
        shown = findings.goal.shown(winner["path_test"]["score"])
        notes.append(
            f"The winner's folder was loaded and held against its path: {winner['agreement']['summary']}; run over the "
            f"sources' layers the path scores {shown} on test."
        )
    told = {findings.goal.name, SORTING, *(goal.name for goal in findings.objectives)}  # in the table
    others = {name: mean for name, mean in winner.get("means", {}).items() if name not in told}
    if others:
        shown = ", ".join(f"{name} {mean:.4g}" for name, mean in sorted(others.items()))
        notes.append(f"The winner's other means on test: {shown}.")
    return notes


def _gap_note(findings: Findings, seen: Sequence[Seen]) -> str:
    goal, of = findings.goal, {one.split: one for one in seen}
    if "search" not in of or "test" not in of:
        return ""
    gap = goal.sign * (of["search"].score.score - of["test"].score.score)
    how_far = shown_difference(abs(gap), share=goal.share).lstrip("+")
    if gap <= 0:
        text = (
            f"Here the winner does not score worse on test than in the search, but {how_far} better"
            if gap
            else ("Here the winner scores the same on test as in the search")
        )
    else:
        text = f"Here the winner scores {how_far} worse on test than in the search"
    return f"{text}. The splits are different problems, so some of a difference may be theirs."


def _finalists_note(findings: Findings) -> str:
    goal, values = findings.goal, {trial.number: value for trial, value in findings.complete}
    whole = [one for one in findings.finalists if one.answered_all]
    if len(whole) < 2:
        return ""
    before, after = np.mean([values[one.trial.number] for one in whole]), np.mean([one.mean for one in whole])
    return (
        f"The {len(whole)} finalists that answered all validation problems score {goal.shown(float(before))} on "
        f"average in the search and {goal.shown(float(after))} on validation."
    )


def _examples_note(findings: Findings, chosen: Chosen, examples: Sequence[Block]) -> str:
    if findings.result is None:
        return ""
    if not chosen.compared:
        return (
            "Which problems each model solves is not known of this study: its result was written by an earlier "
            "version. Remove result.json and run the search command again; what was scored is not scored again."
        )
    if not findings.ending.problems:
        return "The questions are not where the study says they are; task.test.path=FILE says where they are now."
    if examples and not findings.ending.responses:
        return "What the models answered was not kept; study.keep_responses=true keeps it."
    return ""


def _front(findings: Findings) -> dict[str, Any]:
    objectives: Sequence[Objective] = findings.objectives
    result, plan = findings.result, findings.opened.plan
    winner = result["winner"]["trial"] if result is not None else None
    validated = {
        one["trial"]: one["validation"] for one in (result or {}).get("front", ()) if one.get("validation") is not None
    }
    trials = sorted(front_of(findings.trials, plan), key=lambda trial: -objectives[0].sign * trial.values[0])
    rows = []
    for trial in trials:
        on_search = [goal.shown(value) for goal, value in zip(objectives, trial.values, strict=True)]
        held = validated.get(trial.number)
        mark = " (winner)" if trial.number == winner else ""
        cells = [goal.shown(held[goal.name]) if held else "" for goal in objectives]
        rows.append([f"{trial.number}{mark}", *on_search, *(cells if validated else [])])
    head = ["trial", *(f"{goal.name}, search" for goal in objectives)]
    head += [f"{goal.name}, validation" for goal in objectives] if validated else []
    return {"head": head, "rows": rows, "marked": [i for i, trial in enumerate(trials) if trial.number == winner]}


def _cost(cost: Cost) -> list[tuple[str, str]]:
    share = f" ({cost.spared / cost.unpruned:.0%})" if cost.unpruned else ""
    return [
        ("trials complete", f"{cost.complete:,}"),
        ("trials pruned", f"{cost.pruned:,}"),
        ("trials failed", f"{cost.failed:,}"),
        ("trials run again, as their worker died or left", f"{cost.again:,}"),
        ("problems answered by trials", f"{cost.answered:,}"),
        ("problems without pruning", f"{cost.unpruned:,}"),
        ("problems spared", f"{cost.spared:,}{share}"),
        ("problems answered by sources beforehand", f"{cost.answered_by_sources:,}"),
        *(
            (f"time to {phase}" if phase != "other" else "other time of trials", duration(h))
            for phase, h in cost.hours.items()
        ),
        ("time of the ending", duration(cost.ending)),
        ("time of all workers", duration(cost.worker_hours)),
        ("from the first trial to the last, with pauses", duration(cost.elapsed)),
        ("most trials at once, on machines", f"{cost.at_once} on {cost.machines}"),
    ]


def _energy(cost: Cost) -> str:
    hours = cost.worker_hours if cost.power.of_workers else cost.machine_hours
    amount = cost.kilowatt_hours
    shown = f"{amount:,.1f} kWh" if amount >= 1 else f"{1000 * amount:,.1f} Wh"
    whose = "GPUs" if cost.power.of_workers else "machines"
    return (
        f"Estimated energy: {shown}, which is {duration(hours)} of {whose} at work times {cost.power.watts:g} W "
        f"({cost.power.because}). It is an estimate: nothing was measured, and what idles, cools or trained the "
        "sources is not in it."
    )
