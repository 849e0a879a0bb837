"""Versions of a registered model: the winner of every study, and which of them is the champion.

A champion is the best of those that answered the same validation problems. A registered model is about the problems
that its first validated version answered: `champion` and `challenger` are titles among these. Versions that answered
other problems cannot be compared with them; they have titles of their own, with the first letters of the problems' hash
behind them, as in `champion-1a2b3c4d`. What was never validated holds a title only while nothing was.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optmerge.errors import OptmergeError
from optmerge.study.paired_test import paired_p_value
from optmerge.study.touched import touched
from optmerge.tasks import Objective
from optmerge.tracking.connection import every, first_line
from optmerge.tracking.model_folders import remove_weights
from optmerge.tracking.problem_tables import ProblemTable, read_table
from optmerge.tracking.winner_facts import BROKEN, MODEL, OBJECTIVE, PROBLEMS, TEST, TESTED, VALIDATION, WEIGHTS_SHA256

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Tags of versions beside those of `winner_facts`.
DECIDED = "decided"  # how it came to its title
WEIGHTS, REMOVED = "weights", "removed"  # of one that has lost them

CHAMPION, CHALLENGER = "champion", "challenger"
_LETTERS = 8  # of a hash, in a title


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        number: Its number.
        aliases: Its titles, and names that people gave it.
        run_id: The run of its study.
        tags: What is known of it.
    """

    number: int
    aliases: Sequence[str]
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def goal(self) -> Objective | None:
        """The score that it was chosen by; None for what another program registered."""
        return Objective(**json.loads(self.tags[OBJECTIVE])) if OBJECTIVE in self.tags else None

    @property
    def validation(self) -> str | None:
        """Hash of the validation problems that it answered."""
        return self.tags.get(VALIDATION)


@dataclass(frozen=True)
class Winner:
    """A model that is to become a version.

    Attributes:
        run_id: The run of its study.
        model: Where its folder is, among the run's artifacts.
        tags: What is known of it.
        scores: Its scores of the validation problems, if it answered any; NaN where there is none.
        description: The same for people.
    """

    run_id: str
    model: str
    tags: Mapping[str, str]
    scores: NDArray[np.float64] | None
    description: str


