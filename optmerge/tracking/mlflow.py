"""MLflow: an experiment a search, a parent run a study, child runs for trials, the winner in the model registry."""

import contextlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from optmerge.errors import UsageError
from optmerge.recipe import RECIPE, load_recipe
from optmerge.registered import did_you_mean
from optmerge.study.judged import Judged, ProblemSet, Scores
from optmerge.study.slots import violation
from optmerge.study.trial_scores import value_of
from optmerge.tasks import Objective, Split
from optmerge.tracking.code_version import version_tags
from optmerge.tracking.connection import connect, every, told
from optmerge.tracking.data_sets import inputs_of
from optmerge.tracking.problem_tables import table_of
from optmerge.tracking.study_facts import NOTE, description_of, params_of_study, params_of_trials, with_winner
from optmerge.tracking.trial_runs import STATUS, document_of, metrics_of, params_of, tags_of
from optmerge.tracking.winner_facts import MODEL, PROBLEMS, described, scores_of, winner_tags

log = logging.getLogger(__name__)

STUDY, _TRIAL = "optmerge.study", "optmerge.trial"  # tags that find runs again when a study is resumed
_STOPPED = "stopped"  # tag that says why a search ended early
_BEST_SO_FAR = "best"  # metric of the parent run, at every trial that is better than all before
_NOTE = 5000  # letters of a description: the limit of older servers
_RUNS = ("all", "best", "finalists")


@dataclass
class Options:
    """Settings of the tracker.

    Attributes:
        uri: Where MLflow keeps runs: an SQLAlchemy URL or the address of a server.
        artifacts: Folder or address for artifacts; by default the server's own, or without a server `mlartifacts` in
            the folder of all studies.
        experiment: Name of the MLflow experiment; by default that of the study without its seed, so that the seeds of
            one search are together.
        model: Name of the registered model.
        runs: Which trials have a run: `all`, those that are the `best` when they end, or the `finalists`.
        params: So many genes are parameters of a trial's run, which its page shows in columns; all are in its file.
        level: Chance that a winner which is only as good as the champion takes its place.
        keep: So many of the newest versions of the registered model keep their weights, beside champions and
            challengers; all do by default.
        system_metrics: Record what the machine is busy with, every ten seconds, in a thread of its own.
    """

    uri: str = "sqlite:///studies/mlflow.db"
    artifacts: str | None = None
    experiment: str | None = None
    model: str = "optmerge"
    runs: str = "all"
    params: int = 10
    level: float = 0.05
    keep: int | None = None
    system_metrics: bool = False

    def __post_init__(self) -> None:
        if self.runs not in _RUNS:
            hint = did_you_mean(self.runs, _RUNS)
            raise UsageError(f"tracking.runs={self.runs}: unknown{hint}; known are {', '.join(_RUNS)}")
        if not 0 < self.level < 1:
            raise UsageError(f"tracking.level must be between 0 and 1, got {self.level:g}")
        for name, value, least in (("params", self.params, 0), ("keep", self.keep, 1)):
            if value is not None and value < least:
                raise UsageError(f"tracking.{name} must be at least {least}, got {value}")
        if not re.fullmatch(r"[\w .+-]+", self.model):
            raise UsageError(f"tracking.model={self.model!r}: use letters, digits, ' ', '.', '_', '+' and '-'")


