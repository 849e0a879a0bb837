"""No tracking."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial


@dataclass
class Options:
    """It has no settings."""


class NoTracker:
    """Records nothing."""

    def start(self, study: str, key: str, settings: Mapping[str, Any]) -> None: ...

    def trial(self, trial: FrozenTrial) -> None: ...

    def finish(self, result: Mapping[str, Any], best: Path) -> str | None:
        return None

    def stop(self, reason: str) -> None: ...


def build(options: Options) -> NoTracker:
    """The tracker."""
    return NoTracker()


def command(options: Options) -> str | None:
    """Nothing was recorded, so nothing can be shown."""
    return None
