"""No tracking."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from optmerge.study.judged import Judged, ProblemSet
from optmerge.tasks import Objective, Split


@dataclass
class Options:
    """It has no settings."""


class NoTracker:
    """Records nothing."""

    def start(
        self,
        study: str,
        key: str,
        settings: Mapping[str, Any],
        goal: Objective,
        problems: Mapping[Split, ProblemSet],
    ) -> None: ...

    def trial(self, trial: FrozenTrial) -> None: ...

    def finish(self, result: Mapping[str, Any], best: Path, judged: Judged) -> str | None:
        return None

    def stop(self, reason: str) -> None: ...


def build(options: Options) -> NoTracker:
    """The tracker."""
    return NoTracker()