class Registry:
    """The versions of one registered model.

    Args:
        client: Of MLflow.
        name: Of the registered model.
        studies: Folder of all studies, which knows what else has answered test problems.
    """

    def __init__(self, client: "MlflowClient", name: str, studies: Path) -> None:
        self._client = client
        self._name = name
        self._studies = studies

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        aliases = self._model().aliases
        found = every(self._client.search_model_versions, f"name = '{self._name}'")
        versions = [
            Version(
                int(one.version),
                sorted(alias for alias, number in aliases.items() if int(number) == int(one.version)),
                str(one.run_id),
                dict(one.tags),
            )
            for one in found
        ]
        return sorted(versions, key=lambda version: version.number)

    def own_validation(self) -> str | None:
        """Hash of the validation problems that this registered model is about."""
        found = self._model().tags.get(VALIDATION)
        return None if found is None else str(found)

    def tests(self) -> dict[str, int]:
        """Hash of a set of test problems to how many different models have answered them.

        These are models of the versions' studies, wherever they ran, and all others that the folder of studies knows.
        """
        seen: dict[str, set[str]] = {}
        for version in self.versions():
            if (sha256 := version.tags.get(TEST)) is not None:
                models = seen.setdefault(sha256, touched(self._studies, sha256))
                models.update(version.tags.get(TESTED, "").split(","))
        return {sha256: len(models - {""}) for sha256, models in seen.items()}

    def table(self, version: Version, split: str) -> ProblemTable | None:
        """What a version scored on the problems of a split; None if that is not there, or not what it should be."""
        from mlflow.exceptions import MlflowException

        if PROBLEMS not in version.tags:
            return None
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = f"{version.tags[PROBLEMS]}/{split}.json"
                return read_table(Path(self._client.download_artifacts(version.run_id, path, folder)))
            except (MlflowException, OSError, ValueError):
                return None

    def register(self, winner: Winner, level: float, keep: int | None) -> str:
        """Make a winner a version, unless it is one, and give it its title.

        Args:
            winner: The model.
            level: Chance of dethroning a champion that is as good.
            keep: So many of the newest versions keep their weights, beside those with titles; None: all do.

        Returns:
            In a few words what it is now.
        """
        number = self._number_of(winner)
        version = next(version for version in self.versions() if version.number == number)
        decided = version.tags.get(DECIDED)
        if decided is None:
            alias, decided = self._decide(version, winner, level)
            if alias is not None:
                self._client.set_registered_model_alias(self._name, alias, str(number))
                version = Version(number, [*version.aliases, alias], version.run_id, version.tags)
            if version.validation is not None and self.own_validation() is None:
                self._client.set_registered_model_tag(self._name, VALIDATION, version.validation)
            self._client.set_model_version_tag(self._name, str(number), DECIDED, decided)
        for sha256, models in self.tests().items():
            self._client.set_registered_model_tag(self._name, f"tested/{sha256[:12]}", str(models))
        if keep is not None:
            self._let_go(keep)
        titles = [alias for alias in version.aliases if alias.startswith((CHAMPION, CHALLENGER))]
        where = f"models:/{self._name}@{titles[0]} (version {number})" if titles else f"models:/{self._name}/{number}"
        return f"{where}: {decided}"

    def _model(self) -> Any:
        return self._client.get_registered_model(self._name)

    def _number_of(self, winner: Winner) -> int:
        """The version of a winner, which its study may have registered before."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise OptmergeError(f"MLflow cannot register {self._name}: {first_line(error)}") from error
        for version in self.versions():
            same = version.tags.get(WEIGHTS_SHA256) == winner.tags[WEIGHTS_SHA256]
            if same and version.run_id == winner.run_id:
                return version.number
        made = self._client.create_model_version(
            self._name,
            source=f"runs:/{winner.run_id}/{winner.model}",
            run_id=winner.run_id,
            tags=dict(winner.tags),
            description=winner.description,
        )
        return int(made.version)

    def _decide(self, version: Version, winner: Winner, level: float) -> tuple[str | None, str]:
        """The title of a new version, if it gets one, and why."""
        aliases = self._model().aliases
        if version.validation is None or winner.scores is None:
            if CHAMPION not in aliases:
                return CHAMPION, "the first version; it was not validated"
            return None, "it was not validated, so that it challenges nobody"
        own = self.own_validation()
        if own is None:
            return CHAMPION, "the first version that was validated"
        ending = "" if own == version.validation else f"-{version.validation[:_LETTERS]}"
        if CHAMPION + ending not in aliases:
            return CHAMPION + ending, "the first version with these validation problems"
        reigning = int(aliases[CHAMPION + ending])
        if reigning == version.number:  # a process that died has decided, and could not say so any more
            return CHAMPION + ending, "better than the champion before it"
        champion = next(known for known in self.versions() if known.number == reigning)
        if BROKEN in version.tags and BROKEN not in champion.tags:
            return CHALLENGER + ending, f"it breaks a guard, and the champion, version {reigning}, does not"
        p_value = self._p_value(champion, version, winner.scores)
        if p_value is None:
            return CHALLENGER + ending, f"it cannot be compared with the champion, version {reigning}"
        told = f"than version {reigning} on the same validation problems (one-sided paired test, p = {p_value:.2g})"
        if p_value < level:
            return CHAMPION + ending, f"better {told}"
        return CHALLENGER + ending, f"not better beyond chance {told}"

    def _p_value(self, champion: Version, version: Version, scores: NDArray[np.float64]) -> float | None:
        """The chance of scores so much better than the champion's if they were no better; None if it has none."""
        goal = version.goal
        table = self.table(champion, "validation") if champion.validation == version.validation else None
        if goal is None or table is None or goal.name not in table.scores:
            return None
        theirs = table.scores[goal.name]
        both = ~(np.isnan(theirs) | np.isnan(scores))
        lower, higher = (theirs[both], scores[both])[:: 1 if goal.sign > 0 else -1]
        return paired_p_value(lower, higher)

    def _let_go(self, keep: int) -> None:
        """Remove the weights of old versions."""
        versions = self.versions()
        shared = [(version.run_id, version.tags.get(MODEL)) for version in versions[-keep:]]
        for version in versions[:-keep]:
            titled = any(alias.startswith((CHAMPION, CHALLENGER)) for alias in version.aliases)
            where = version.tags.get(MODEL)
            removed = version.tags.get(WEIGHTS) == REMOVED
            if titled or removed or where is None or (version.run_id, where) in shared or self._elsewhere(version):
                continue
            if remove_weights(self._client, version.run_id, where):
                self._client.set_model_version_tag(self._name, str(version.number), WEIGHTS, REMOVED)

    def _elsewhere(self, version: Version) -> bool:
        """Whether the folder of a version is that of a version of another registered model too."""
        found = every(self._client.search_model_versions, f"run_id = '{version.run_id}'")
        return any(one.name != self._name and one.tags.get(MODEL) == version.tags[MODEL] for one in found)
