"""What pictures say in words agrees with what they were given."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from optmerge.recipe import CheckpointNode, Group, Hop, MergeNode, PathNode, Recipe
from optmerge.reports.cost import cost_of, draw_cost, power_of
from optmerge.reports.evolved_parameters import draw_parameters, parameters_of, parameters_of_genome
from optmerge.reports.evolved_path import draw_path
from optmerge.reports.front import HeldOut, pareto_front
from optmerge.reports.gene_importance import draw_importance, importance_of_genes, summed
from optmerge.reports.problem_by_trial import draw_problems_by_trial
from optmerge.reports.search_progress import Outcome, Step, Validated, best_so_far, draw_progress
from optmerge.reports.style import styled
from optmerge.reports.winner import drawings_of
from optmerge.study.slots import DIED, ERROR, WORKER
from optmerge.study.trial_scores import PROBLEMS, SECONDS
from optmerge.tasks import Objective

ACC, BITS = Objective("acc_ja"), Objective("bits", "minimize", share=False)


def outcome(number: int, value: float | None, *, complete: bool = True, feasible: bool = True) -> Outcome:
    return Outcome(number, value, complete, complete and feasible, 10 if complete else 4)


def test_the_best_so_far_counts_the_work_of_all_trials() -> None:
    outcomes = [outcome(0, 0.2), outcome(1, 0.9, complete=False), outcome(2, 0.1), outcome(3, 0.5), outcome(4, 0.5)]
    assert best_so_far(outcomes, ACC) == [Step(0, 10, 0.2), Step(3, 34, 0.5)]
    assert best_so_far(outcomes, BITS) == [Step(0, 10, 0.2), Step(2, 24, 0.1)]


def test_a_trial_that_breaks_a_guard_is_never_the_best_so_far() -> None:
    assert best_so_far([outcome(0, 0.2), outcome(1, 0.9, feasible=False)], ACC) == [Step(0, 10, 0.2)]


def test_progress_tells_beginning_end_and_finalists() -> None:
    outcomes = [outcome(0, 0.25), outcome(1, 0.1, complete=False), outcome(2, 0.5), outcome(3, 0.75)]
    validated = [Validated(2, 0.4, False, False), Validated(3, 0.6, True, True)]
    with styled():
        drawing = draw_progress(outcomes, ACC, validated, {"ja": 0.1, "math": 0.3})
    for text in (
        "4 trials, 1 of them pruned",
        "from 25.0% (trial 0) to 75.0% (trial 3), after 34 of 34",
        "best source, math, scores 30.0%",
        "2 finalists on validation: 40.0% to 60.0%; the winner, trial 3, 60.0%",
    ):
        assert text in drawing.alt
    labels = {text.get_text() for text in drawing.figure.legends[0].get_texts()}
    assert labels == {"pruned", "complete", "best so far", "finalist on validation", "winner on validation"}


def test_progress_without_a_complete_trial_says_so() -> None:
    with styled():
        drawing = draw_progress([outcome(0, None, complete=False)], BITS)
        drawing.figure.canvas.draw()
    assert "No trial has answered every problem yet" in drawing.alt


def test_problems_by_trial_tells_what_was_never_solved_and_what_was_not_asked() -> None:
    nan = np.nan
    matrix = {0: np.array([1, 0, 0, 0.0]), 1: np.array([1, 1, nan, nan]), 5: np.array([1, 1, 0, 1.0])}
    with styled():
        drawing = draw_problems_by_trial(matrix, ACC, 5, {"ja": np.array([1.0, 0, 1, 0])})
        assert drawing is not None
        drawing.figure.canvas.draw()
    assert "3 trials by 4 search problems" in drawing.alt
    assert "1 problem was never solved" in drawing.alt
    assert "(17% of all)" in drawing.alt  # 2 of 12
    assert "Trial 5, the best, solves 2 that no source solves, and fails at 1 that one does" in drawing.alt
    assert draw_problems_by_trial(matrix, BITS, None, {}) is None
    assert draw_problems_by_trial({}, ACC, None, {}) is None


def leaf(name: str) -> CheckpointNode:
    return CheckpointNode(name, f"{name:0<64}")


def merge(**weights: tuple[float, float]) -> MergeNode:
    groups = {
        f"layers.0{i}": Group((f"*{i}*",), {a: {"weight": w[i], "density": 0.5} for a, w in weights.items()})
        for i in range(2)
    }
    sources = {alias: leaf(alias) for alias in weights}
    return MergeNode("dare_ties", sources, "base", "ja", "float32", groups)


def test_parameters_are_told_by_source() -> None:
    with styled():
        drawing = draw_parameters(parameters_of(merge(ja=(1.0, 2.0), math=(0.5, 0.7))), "the winner")
    assert drawing is not None
    assert "weight: ja 1.50 on average (1.00 to 2.00), math 0.60 on average (0.50 to 0.70)" in drawing.alt
    assert "greatest for ja in layers.01" in drawing.alt
    assert "weights add up to 2.10 on average" in drawing.alt
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["density", "weight"]


def test_genes_say_what_a_recipe_would() -> None:
    node = merge(ja=(1.0, 2.0), math=(0.5, 0.7))
    genome = {
        f"{name}/{alias}/{parameter}": value
        for name, group in node.groups.items()
        for alias, values in group.parameters.items()
        for parameter, value in values.items()
    }
    of_genome, of_node = parameters_of_genome("dare_ties", {**genome, "method": "ties"}), parameters_of(node)
    assert (of_genome.groups, of_genome.aliases) == (of_node.groups, of_node.aliases)
    for name, table in of_node.values.items():
        assert of_genome.values[name] == pytest.approx(table)


def test_very_many_groups_are_drawn_without_numbers() -> None:
    genome = {f"layers.{i:03d}/ja/weight": i / 300 for i in range(300)}
    with styled():
        drawing = draw_parameters(parameters_of_genome("linear", genome), "the winner")
        assert drawing is not None
        drawing.figure.canvas.draw()
    assert not drawing.figure.axes[0].texts
    assert drawing.figure.get_size_inches()[1] < 12


def path() -> PathNode:
    hops = (Hop("ja", 0, 1.0), Hop("ja", 1, 0.5), Hop("math", 1, 1.5), Hop("ja", 2, 1.0))
    return PathNode({"ja": leaf("ja"), "math": leaf("math")}, hops, "ja", "ja", "ja", "float32")


def test_a_path_is_told_hop_by_hop() -> None:
    with styled():
        drawing = draw_path(path(), "the winner, trial 7")
    for text in (
        "4 hops over 4 layers (3 of ja, 1 of math)",
        "2 changes of source: ja 0 to 1, math 1, ja 2",
        "Scales from 0.50 to 1.50, on average 1.00",
    ):
        assert text in drawing.alt


def test_a_path_over_a_merge_shows_both() -> None:
    node = path()
    hybrid = PathNode({**node.sources, "math": merge(ja=(1, 2), math=(0, 1))}, node.hops, "ja", "ja", "ja", "float32")
    with styled():
        drawings = drawings_of(Recipe(hybrid), "the winner")
    assert [drawing.name for drawing in drawings] == ["path", "parameters-math"]
    assert "math, a source of the winner" in drawings[1].title


def studied(trials: int, values: Any, genes: int = 12) -> list[tuple[FrozenTrial, float]]:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask()
        genome = [trial.suggest_float(f"layers.{i // 3:02d}/{'abc'[i % 3]}/weight", 0, 1) for i in range(genes)]
        study.tell(trial, values(genome))
    return [(trial, trial.value) for trial in study.trials]


def test_the_gene_that_decides_is_the_most_important() -> None:
    found = importance_of_genes(studied(200, lambda genome: genome[4]), 1.0)
    assert found is not None
    assert next(iter(found.genes)) == "layers.01/b/weight"
    assert found.genes["layers.01/b/weight"] > 0.7
    assert found.above_chance()[0] == "layers.01/b/weight"
    assert len(found.above_chance()) <= 3  # of eleven that mean nothing, one in twenty or so
    assert sum(found.genes.values()) == pytest.approx(1)
    with styled():
        drawing = draw_importance(found)
    assert f"layers.01/b/weight {found.genes['layers.01/b/weight']:.1%}" in drawing.alt
    assert f"{len(found.above_chance())} are above what chance gives" in drawing.alt


def test_of_less_is_better_the_same_gene_is_the_most_important() -> None:
    higher, lower = (
        importance_of_genes(studied(200, lambda genome, sign=sign: sign * genome[4]), sign) for sign in (1.0, -1.0)
    )
    assert higher == lower


def test_of_few_trials_or_equal_ones_nothing_is_said() -> None:
    assert importance_of_genes(studied(19, lambda genome: genome[0]), 1.0) is None
    assert importance_of_genes(studied(30, lambda genome: 0.5), 1.0) is None


def test_importances_add_up_by_the_parts_of_names() -> None:
    sums = summed({"g0/ja/weight": 0.5, "g1/ja/density": 0.3, "g1/math/weight": 0.1, "method": 0.1})
    assert sums["group"] == pytest.approx({"g0": 0.5, "g1": 0.4})
    assert sums["source"] == pytest.approx({"ja": 0.8, "math": 0.1})
    assert sums["parameter"] == pytest.approx({"weight": 0.6, "density": 0.3})
    of_path = summed({"r0/my.model.03/scale": 0.6, "r1/my.model.04/on": 0.4})
    assert of_path["source"] == pytest.approx({"my.model": 1.0})
    assert of_path["group"] == pytest.approx({"r0": 0.6, "r1": 0.4})


def ran(number: int, host: str, start: float, end: float, state: TrialState, problems: int) -> FrozenTrial:
    day = datetime(2026, 1, 1)
    done = state in (TrialState.COMPLETE, TrialState.PRUNED)
    trial = optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.0) if done else None
    trial = trial or optuna.trial.create_trial(state=TrialState.FAIL)
    trial.state, trial.number = state, number
    trial.datetime_start, trial.datetime_complete = day + timedelta(hours=start), day + timedelta(hours=end)
    trial.user_attrs = {PROBLEMS: problems, SECONDS: {"merge": 360.0, "generate": 1800.0}} if done else {ERROR: DIED}
    trial.system_attrs = {WORKER: {"host": host}}
    return trial


def test_cost_adds_up() -> None:
    trials = [
        ran(0, "a", 0, 1, TrialState.COMPLETE, 100),
        ran(1, "a", 0.5, 1.5, TrialState.PRUNED, 40),
        ran(2, "b", 0.25, 1.25, TrialState.COMPLETE, 100),
    ]
    every = [*trials, ran(3, "b", 5, 9, TrialState.FAIL, 0)]
    cost = cost_of(every, trials, problems=100, by_sources=60, power=power_of("cpu"), seconds=4 * 3600)
    assert (cost.complete, cost.pruned, cost.failed, cost.again) == (2, 1, 0, 1)
    assert (cost.answered, cost.unpruned, cost.spared) == (240, 300, 60)
    assert cost.hours == pytest.approx({"merge": 0.3, "generate": 1.5, "score": 0, "other": 1.2})
    assert cost.ending == pytest.approx(1.0)
    assert (cost.at_once, cost.machines) == (3, 2)
    assert cost.worker_hours == pytest.approx(4)
    assert cost.machine_hours == pytest.approx(1.5 + 1 + 1)
    assert cost.elapsed == pytest.approx(1.5)
    assert cost.kilowatt_hours == pytest.approx(3.5 * 0.065)  # a machine's workers share its processor
    with styled():
        alt = draw_cost(cost).alt
    for text in ("300 problems that 3 trials would answer, 240 were answered and 60 (20%) spared", "answered 60"):
        assert text in alt


def test_workers_on_gpus_draw_power_each(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [ran(0, "a", 0, 1, TrialState.COMPLETE, 1), ran(1, "a", 0, 1, TrialState.COMPLETE, 1)]
    power = power_of("cuda:0", 700.0)
    assert cost_of(trials, trials, problems=1, by_sources=0, power=power).kilowatt_hours == pytest.approx(1.4)
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H200, 700.00'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert power_of("cuda").watts == 700.0
    assert "NVIDIA H200" in power_of("auto").because
    assert power_of("cpu").watts == 65.0
    monkeypatch.setenv("PATH", "")
    assert "assumed" in power_of("cuda").because


def test_a_front_tells_the_best_of_each_objective() -> None:
    objectives = [ACC, BITS]
    front = {3: (0.9, 2.0), 8: (0.5, 1.0)}
    held_out = HeldOut(
        {3: {"acc_ja": 0.8, "bits": 2.2}}, {"ja": {"acc_ja": 0.1, "bits": 3.0}}, {}, {"acc_ja": 0.85, "bits": 2.1}
    )
    with styled():
        drawing = pareto_front(objectives, [(0.9, 2.0), (0.5, 1.0), (0.4, 2.5)], front, held_out)
        drawing.figure.canvas.draw()
    for text in (
        "3 trials, 2 on the Pareto front",
        "Best in acc_ja: trial 3 with acc_ja 90.0%, bits 2",
        "Best in bits: trial 8 with acc_ja 50.0%, bits 1",
        "winner on validation: acc_ja 85.0%, bits 2.1",
        "Best sources: acc_ja ja 10.0%",
    ):
        assert text in drawing.alt
    assert len(drawing.figure.axes) == 2
    with styled():
        assert len(pareto_front(objectives, [], {}).figure.axes) == 1
