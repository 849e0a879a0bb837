"""What a tracker does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import FrozenTrial

from optmerge.study.judged import Judged, ProblemSet
from optmerge.tasks import Objective, Split


class Tracker(Protocol):
    """Follows one study from start to end, and again when it is resumed."""

    def start(
        self,
        study: str,
        key: str,
        settings: Mapping[str, Any],
        goal: Objective,
        problems: Mapping[Split, ProblemSet],
    ) -> None:
        """Begin or go on following a study.

        Args:
            study: Its name.
            key: What is unique about it.
            settings: Its configuration.
            goal: The score that its results are told in.
            problems: The problems of its splits.
        """

    def trial(self, trial: FrozenTrial) -> None:
        """Record a trial that ended; one that was recorded before is left as it is."""

    def finish(self, result: Mapping[str, Any], best: Path, judged: Judged) -> str | None:
        """Record the result and register the winner's folder; says in a few words where it is now.

        Args:
            result: The contents of result.json.
            best: The winner's folder; pictures lie beside it.
            judged: What was answered problem by problem.
        """

    def stop(self, reason: str) -> None:
        """Record that the search stopped before its end."""