class MlflowTracker:
    """Follows a study in MLflow.

    Raises:
        UsageError: If MLflow cannot be reached.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = connect(options.uri)
        self._experiment = ""
        self._parent = ""
        self._settings: Mapping[str, Any] = {}
        self._goal = Objective("fitness")
        self._problems: Mapping[Split, ProblemSet] = {}
        self._common: dict[str, str] = {}  # tags that all runs of the study have
        self._recorded: dict[int, str] = {}  # trial to its run
        self._params: set[str] = set()  # names of the parent run's parameters, which cannot be changed
        self._best: float | None = None  # turned, so that higher is better
        self._monitor: Any = None

    @told()
    def start(
        self,
        study: str,
        key: str,
        settings: Mapping[str, Any],
        goal: Objective,
        problems: Mapping[Split, ProblemSet],
    ) -> None:
        self._settings, self._goal, self._problems = settings, goal, problems
        sources = settings.get("models", {}).get("sources", {})
        self._common = {
            "seed": str(settings["study"]["seed"]),
            "sources": ", ".join(sorted(sources)),
            "mlflow.source.name": "optmerge",
            **version_tags(),
        }
        self._experiment = self._experiment_id(self._options.experiment or experiment_of(study, settings))
        parents = self._client.search_runs([self._experiment], f"tags.`{STUDY}` = '{key}'", max_results=1)
        if parents:
            self._parent = parents[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
            if _STOPPED in parents[0].data.tags:
                self._client.delete_tag(self._parent, _STOPPED)
            best = parents[0].data.metrics.get(_BEST_SO_FAR)
            self._best = None if best is None else goal.sign * best
            self._params = set(parents[0].data.params)
        else:
            tags = {STUDY: key, "objective": goal.name, **self._common}
            self._parent = self._client.create_run(self._experiment, run_name=study, tags=tags).info.run_id
            self._client.log_dict(self._parent, dict(settings), "config.json")
            self._client.log_inputs(self._parent, inputs_of(settings.get("task", {}), problems))
        self._tell_of_study(study, describe=not parents or NOTE not in parents[0].data.tags)
        self._recorded = self._children()
        if self._options.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
                self._parent, resume_logging=True, tracking_uri=self._options.uri
            )
            self._monitor.start()

    def _tell_of_study(self, study: str, *, describe: bool) -> None:
        """Give the parent run what is settled of the study, its budget, and a description unless it has one."""
        from mlflow.entities import Metric, RunTag

        trials = self._settings["study"].get("trials")
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._parent,
            # A study can be extended, and a parameter cannot be changed.
            metrics=[] if trials is None else [Metric("trials/budget", float(trials), now, 0)],
            params=self._new_params(params_of_study(self._settings, self._goal, self._problems)),
            tags=[RunTag(NOTE, description_of(study, self._settings, self._goal)[:_NOTE])] if describe else [],
        )

    def _new_params(self, params: Mapping[str, str]) -> list[Any]:
        """Those that the parent run does not have."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in params.items() if name not in self._params]
        self._params |= set(params)
        return new

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        options = self._options
        artifacts = options.artifacts
        if artifacts is None and not options.uri.startswith("http"):
            artifacts = str(self._studies / "mlartifacts")
        if artifacts is not None and "://" not in artifacts:
            artifacts = Path(artifacts).absolute().as_uri()
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            known = self._client.get_experiment_by_name(name)
            if known is None:
                raise
            log.debug("another search has just made experiment %s", name, exc_info=error)
            return str(known.experiment_id)

    @property
    def _studies(self) -> Path:
        return Path(self._settings["study"].get("folder", "studies"))

    def _children(self) -> dict[int, str]:
        """The runs of trials that are whole: one that still runs was left by a process that died, and is made anew."""
        found = every(
            self._client.search_runs,
            [self._experiment],
            f"tags.`mlflow.parentRunId` = '{self._parent}'",
            max_results=1000,
        )
        whole = [run for run in found if _TRIAL in run.data.tags and run.info.status != "RUNNING"]
        return {int(run.data.tags[_TRIAL]): run.info.run_id for run in whole}

    @told()
    def trial(self, trial: FrozenTrial) -> None:
        from mlflow.entities import Metric

        if "genes" not in self._params and trial.values:
            self._client.log_batch(self._parent, params=self._new_params(params_of_trials(self._settings, trial)))
        fitness = None if violation(trial) else value_of(trial, self._goal)
        better = fitness is not None and (self._best is None or self._goal.sign * fitness > self._best)
        if self._options.runs == "all" or (self._options.runs == "best" and better):
            self._record(trial)
        if better and fitness is not None:
            point = Metric(_BEST_SO_FAR, fitness, int(time.time() * 1000), trial.number)
            self._client.log_batch(self._parent, metrics=[point])
            self._best = self._goal.sign * fitness

    def _record(self, trial: FrozenTrial) -> None:
        """Give a trial a run, unless it has one."""
        from mlflow.entities import Metric, Param

        if trial.number in self._recorded:
            return
        began, ended = (
            int(at.timestamp() * 1000) if at else int(time.time() * 1000)
            for at in (trial.datetime_start, trial.datetime_complete)
        )
        tags = {"mlflow.parentRunId": self._parent, _TRIAL: str(trial.number)}
        run = self._client.create_run(
            self._experiment,
            run_name=f"trial {trial.number}",
            tags=tags | self._common | tags_of(trial),
            start_time=began,
        )
        values = metrics_of(trial, self._goal)
        self._client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, float(value), ended, 0) for name, value in values.items()],
            params=[Param(name, value) for name, value in params_of(trial, self._options.params).items()],
        )
        self._put_text(run.info.artifact_uri, "trial.json", document_of(trial))
        # Its end comes last: one that runs was left by a process that died.
        self._client.set_terminated(run.info.run_id, STATUS[trial.state], ended)
        self._recorded[trial.number] = run.info.run_id

    def _put_text(self, artifacts: str, name: str, text: str) -> None:
        """Write a file among the artifacts of a run, as `log_text` does, which would ask for the run first."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        from optmerge.tracking.model_folders import local_folder

        here = local_folder(artifacts)
        if here is not None:
            here.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(text, encoding="utf-8")
            return
        repository = get_artifact_repository(artifacts, tracking_uri=self._options.uri)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            repository.log_artifact(str(path))  # type: ignore[no-untyped-call]

    @told()
    def finish(self, result: Mapping[str, Any], best: Path, judged: Judged) -> str | None:
        from mlflow.entities import Metric, RunTag

        from optmerge.tracking.model_folders import put_model
        from optmerge.tracking.registry import Registry, Winner

        now = int(time.time() * 1000)
        values = {**scores_of(result), **{f"trials/{state}": count for state, count in result["trials"].items()}}
        values |= {name: result[name] for name in ("problem_evaluations", "problem_evaluations_unpruned", "seconds")}
        self._client.log_batch(
            self._parent,
            metrics=[Metric(name, value, now, 0) for name, value in values.items()],
            tags=[RunTag("recipe_sha256", result["winner"]["recipe_sha256"]), self._winner_told(result)],
        )
        self._tell_finalists(judged)
        self._client.log_text(self._parent, json.dumps(result, indent=2, ensure_ascii=False), "result.json")
        if (best.parent / "report").is_dir():
            self._client.log_artifacts(self._parent, str(best.parent / "report"), "report")
        # A folder for each winner: an earlier version must keep its weights and its scores.
        weights = result["winner"]["weights_sha256"][:12]
        model, problems = f"model-{weights}", f"problems-{weights}"
        for split, scores in judged.winner.items():
            self._log_table(self._parent, split, scores, f"{problems}/{split}.json")
        put_model(self._client, self._parent, best, model)
        tags = winner_tags(result, load_recipe(best / RECIPE), judged, self._goal, self._problems)
        tags |= self._common | {MODEL: model, PROBLEMS: problems}
        own = judged.winner.get("validation", {}).get(self._goal.name)
        winner = Winner(self._parent, model, tags, own, described(result, self._goal))
        registry = Registry(self._client, self._options.model, self._studies)
        registered = registry.register(winner, self._options.level, self._options.keep)
        self._end_monitor()
        self._client.set_terminated(self._parent)
        return registered

    def _winner_told(self, result: Mapping[str, Any]) -> Any:
        """The description of the study, which people may have changed since, with its winner."""
        from mlflow.entities import RunTag

        known = self._client.get_run(self._parent).data.tags.get(NOTE, "")
        sentence = described(result, self._goal)
        return RunTag(NOTE, with_winner(known[: _NOTE - len(sentence) - 2], result["study"], sentence))

    def _tell_finalists(self, judged: Judged) -> None:
        """Add what finalists scored on validation to their runs."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        for finalist in judged.finalists:
            if self._options.runs == "finalists":
                self._record(finalist.trial)
            run = self._recorded.get(finalist.trial.number)
            if run is None:
                continue
            values = {name: scores[scores == scores] for name, scores in finalist.scores.items()}
            whole = len(values.get(self._goal.name, ())) == len(finalist.scores.get(self._goal.name, ()))
            prefix = "validation/" if whole else "partial/validation/"
            metrics = [Metric(prefix + name, float(seen.mean()), now, 0) for name, seen in values.items() if len(seen)]
            self._client.log_batch(run, metrics=metrics, tags=[RunTag("finalist", "true")])
            self._log_table(run, "validation", finalist.scores, "validation.json")

    def _log_table(self, run: str, split: Split, scores: Scores, name: str) -> None:
        table = table_of(self._problems[split].problems, scores)
        self._client.log_text(run, json.dumps(table, ensure_ascii=False), name)

    def stop(self, reason: str) -> None:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not self._parent:
            return
        # Why the search stops matters more than that it cannot be recorded.
        with contextlib.suppress(MlflowException, SQLAlchemyError, OSError):
            self._end_monitor()
            self._client.set_tag(self._parent, _STOPPED, reason)
            self._client.set_terminated(self._parent, status="KILLED")

    def _end_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


def experiment_of(study: str, settings: Mapping[str, Any]) -> str:
    """The name of a study without its seed: `demo` of `demo-seed0`, `demo_hybrid-evolved` of its first stage."""
    return re.sub(rf"-seed{settings['study']['seed']}(?=-|$)", "", study) or study


def build(options: Options) -> MlflowTracker:
    """The tracker with these settings, connected."""
    return MlflowTracker(options)
