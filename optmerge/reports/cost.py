"""What a search has cost: trials, problems answered, hours by phase, and an estimate of the energy."""

import itertools
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.phrases import plural, shown_seconds
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import BLACK, DARK, EDGE, GOLD, PALE, ROSE, WIDTH
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, WORKER
from optmerge.study.trial_scores import PROBLEMS, SECONDS

CPU_WATTS, GPU_WATTS = 65.0, 400.0  # a desktop processor's thermal design power, and that of an A100
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_PHASES = ("merge", "generate", "score")  # others come after these


@dataclass(frozen=True)
class Power:
    """What a machine or GPU at work is taken to draw.

    Attributes:
        watts: So much.
        of_workers: Each worker has a device of its own; else a machine's workers share it.
        because: Where the number is from.
    """

    watts: float
    of_workers: bool
    because: str


@dataclass(frozen=True)
class Cost:
    """What a search has cost.

    Attributes:
        complete: Trials that answered every problem.
        pruned: Trials that were stopped.
        failed: Trials that failed by themselves.
        again: Trials whose worker died or left, and which were run again.
        answered: Problems that trials answered.
        answered_by_sources: Problems that the sources were asked beforehand.
        unpruned: Problems that the same trials would have answered without pruning.
        hours: Phase to hours of all workers together; `other` is what trials took beside.
        ending: Hours from the end of the search to its result.
        worker_hours: Hours of trials of all workers together, and of the ending.
        machine_hours: Hours in which a machine was at work, of all machines together, and of the ending.
        elapsed: Hours from the first trial's beginning to the last one's end, pauses and all.
        at_once: Most trials that ran at the same time.
        machines: How many machines took part.
        power: What the energy is estimated with.
    """

    complete: int
    pruned: int
    failed: int
    again: int
    answered: int
    answered_by_sources: int
    unpruned: int
    hours: Mapping[str, float]
    ending: float
    worker_hours: float
    machine_hours: float
    elapsed: float
    at_once: int
    machines: int
    power: Power

    @property
    def spared(self) -> int:
        """Problems that pruning, and taking over scores of equal recipes, have spared."""
        return max(0, self.unpruned - self.answered)

    @property
    def kilowatt_hours(self) -> float:
        hours = self.worker_hours if self.power.of_workers else self.machine_hours
        return hours * self.power.watts / 1000

    @property
    def trials(self) -> int:
        return self.complete + self.pruned


def cost_of(
    every: Sequence[FrozenTrial],
    trials: Sequence[FrozenTrial],
    *,
    problems: int,
    by_sources: int,
    power: Power,
    seconds: float | None = None,
) -> Cost:
    """Add up what a search has cost.

    Args:
        every: All trials of the study.
        trials: Those that count.
        problems: How many a trial answers that is not pruned.
        by_sources: How many the sources were asked.
        power: What the energy is estimated with.
        seconds: What all took, trials and ending, where it has ended.
    """
    ran = [trial for trial in every if trial.datetime_start and trial.datetime_complete and trial.state in _DONE]
    phases: dict[str, float] = dict.fromkeys(_PHASES, 0.0)
    for trial in ran:
        for phase, spent in trial.user_attrs.get(SECONDS, {}).items():
            phases[phase] = phases.get(phase, 0.0) + spent / 3600
    spans = [(trial, *_span(trial)) for trial in ran]
    in_trials = sum(end - start for _, start, end in spans) / 3600
    ending = max(0.0, seconds / 3600 - in_trials) if seconds is not None else 0.0
    hosts: dict[str, list[tuple[float, float]]] = {}
    for trial, start, end in spans:
        hosts.setdefault(str(trial.system_attrs.get(WORKER, {}).get("host")), []).append((start, end))
    reasons = [trial.user_attrs.get(ERROR) for trial in every if trial.state == TrialState.FAIL]
    again = sum(reason in (DIED, HANDED_BACK, None) for reason in reasons)
    return Cost(
        complete=sum(trial.state == TrialState.COMPLETE for trial in trials),
        pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        failed=len(reasons) - again,
        again=again,
        answered=sum(trial.user_attrs.get(PROBLEMS, 0) for trial in trials),
        answered_by_sources=by_sources,
        unpruned=len(trials) * problems,
        hours={**phases, "other": max(0.0, in_trials - sum(phases.values()))},
        ending=ending,
        worker_hours=in_trials + ending,
        machine_hours=sum(_covered(found) for found in hosts.values()) / 3600 + ending,
        elapsed=(max(end for *_, end in spans) - min(start for _, start, _ in spans)) / 3600 if spans else 0.0,
        at_once=_most_at_once([(start, end) for _, start, end in spans]),
        machines=len(hosts),
        power=power,
    )


