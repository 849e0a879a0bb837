"""How a search command ends: the winner is chosen, tested, written and registered."""

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from optmerge.commands.assembly import Assembly, Run
from optmerge.commands.publishing import facts_to_publish, leave_card, put_aside
from optmerge.commands.rebuild import write_model
from optmerge.commands.study_folder import BEST, FRONT, REPORT, RESPONSES, RESULT
from optmerge.config import Config
from optmerge.recipe import RECIPE, PathNode, Recipe, load_recipe, node_sha256
from optmerge.study.charter import OpenStudy
from optmerge.study.slots import Ledger, counted, front_of


def finished_result(config: Config, opened: OpenStudy, folder: Path) -> dict[str, Any] | None:
    """The result of a study that has nothing left to do: its budget is spent and its winner is in its folder."""
    if not (folder / BEST / RECIPE).exists() or not list((folder / BEST).glob("*.safetensors")):
        return None
    result = result_that_holds(opened, folder)
    if result is None or result.get("ending") != _settings(config):  # the ending is done again
        return None
    ledger = Ledger(replace(opened.plan, stagnation=config.study.stagnation))
    ledger.update(opened.study.get_trials(deepcopy=False))
    return result if ledger.is_done(config.study.trials) else None


def result_that_holds(opened: OpenStudy, folder: Path) -> dict[str, Any] | None:
    """The contents of a study's result.json, if it is there and of as many trials as there are now."""
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        spent = result["trials"]["complete"] + result["trials"]["pruned"]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
        return None
    return result if spent == len(counted(opened.study.get_trials(deepcopy=False))) else None


def _settings(config: Config) -> dict[str, Any]:
    """The settings that decide how a study ends."""
    study = config.study
    return {"selection": study.selection, "finalists": study.finalists, "baselines": study.baselines}


