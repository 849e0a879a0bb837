"""The problems of a study as MLflow's data sets: what a run was made with, by digest and source."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optmerge.study.judged import ProblemSet
from optmerge.tasks import Split

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST = 36  # letters that MLflow allows


def inputs_of(task: Mapping[str, Any], problems: Mapping[Split, ProblemSet]) -> "list[DatasetInput]":
    """A data set a split.

    Args:
        task: Settings of the task.
        problems: The splits that have any.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for split, found in problems.items():
        kind, source = _source(task, split)
        data_set = Dataset(
            name=f"{task.get('name', 'task')} {split}",
            digest=found.sha256[:_DIGEST],
            source_type=kind,
            source=json.dumps(source, ensure_ascii=False),
            profile=json.dumps({"num_rows": len(found.problems)}),
        )
        inputs.append(DatasetInput(data_set, [InputTag("mlflow.data.context", split)]))
    return inputs


def _source(task: Mapping[str, Any], split: Split) -> tuple[str, Mapping[str, Any]]:
    """Where the problems of a split come from, in the words of MLflow for files, else in those of the settings."""
    settings = task.get(split)
    if not isinstance(settings, Mapping):  # a task with others in it
        return "task", task
    path = settings.get("path")
    return ("local", {"uri": path}) if path and Path(path).exists() else ("task", settings)