def _span(trial: FrozenTrial) -> tuple[float, float]:
    assert trial.datetime_start is not None and trial.datetime_complete is not None
    return trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that are in any of some spans."""
    total, until = 0.0, -float("inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    # At equal times one ends before the next begins.
    events = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = running = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


def power_of(device: str, watts: float | None = None) -> Power:
    """What is taken to be drawn.

    Args:
        device: Where the search ran, such as `cpu`, `cuda` or `cuda:0`; anything else is looked up here.
        watts: What the user says.
    """
    gpu = device.startswith("cuda") or (
        device.partition(":")[0] not in ("cpu", "mps") and bool(shutil.which("nvidia-smi"))
    )
    if watts is not None:
        return Power(watts, gpu, "as given by watts=")
    if not gpu:
        return Power(CPU_WATTS, False, "assumed: a desktop processor; say watts=NUMBER for yours")
    here = _limit_here()
    if here is not None:
        return Power(
            here[1], True, f"the power limit of the {here[0]} in this machine; say watts=NUMBER if it ran on another"
        )
    return Power(GPU_WATTS, True, "assumed: the limit of an A100; say watts=NUMBER for yours")


def _limit_here() -> tuple[str, float] | None:
    """Name and power limit of this machine's first GPU, if the driver tells."""
    command = ["nvidia-smi", "--query-gpu=name,power.limit", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        name, _, watts = found.splitlines()[0].rpartition(",")
        return name.strip(), float(watts)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def draw_cost(cost: Cost) -> Drawing:
    """Draw problems that were answered and spared, and hours by phase, as a bar each."""
    from matplotlib.figure import Figure

    spared = cost.spared / max(1, cost.unpruned)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    answered = {"by trials": cost.answered, "by sources": cost.answered_by_sources, "spared": cost.spared}
    _stack(upper, answered, f"problems: {cost.answered + cost.answered_by_sources:,} answered", lambda n: f"{n:,.0f}")
    hours = {**cost.hours, "ending": cost.ending}
    total = sum(hours.values())
    phases = [f"{phase} {duration(spent)} ({spent / total if total else 0:.0%})" for phase, spent in hours.items()]
    _stack(lower, hours, f"time of all workers: {duration(total)}", duration)
    return Drawing(
        "cost",
        "What it cost",
        f"Two bars. Of {cost.unpruned:,} problems that {plural(cost.trials, 'trial')} would answer, {cost.answered:,} "
        f"were answered and {cost.spared:,} ({spared:.0%}) spared; sources "
        f"answered {cost.answered_by_sources:,}. Of {duration(total)} of work, "
        f"{', '.join(phases)}.",
        "Spared are problems of pruned trials, and of those that had the same recipe as one before. Hours are those "
        "of all workers together; other is what trials took beside, such as the database and the next genome; the "
        "ending is finalists, test and writing.",
        figure,
    )


_LOOKS: tuple[Mapping[str, Any], ...] = (
    {"color": DARK},
    {"color": GOLD},
    {"color": ROSE, "hatch": "///"},
    {"color": PALE, "hatch": "..."},
    {"color": "0.75", "hatch": "xx"},
)


def _stack(axes: Any, parts: Mapping[str, float], title: str, shown: Any) -> None:
    """One bar of several parts, named below it."""
    left, total = 0.0, sum(parts.values())
    for (name, value), look in zip(parts.items(), itertools.cycle(_LOOKS), strict=False):
        if not value:
            continue
        axes.barh(
            0, value, left=left, height=0.7, edgecolor=EDGE, linewidth=0.6, label=f"{name} {shown(value)}", **look
        )
        left += value
    axes.set(title=title, yticks=(), xlim=(0, total or 1))
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.02), ncols=len(parts), handlelength=1.6, labelcolor=BLACK)


def duration(hours: float) -> str:
    """Hours as people like to read them."""
    return shown_seconds(3600 * hours)