def finish(run: Run) -> dict[str, Any]:
    """Choose the winner on validation, test it, and leave it in the study's folder and with the tracker.

    Returns:
        The contents of result.json.
    """
    from optmerge.commands.noticeboard import Noticeboard
    from optmerge.reports.findings import Ending, read_responses
    from optmerge.reports.report import write_report
    from optmerge.study.judge import Judge
    from optmerge.study.judged import judged
    from optmerge.study.result import as_json, trial_seconds
    from optmerge.study.touched import touch

    config, task = run.assembly.config, run.assembly.plugins.task
    began = time.monotonic()
    with run.console.status("scoring the finalists") as status:

        def watch(what: str) -> None:
            status.update(f"scoring {what}")
            if not run.console.is_terminal:
                run.console.print(f"scoring {what}", highlight=False)

        responses = run.folder / RESPONSES
        judge = Judge(
            run.study, run.workbench, run.engine, task, watch, responses if config.study.keep_responses else None
        )
        result = _judge(run.assembly, run.opened, judge)
    like = run.assembly.companions
    edited = put_aside(run.folder, run.folder / BEST)
    weights_sha256 = write_model(result.winner.recipe, run.workbench, like, run.folder / BEST, replace=True)
    trials = counted(run.study.get_trials(deepcopy=False))
    seconds = trial_seconds(trials) + time.monotonic() - began
    asked = config.study.problems or len(task.problems("search"))
    document = as_json(result, run.study, weights_sha256, asked, seconds)
    document["ending"] = _settings(config)
    document["objective"] = asdict(task.goal)
    document["task"] = {"name": config.task["name"], **task.facts, **run.assembly.plugins.task_version}
    document |= facts_to_publish(run.assembly, result.winner.recipe)
    space = run.assembly.space
    sources = {space.source(alias).sha256: node_sha256(node) for alias, node in space.sources.items()}
    answered = judged(run.study, result.winner.trial, trials, sources)
    tests = run.assembly.problem_sets()["test"].sha256
    document["models_on_test"] = touch(Path(config.study.folder), tests, answered.tested, f"study {config.study.name}")
    if isinstance(result.winner.recipe.root, PathNode):
        document["winner"]["agreement"] = _agreement(run, result.winner.recipe)
    if result.front:
        document["objectives"] = [asdict(objective) for objective in task.objectives]
        _keep_front(result.front, run.folder)
    told = Ending(
        document, load_recipe(run.folder / BEST / RECIPE), task.problems("test"), read_responses(responses, document)
    )
    written = write_report(run.opened, run.folder / REPORT, told)
    if line := leave_card(document, result.winner.recipe, run.folder, run.folder / BEST, edited):
        run.console.print(line, highlight=False, markup=False, soft_wrap=True)
    for trial in run.study.get_trials(deepcopy=False):  # what others ended while this process was busy
        if trial.state.is_finished():
            run.tracker.trial(trial)
    registered = run.tracker.finish(document, run.folder / BEST, answered)
    if registered is not None:
        document["registered"] = registered
    # Written last: a study with a result is one that has nothing left to do.
    write_atomically(run.folder / RESULT, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    shown = [(figure.path, figure.alt) for figure in written.figures]
    Noticeboard(run.assembly, run.opened, run.folder).end(shown)
    return document


def _keep_front(front: Any, folder: Path) -> None:
    """A recipe for every compromise, so that another than the winner can be made."""
    recipes = folder / FRONT
    shutil.rmtree(recipes, ignore_errors=True)
    recipes.mkdir()
    for one in front:
        one.recipe.save(recipes / f"trial-{one.trial}.yaml")


def _agreement(run: Run, recipe: Recipe) -> dict[str, Any]:
    """How well the winner's folder, loaded as anyone would load it, agrees with the path that was searched."""
    import torch

    from optmerge.flow import PathCandidate, agreement

    candidate = run.workbench.candidate(recipe)
    assert isinstance(candidate, PathCandidate)
    try:
        with run.console.status("loading the winner and holding it against its path"):
            found = agreement(run.folder / BEST, candidate, getattr(torch, candidate.node.dtype))
    except (OSError, RuntimeError, ValueError) as error:  # too little memory, above all: the search is not lost for it
        return {"holds": False, "summary": f"it could not be loaded beside it: {str(error).splitlines()[0]}"}
    known = {"logits": found.logits if math.isfinite(found.logits) else None}
    return asdict(found) | known | {"holds": found.holds, "summary": found.summary}


def _judge(assembly: Assembly, opened: OpenStudy, judge: Any) -> Any:
    from optmerge.study.result import (
        Compromise,
        Result,
        choose_winner,
        compromises,
        judge_baselines,
        judge_front,
        judge_sources,
    )

    config, space = assembly.config, assembly.space
    task = assembly.plugins.task
    baselines = space.baselines() if config.study.baselines else {}
    if not task.problems("validation"):
        baselines = {name: settings for name, settings in baselines.items() if len(settings) == 1}
    validate = config.study.selection == "validation"
    front: list[Compromise] = []
    if len(task.objectives) > 1:
        best = front_of(counted(opened.study.get_trials(deepcopy=False)), opened.plan)
        finalists = compromises(best, opened.plan, task.goal, config.study.finalists) if validate else []
        front = judge_front(judge, space, task.objectives, best, finalists)
    winner = choose_winner(
        opened.study, judge, space, task.goal, config.study.finalists, by_validation=validate, front=front
    )
    sources = judge_sources(judge, {alias: space.source(alias) for alias in sorted(space.sources)})
    edits = space.ablations(winner.recipe)
    ablations = {name: judge.tested(recipe, f"winner, {name}") for name, recipe in edits.items()}
    naive = judge_baselines(judge, baselines)
    others = _on_validation(judge, space, baselines, naive) if front and validate else {}
    return Result(winner, sources, naive, ablations, front, others)


def _on_validation(judge: Any, space: Any, baselines: Any, naive: Any) -> dict[str, Mapping[str, float]]:
    """What sources and naive merges score there, to be compared with compromises of which few are ever tested."""
    recipes = {f"source {alias}": space.source(alias) for alias in sorted(space.sources)}
    recipes |= {name: baselines[name][found.setting] for name, found in naive.items()}
    means = {}
    for name, recipe in recipes.items():
        judge.scores(recipe, "validation", name)
        means[name] = judge.means(recipe, "validation")
    return means


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
