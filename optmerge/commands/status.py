"""The commands that look at a running study, and stop it."""

import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from optmerge.commands.words import check_settings
from optmerge.commands.worker import named_study
from optmerge.phrases import shown_seconds
from optmerge.study.charter import OpenStudy
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, Ledger, front_of
from optmerge.study.trial_scores import value_of

_RECENT = timedelta(minutes=10)  # the rate is that of so long
_LOOKS, _PAUSE = 4, 0.15  # for trials that run, and seconds after each


def run_status(arguments: Sequence[str], console: Console) -> None:
    """Print workers, trials by state, best, rate and time left of a study.

    Raises:
        UsageError: If there is no such study.
    """
    check_settings("status", arguments)
    _, opened = named_study(arguments)
    control = opened.database.control(opened.study_id)
    running = _running(opened)
    trials = opened.study.get_trials(deepcopy=False)
    ledger = Ledger(opened.plan).update(trials)
    budget = int(control["trials"])

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    finished = ledger.finished()
    if ledger.is_done(budget):
        state = "done"
    elif control.get("stop"):
        state = "stopped" if not running else "stopping"
    else:
        state = "running" if running else "waiting for workers"
    say(f"Study {opened.study.study_name}: {state}, {len(finished)} of {budget} trials")
    say(f"  {_counts(trials, ledger, len(running))}")
    best = _best(finished, opened)
    if best is not None:
        goal, compromises = opened.goal, front_of(finished, opened.plan)
        among = f"; {len(compromises)} trials on the Pareto front" if len(opened.objectives) > 1 else ""
        say(f"  best {goal.shown(value_of(best, goal) or 0.0)}, trial {best.number}{among}")
    rate = _rate(finished)
    if rate and state == "running":
        left = (budget - len(finished)) / rate
        say(f"  {rate * 60:.1f} trials a minute, about {shown_seconds(left)} left")
    if running:
        console.print(_workers(running, trials))


def _running(opened: OpenStudy) -> list[tuple[int, Any, float]]:
    """The trials that run now, looked for once more where there are none: a worker may be between two of them."""
    for _ in range(_LOOKS):
        if running := opened.database.running(opened.study_id):
            return running
        time.sleep(_PAUSE)
    return []


def _counts(trials: Sequence[FrozenTrial], ledger: Ledger, running: int) -> str:
    reasons = [trial.user_attrs.get(ERROR) for trial in trials if trial.state == TrialState.FAIL]
    finished = ledger.finished()
    counts = {
        "complete": sum(trial.state == TrialState.COMPLETE for trial in finished),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in finished),
        "running": running,
        "failed": sum(reason not in (DIED, HANDED_BACK, None) for reason in reasons),
        "run again as their worker died": sum(reason in (DIED, None) for reason in reasons),
        "handed back": reasons.count(HANDED_BACK),
    }
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{text or 'nothing yet'}; {ledger.closed()} generations of {ledger.plan.population} closed"


def _best(finished: Sequence[FrozenTrial], opened: OpenStudy) -> FrozenTrial | None:
    feasible = [trial for trial in finished if opened.plan.fitness(trial) is not None]
    return max(feasible, key=lambda trial: opened.goal.sign * (value_of(trial, opened.goal) or 0.0), default=None)


def _rate(finished: Sequence[FrozenTrial]) -> float | None:
    """Trials a second, lately."""
    ends = sorted(trial.datetime_complete for trial in finished if trial.datetime_complete is not None)
    recent = [end for end in ends if ends and ends[-1] - end < _RECENT]
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(recent, recent[1:], strict=False)]
    mean = statistics.mean(gaps) if gaps else 0.0
    return 1 / mean if mean > 0 else None


def _workers(running: Sequence[tuple[int, Any, float]], trials: Sequence[FrozenTrial]) -> Table:
    by_id = {trial._trial_id: trial for trial in trials}
    table = Table("worker", "trial", "for", "last heard of", box=None, pad_edge=False)
    for trial_id, worker, silent in sorted(running, key=lambda row: row[0]):
        trial = by_id.get(trial_id)
        who = f"{worker['host']}:{worker['pid']}" if worker else "unknown"
        since = (datetime.now() - trial.datetime_start).total_seconds() if trial and trial.datetime_start else 0.0
        number = str(trial.number) if trial else "?"
        table.add_row(f"  {who}", number, shown_seconds(since), f"{silent:.0f} s ago")
    return table


def run_stop(arguments: Sequence[str], console: Console) -> None:
    """Tell the workers of a study to finish their trials and leave.

    Raises:
        UsageError: If there is no such study.
    """
    check_settings("stop", arguments)
    _, opened = named_study(arguments)
    opened.database.set_control(opened.study_id, stop=True)
    running = len(opened.database.running(opened.study_id))
    name = opened.study.study_name
    left = f"{running} worker{'' if running == 1 else 's'} will finish the trial at hand and leave"
    if not running:
        left = "no worker is at a trial"
    console.print(f"Study {name}: {left}; the command that started it goes on with it.", highlight=False)
