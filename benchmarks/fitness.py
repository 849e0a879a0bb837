"""What pruning saves and costs: racing beside no pruning and Optuna's MedianPruner and WilcoxonPruner.

    python benchmarks/fitness.py [--seeds 0 1 2 3 4] [--trials 250] [--pruners racing none median wilcoxon]

Searches the demo's space on the demo's models, all pruners with the same seeds and from the same first generation.
Afterwards the best trial so far is scored on the test problems whenever it changed, and every trial that was beaten
answers the rest of its problems, to see whether it was as good as those that survived. Counted are all problems that
were answered in the search, those of the sources for stratifying included. What was measured stays: a second call adds
to it. Seconds are those of the processor, so that other work on the machine matters less. About three minutes a
search. Writes benchmarks/fitness/.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from optmerge.commands.assembly import assemble, find_plugins, make_sources
from optmerge.commands.search import quiet_libraries, start_engine
from optmerge.config import compose_config
from optmerge.study.charter import found_study
from optmerge.study.ease import ease_of_problems, scores_of_sources
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.objective import Objective, Pruner
from optmerge.study.pruners import none, racing
from optmerge.study.slots import Ledger, Plan, counted
from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import PROBLEMS, SCORES, FinishedTrial, decode
from optmerge.study.worker import work

OUT = Path(__file__).parent / "fitness"
PRUNERS = ("racing", "none", "median", "wilcoxon")
BATCH = 40  # problems, for all

Scores = NDArray[np.float64]
console = Console(width=None if sys.stdout.isatty() else 140)


@dataclass
class Optunas:
    """A pruner of Optuna's, asked after every batch.

    It is told of a trial as Optuna would tell it: of the mean so far for MedianPruner, of every problem's score for
    WilcoxonPruner. Its trials are those of a study in memory, which is told how each of ours ended.
    """

    pruner: optuna.pruners.BasePruner
    each_problem: bool
    shadow: optuna.Study = field(init=False)
    current: optuna.Trial | None = None
    scores: Scores | None = None

    def __post_init__(self) -> None:
        self.shadow = optuna.create_study(direction="maximize", pruner=self.pruner)

    def batch_sizes(self, problems: int) -> Sequence[int]:
        self._end(beaten=False)
        count = max(1, round(problems / BATCH))
        return [problems // count + (i < problems % count) for i in range(count)]

    def reference(self, survivors: Sequence[FinishedTrial], population: int) -> FinishedTrial | None:
        return survivors[0] if survivors else None

    def is_beaten(self, scores: Scores, reference: Scores, look: int) -> bool:
        if look == 1:
            self.current = self.shadow.ask()
        assert self.current is not None
        seen = ~np.isnan(scores)
        if self.each_problem:
            known = np.zeros(len(scores), dtype=bool) if self.scores is None else ~np.isnan(self.scores)
            for problem in np.flatnonzero(seen & ~known):
                self.current.report(float(scores[problem]), step=int(problem))
        else:
            self.current.report(float(scores[seen].mean()), step=look)
        self.scores = scores.copy()
        beaten = bool(seen.sum() < len(scores) and self.current.should_prune())
        if beaten:
            self._end(beaten=True)
        return beaten

    def _end(self, *, beaten: bool) -> None:
        if self.current is not None and self.scores is not None:
            if beaten:
                self.shadow.tell(self.current, state=TrialState.PRUNED)
            else:
                self.shadow.tell(self.current, float(np.nanmean(self.scores)))
        self.current = self.scores = None

    def estimate(self, scores: Scores, reference: Scores) -> tuple[float, float]:
        return float(np.nanmean(scores)), 0.0


def pruner_of(name: str) -> Pruner:
    """The pruner of that name, as its users would have it."""
    if name == "racing":
        return racing.build(racing.Options(batch=BATCH))
    if name == "none":
        return none.build(none.Options())
    if name == "median":
        return Optunas(optuna.pruners.MedianPruner(n_startup_trials=11), each_problem=False)
    return Optunas(optuna.pruners.WilcoxonPruner(n_startup_steps=BATCH), each_problem=True)


def measure(name: str, seed: int, trials: int, zoo: str) -> dict[str, Any]:
    """One search: after how many answers and seconds the best trial scored how much on test, and who was beaten."""
    config = compose_config([f"study.seed={seed}", f"models.folder={zoo}/seed-{seed}", "tracking=none"])
    plugins = find_plugins(config)
    make_sources(config, console.print, trained=True)
    assembly = assemble(config, plugins, lambda text: None)
    engine, bench = start_engine(assembly, lambda text: None)
    task, space, pruner = plugins.task, assembly.space, pruner_of(name)
    database = open_storage("sqlite://")
    proposer = plugins.sampler.proposer(space.genes, seed)
    plan = Plan(*proposer.arrangement(1))
    opened = found_study(database, "measured", identity={}, config={}, plan=plan, starts=[])
    database.set_control(opened.study_id, trials=trials)
    asked_of_sources, ease = 0, None
    began = time.process_time()
    if name == "racing":
        sources = {alias: space.source(alias) for alias in sorted(space.sources)}
        ease = ease_of_problems(scores_of_sources(opened, sources, bench, engine, task, lambda alias: None), task)
        asked_of_sources = len(sources) * len(task.problems("search"))
    objective = Objective(space, bench, engine, task, pruner, seed, ease=ease)
    ended: list[tuple[FrozenTrial, float]] = []
    for trial in work(opened.study, database, opened.plan, proposer, objective):
        ended.append((trial, time.process_time() - began))

    def score(trial: FrozenTrial, split: str) -> float:
        evaluation, problems = Evaluation(), task.problems(split)  # type: ignore[arg-type]
        engine.mount(bench.candidate(space.decode(trial.params)))
        answer(engine, task, problems, range(len(problems)), evaluation)
        return evaluation.mean(task.objectives[0].name)

    curve, best, answered = [], -1.0, asked_of_sources
    for trial, seconds in ended:
        answered += trial.user_attrs[PROBLEMS]
        if trial.state == TrialState.COMPLETE and (trial.value or 0.0) > best:
            best = trial.value or 0.0
            curve.append({"answered": answered, "seconds": seconds, "test": score(trial, "test")})
    curve.append({"answered": answered, "seconds": ended[-1][1], "test": curve[-1]["test"]})
    beaten, good_beaten, good = judge_the_beaten([trial for trial, _ in ended], opened.plan, task, score)
    return {
        "pruner": name,
        "seed": seed,
        "trials": trials,
        "curve": curve,
        "beaten": beaten,
        "good": good,
        "good_beaten": good_beaten,
    }


def judge_the_beaten(trials: Sequence[FrozenTrial], plan: Plan, task: Any, score: Any) -> tuple[int, int, int]:
    """How many were beaten; how many of those were good; and how many were good at all.

    Good is what is, over all problems, at least as fit as the middle of the last closed generation's survivors.
    """
    ledger = Ledger(plan).update(trials)
    racer = racing.build(racing.Options())
    beaten = good_beaten = good = 0
    for trial in counted(trials):
        generation = trial.system_attrs["optmerge:slot"][0]
        if generation == 0 or trial.state == TrialState.FAIL:
            continue
        survivors = [
            FinishedTrial(one.number, one.value, one.user_attrs[SCORES][task.objectives[0].name], 1.0)
            for one in ledger.generation(generation - 1)
            if one.state == TrialState.COMPLETE and one.value is not None
        ]
        rival = racer.reference(survivors, plan.population)
        if rival is None:
            continue
        fitness = score(trial, "search") if trial.state == TrialState.PRUNED else float(trial.value or 0.0)
        is_good = fitness >= float(decode(rival.encoded).mean())
        beaten += trial.state == TrialState.PRUNED
        good += is_good
        good_beaten += is_good and trial.state == TrialState.PRUNED
    return beaten, good_beaten, good


def reached(run: Mapping[str, Any], target: float, what: str) -> float:
    """Answers or seconds until the best trial scored so much on test; infinite if it never did."""
    return next((point[what] for point in run["curve"] if point["test"] >= target), float("inf"))


def show(runs: Sequence[Mapping[str, Any]], target: float) -> None:
    """Print the table."""
    table = Table(
        "pruner",
        f"answers to {target:.0%} on test",
        "CPU seconds to it",
        "reached",
        "answers in all",
        "test at the end",
        "beaten",
        "good ones beaten",
    )
    for name in PRUNERS:
        own = [run for run in runs if run["pruner"] == name]
        if not own:
            continue
        ends = [run["curve"][-1] for run in own]
        hits = [reached(run, target, "answered") for run in own]
        table.add_row(
            name,
            f"{statistics.median(hits):.0f}",
            f"{statistics.median(reached(run, target, 'seconds') for run in own):.0f}",
            f"{sum(hit < float('inf') for hit in hits)} of {len(own)}",
            f"{statistics.mean(end['answered'] for end in ends):.0f}",
            f"{statistics.mean(end['test'] for end in ends):.1%}",
            f"{sum(run['beaten'] for run in own) / sum(run['trials'] for run in own):.0%}",
            f"{sum(run['good_beaten'] for run in own) / max(1, sum(run['good'] for run in own)):.1%}",
        )
    console.print(table)


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A picture: the best trial's test score over answered problems, a line a search."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    styles = dict(
        zip(PRUNERS, (("tab:blue", "-"), ("0.3", "--"), ("tab:orange", ":"), ("tab:green", "-.")), strict=True)
    )
    for run in runs:
        colour, line = styles[run["pruner"]]
        label = run["pruner"] if run["seed"] == min(one["seed"] for one in runs) else None
        points = [(point["answered"], 100 * point["test"]) for point in run["curve"]]
        axes.step(*zip(*points, strict=True), where="post", color=colour, linestyle=line, alpha=0.8, label=label)
    axes.set(xlabel="problems answered in the search", ylabel="best trial so far, % on test", ylim=(0, 100))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Measure what is not measured yet, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--trials", type=int, default=250)
    parser.add_argument("--pruners", nargs="+", default=PRUNERS, choices=PRUNERS)
    parser.add_argument("--target", type=float, default=0.88, help="the test score that is to be reached")
    parser.add_argument("--zoo", default="studies/.cache/zoo", help="folder of the demo's models")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    quiet_libraries()
    chosen.out.mkdir(exist_ok=True)
    kept = chosen.out / "results.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    known = {(run["pruner"], run["seed"], run["trials"]) for run in runs}
    for seed in chosen.seeds:
        for name in chosen.pruners:
            if (name, seed, chosen.trials) not in known:
                console.print(f"{name}, seed {seed}")
                runs.append(measure(name, seed, chosen.trials, chosen.zoo))
                kept.write_text(json.dumps(runs, indent=1) + "\n")
    own = [run for run in runs if run["trials"] == chosen.trials]
    show(own, chosen.target)
    draw(own, chosen.out / "fitness.png")


if __name__ == "__main__":
    main()
