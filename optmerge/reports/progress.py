"""The one line that says how far a search is."""

import time
from types import TracebackType

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from optmerge.phrases import shown_seconds
from optmerge.study.pareto import front
from optmerge.study.slots import Plan
from optmerge.study.trial_scores import value_of
from optmerge.tasks import Objective

_SECONDS_BETWEEN_LINES = 15.0  # where the output is no terminal


class ProgressLine:
    """Trial, best so far, pruned share and time left; a live line in a terminal, else a line now and then.

    Args:
        console: Where to print.
        budget: Trials of the whole search.
        earlier: Trials that were finished before.
        goal: What results are told in.
        plan: Says which trials are feasible, and of several objectives which are on the Pareto front.
    """

    def __init__(self, console: Console, budget: int, earlier: list[FrozenTrial], goal: Objective, plan: Plan) -> None:
        self._console = console
        self._budget = budget
        self._goal = goal
        self._plan = plan
        self._found: list[tuple[float, ...]] = []  # the Pareto front
        self._done = 0
        self._pruned = 0
        self._best: float | None = None
        for trial in earlier:
            self._count(trial)
        self._before = self._done
        self._began = self._printed = time.monotonic()
        self._live = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn(), console=console
        )
        self._task = self._live.add_task(self._text(), total=budget, completed=self._done)

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, trial: FrozenTrial) -> None:
        """Take a trial that ended into account."""
        self._count(trial)
        if self._console.is_terminal:
            self._live.update(self._task, completed=self._done, description=self._text())
        elif time.monotonic() - self._printed > _SECONDS_BETWEEN_LINES or self._done == self._budget:
            self._printed = time.monotonic()
            self._console.print(f"{self._text()}, {self._left()} left", highlight=False)

    def _count(self, trial: FrozenTrial) -> None:
        self._done += trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        self._pruned += trial.state == TrialState.PRUNED
        fitness, value = self._plan.fitness(trial), value_of(trial, self._goal)
        if fitness is not None and value is not None:
            better = max if self._goal.direction == "maximize" else min
            self._best = value if self._best is None else better(self._best, value)
            points = [*self._found, fitness]
            self._found = [points[i] for i in front(points)]

    def _text(self) -> str:
        best = "none yet" if self._best is None else self._goal.shown(self._best)
        share = self._pruned / self._done if self._done else 0.0
        rest = f"{len(self._found)} on the Pareto front" if len(self._plan.maximize) > 1 else f"pruned {share:.0%}"
        return f"trial {self._done}/{self._budget}, best so far {best}, {rest}"

    def _left(self) -> str:
        here = self._done - self._before
        if here == 0:
            return "unknown time"
        seconds = (time.monotonic() - self._began) / here * (self._budget - self._done)
        return shown_seconds(seconds)
