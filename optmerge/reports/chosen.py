"""Which pictures a study's report has, and what each is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optmerge.reports.cost import Cost, draw_cost
from optmerge.reports.drawing import Drawing
from optmerge.reports.evolved_parameters import draw_parameters, parameters_of_genome
from optmerge.reports.findings import Findings, Scores
from optmerge.reports.front import held_out_of, pareto_front, points_of
from optmerge.reports.gene_importance import draw_importance, importance_of_genes
from optmerge.reports.problem_by_trial import draw_problems_by_trial
from optmerge.reports.results import ABLATION, SOURCE, WINNER, draw_tested, tested_models
from optmerge.reports.search_progress import Outcome, Validated, draw_progress
from optmerge.reports.solved_problems import Model, Solved, draw_solved, who_solves
from optmerge.reports.winner import drawings_of
from optmerge.space.searched import METHOD
from optmerge.study.slots import front_of
from optmerge.study.trial_scores import PROBLEMS
from optmerge.tasks import SORTING, Objective

_OTHER_METRICS = 1  # beside the goal, for who solves what


@dataclass(frozen=True)
class Compared:
    """Who solves which problems, by one score.

    Attributes:
        metric: Name of the score.
        what: Which problems.
        solved: Who solves them.
        drawing: The picture of it.
    """

    metric: str
    what: str
    solved: Solved
    drawing: Drawing


@dataclass(frozen=True)
class Chosen:
    """The pictures of a report.

    Attributes:
        drawings: All, in the order of the page.
        compared: Those of who solves what; the goal's first.
        evolved: Names of those of the winner.
    """

    drawings: Sequence[Drawing]
    compared: Sequence[Compared]
    evolved: Sequence[str]


def chosen_drawings(findings: Findings, cost: Cost) -> Chosen:
    """Draw all that a study has something to show for; in the context `styled`."""
    if not any(trial.state.is_finished() for trial in findings.every):
        return Chosen((), (), ())
    compared = list(_comparisons(findings))
    evolved = _evolved(findings)
    drawings = [
        *([draw_tested(tested_models(findings.result), findings.goal)] if findings.result is not None else []),
        _progress(findings),
        *_some(_problems(findings)),
        *(one.drawing for one in compared),
        *evolved,
        *_some(_front(findings)),
        *_some(_importance(findings)),
        draw_cost(cost),
    ]
    return Chosen(drawings, compared, [drawing.name for drawing in evolved])


def _some(drawing: Drawing | None) -> list[Drawing]:
    return [] if drawing is None else [drawing]


def _progress(findings: Findings) -> Drawing:
    plan, values = findings.opened.plan, {trial.number: value for trial, value in findings.complete}
    outcomes = []
    for trial in findings.trials:
        scores = findings.matrix.get(trial.number)
        mean = None if scores is None or np.isnan(scores).all() else float(np.nanmean(scores))
        complete = trial.number in values
        outcomes.append(
            Outcome(
                trial.number,
                values.get(trial.number, mean),
                complete,
                complete and plan.fitness(trial) is not None,
                int(trial.user_attrs.get(PROBLEMS, 0)),
            )
        )
    winner = findings.result["winner"]["trial"] if findings.result is not None else None
    validated = [
        Validated(one.trial.number, one.mean, one.answered_all, one.trial.number == winner)
        for one in findings.finalists
    ]
    sources = {alias: float(np.nanmean(scores)) for alias, scores in findings.sources_on_search().items()}
    return draw_progress(outcomes, findings.goal, validated, sources)


def _problems(findings: Findings) -> Drawing | None:
    best = None if findings.best is None else findings.best[0].number
    matrix = {trial.number: s for trial in findings.trials if (s := findings.matrix.get(trial.number)) is not None}
    return draw_problems_by_trial(matrix, findings.goal, best, findings.sources_on_search())


def _comparisons(findings: Findings) -> Iterator[Compared]:
    """By each objective, or by the goal and another score, where merged model and sources have it."""
    finished = findings.result is not None
    merged = _merged(findings)
    by = {goal.name: goal for goal in findings.objectives}
    parts = {name.partition("/")[0]: ~np.isnan(scores) for name, scores in merged.items() if "/" in name}
    others = [name for name in sorted(merged) if name not in (*by, SORTING) and "/" not in name]
    for metric in [*by, *(others[:_OTHER_METRICS] if len(by) == 1 else ())]:
        models = [
            Model(name, kind, scores)
            for name, kind, of in _judged(findings)
            if (scores := of.get(metric)) is not None and not np.isnan(scores).all()
        ]
        if not models or models[0].kind != WINNER or not any(model.kind == SOURCE for model in models):
            continue
        known = np.concatenate([model.scores[~np.isnan(model.scores)] for model in models])
        if metric not in by and not ((known >= 0) & (known <= 1)).all():
            continue
        what = "test problems" if finished else "search problems"
        of_parts = parts if metric == findings.goal.name else {}
        solved = who_solves(models, by.get(metric, Objective(metric)), of_parts)
        yield Compared(metric, what, solved, draw_solved(solved, metric, what))


def _merged(findings: Findings) -> Mapping[str, Scores]:
    """Every score of the merged model: of the winner on test, or of the best so far on the search problems."""
    return next((scores for _, kind, scores in _judged(findings) if kind == WINNER), {})


def _judged(findings: Findings) -> list[tuple[str, str, Mapping[str, Scores]]]:
    """Models with their kind and all their scores, the merged one first."""
    if findings.result is not None:
        return [
            (model.name, model.kind, findings.final_scores("test", model.recipe_sha256))
            for model in tested_models(findings.result)
            if model.kind != ABLATION
        ]
    best = findings.best
    return [
        *([(findings.best_name, WINNER, findings.scores_of(best[0]))] if best is not None else []),
        *((alias, SOURCE, scores) for alias, scores in findings.every_score_of_sources().items()),
    ]


def _evolved(findings: Findings) -> list[Drawing]:
    """What the winner's recipe says; of a search that goes on, what the best genome so far says by its genes' names."""
    if findings.best is None:
        return []
    trial = findings.best[0]
    if findings.ending.recipe is not None:
        return drawings_of(findings.ending.recipe, f"the winner, trial {trial.number}")
    if findings.config.get("space", {}).get("path") is not None:
        return []  # which slots are hops takes the space to say
    method = str(trial.params.get(METHOD, findings.config.get("method", {}).get("name", "merge")))
    whose = f"the best so far, trial {trial.number}" if findings.result is None else f"the winner, trial {trial.number}"
    return _some(draw_parameters(parameters_of_genome(method, trial.params), whose))


def _front(findings: Findings) -> Drawing | None:
    objectives = findings.objectives
    if len(objectives) < 2:
        return None
    front = {trial.number: trial.values for trial in front_of(findings.trials, findings.opened.plan)}
    held_out = held_out_of(findings.result) if findings.result is not None else None
    return pareto_front(objectives, points_of(findings.trials), front, held_out)


def _importance(findings: Findings) -> Drawing | None:
    found = importance_of_genes(findings.complete, findings.goal.sign)
    return None if found is None else draw_importance(found)
