"""What a tracker does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import FrozenTrial


class Tracker(Protocol):
    """Follows one study from start to end, and again when it is resumed."""

    def start(self, study: str, key: str, settings: Mapping[str, Any]) -> None:
        """Begin or go on following a study: its name, what is unique about it, and its configuration."""

    def trial(self, trial: FrozenTrial) -> None:
        """Record a trial that ended; one that was recorded before is left as it is."""

    def finish(self, result: Mapping[str, Any], best: Path) -> str | None:
        """Record the result and register the winner's folder; says in a few words where it is now."""

    def stop(self, reason: str) -> None:
        """Record that the search stopped before its end."""
