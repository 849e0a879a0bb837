"""MLflow: a parent run a study, a child run a trial, the winner a version of a registered model."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import OptmergeError, UsageError
from optmerge.study.slots import ERROR
from optmerge.study.storage import shown_url
from optmerge.study.trial_scores import PROBLEMS, RECIPE, SCORES, SECONDS, decode

_STUDY, _TRIAL = "optmerge.study", "optmerge.trial"  # tags that find runs again when a study is resumed
_STOPPED = "stopped"  # tag that says why a search ended early
_STATES = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


@dataclass
class Options:
    """Settings of the tracker.

    Attributes:
        uri: Where MLflow keeps runs: an SQLAlchemy URL or the address of a server.
        artifacts: Folder for artifacts; with a server, its own by default.
        experiment: Name of the MLflow experiment.
        model: Name of the registered model.
    """

    uri: str = "sqlite:///studies/mlflow.db"
    artifacts: str | None = None
    experiment: str = "optmerge"
    model: str = "optmerge"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say in one line that MLflow failed, and what to do."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise OptmergeError(f"MLflow failed: {_first(error)}; run the same command again to go on") from error


class MlflowTracker:
    """Follows a study in MLflow."""

    def __init__(self, options: Options) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it prints two lines for every run
        # Its own patience with a server that does not answer is minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError

        # Its first start migrates a database in fifty lines of log; importing it has set the level of its own.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # errors are told here, in one line
        self._options = options
        try:
            if options.uri.startswith("sqlite:///"):
                Path(options.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            if not options.uri.startswith("http"):
                create_engine(options.uri).connect().close()  # MLflow itself would try for minutes
            self._client = MlflowClient(tracking_uri=options.uri, registry_uri=options.uri)
            self._experiment = self._experiment_id()
        except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
            shown = shown_url(options.uri)
            reason = _first(error).replace(options.uri, shown)  # MLflow repeats the address as it is
            raise UsageError(f"tracking.uri={shown}: MLflow cannot use it: {reason}") from error
        self._parent = ""
        self._recorded: set[int] = set()

    def _experiment_id(self) -> str:
        known = self._client.get_experiment_by_name(self._options.experiment)
        if known is not None:
            return str(known.experiment_id)
        location = Path(self._options.artifacts).absolute().as_uri() if self._options.artifacts else None
        return str(self._client.create_experiment(self._options.experiment, artifact_location=location))

    @_told()
    def start(self, study: str, key: str, settings: Mapping[str, Any]) -> None:
        parents = self._client.search_runs([self._experiment], f"tags.`{_STUDY}` = '{key}'", max_results=1)
        if parents:
            self._parent = parents[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
            if _STOPPED in parents[0].data.tags:
                self._client.delete_tag(self._parent, _STOPPED)
        else:
            run = self._client.create_run(self._experiment, run_name=study, tags={_STUDY: key})
            self._parent = run.info.run_id
            self._client.log_dict(self._parent, dict(settings), "config.json")
        self._recorded = self._children()

    def _children(self) -> set[int]:
        recorded, token = set(), None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`mlflow.parentRunId` = '{self._parent}'", max_results=1000, page_token=token
            )
            recorded |= {int(run.data.tags[_TRIAL]) for run in page if _TRIAL in run.data.tags}
            token = page.token
            if not token:
                return recorded

    @_told()
    def trial(self, trial: FrozenTrial) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if trial.number in self._recorded:
            return
        facts = trial.user_attrs
        tags = {"mlflow.parentRunId": self._parent, "state": trial.state.name.lower()}
        tags |= {key: str(facts[key]) for key in (RECIPE, ERROR) if key in facts}
        run = self._client.create_run(
            self._experiment,
            run_name=f"trial {trial.number}",
            tags=tags,
            start_time=int((trial.datetime_start.timestamp() if trial.datetime_start else time.time()) * 1000),
        ).info.run_id
        now = int(time.time() * 1000)
        values = {f"seconds/{phase}": spent for phase, spent in facts.get(SECONDS, {}).items()}
        values["problems"] = facts.get(PROBLEMS, 0)
        # The mean over the problems seen is the fitness only where the trial saw them all; the name says which.
        prefix = "" if trial.state == TrialState.COMPLETE else "partial/"
        for metric, encoded in facts.get(SCORES, {}).items():
            scores = decode(encoded)
            values[prefix + metric] = float(scores[scores == scores].mean())
        self._client.log_batch(
            run,
            metrics=[Metric(name, float(value), now, 0) for name, value in values.items()],
            params=[Param(name, repr(value)) for name, value in trial.params.items()],
            # The tag comes with the rest: a run without it was left by a process that died, and is made anew.
            tags=[RunTag(_TRIAL, str(trial.number))],
        )
        self._client.set_terminated(run, status=_STATES[trial.state])
        self._recorded.add(trial.number)

    @_told()
    def finish(self, result: Mapping[str, Any], best: Path) -> str | None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        winner = result["winner"]
        values = {
            "test": winner["test"]["score"],
            "test/low": winner["test"]["low"],
            "test/high": winner["test"]["high"],
        }
        values |= {name: winner[name] for name in ("search", "validation") if winner[name] is not None}
        values |= {f"trials/{state}": count for state, count in result["trials"].items()}
        values |= {name: result[name] for name in ("problem_evaluations", "problem_evaluations_unpruned")}
        self._client.log_batch(
            self._parent, metrics=[Metric(name, float(value), now, 0) for name, value in values.items()]
        )
        self._client.log_text(self._parent, json.dumps(result, indent=2, ensure_ascii=False), "result.json")
        version = self._version_of(winner["weights_sha256"])
        if version is None:
            # A folder for each winner: an earlier version must keep its weights.
            where = f"model-{winner['weights_sha256'][:12]}"
            self._client.log_artifacts(self._parent, str(best), where)
            try:
                self._client.create_registered_model(self._options.model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise OptmergeError(f"MLflow cannot register {self._options.model}: {_first(error)}") from error
            version = self._client.create_model_version(
                self._options.model,
                source=f"runs:/{self._parent}/{where}",
                run_id=self._parent,
                tags={name: str(winner[name]) for name in ("recipe_sha256", "weights_sha256")}
                | {"study": str(result["study"]), "test": str(winner["test"]["score"])},
            ).version
        self._client.set_registered_model_alias(self._options.model, "champion", version)
        self._client.set_terminated(self._parent)
        return f"models:/{self._options.model}@champion (version {version})"

    def _version_of(self, weights_sha256: str) -> str | None:
        """The version that this study registered for these weights, so that asking again adds none."""
        for version in self._client.search_model_versions(f"name = '{self._options.model}'"):
            if version.run_id == self._parent and version.tags.get("weights_sha256") == weights_sha256:
                return str(version.version)
        return None

    def stop(self, reason: str) -> None:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not self._parent:
            return
        # Why the search stops matters more than that it cannot be recorded.
        with contextlib.suppress(MlflowException, SQLAlchemyError, OSError):
            self._client.set_tag(self._parent, _STOPPED, reason)
            self._client.set_terminated(self._parent, status="KILLED")


def _first(error: Exception) -> str:
    """The first line of what went wrong; of a database's error the database's own words, without MLflow's."""
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__
    told = str(cause.orig if isinstance(cause, DBAPIError) else error)
    return (told.splitlines() or [type(error).__name__])[0][:200]


def build(options: Options) -> MlflowTracker:
    """The tracker with these settings, connected."""
    return MlflowTracker(options)


def command(options: Options) -> str | None:
    """The command that shows what was recorded; a server needs none."""
    if options.uri.startswith("http"):
        return None
    return f"mlflow ui --backend-store-uri {shown_url(options.uri)}"
