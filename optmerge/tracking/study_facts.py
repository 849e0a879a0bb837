"""What the run of a study is told of it: parameters to compare studies by, and a description for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from optmerge.recipe import portable_location
from optmerge.study.judged import ProblemSet
from optmerge.tasks import Objective, Split

NOTE = "mlflow.note.content"  # the tag that MLflow's pages show as a run's description
_LONGEST = 500  # letters of a parameter's value: the limit of older servers


def params_of_study(
    settings: Mapping[str, Any], goal: Objective, problems: Mapping[Split, ProblemSet]
) -> dict[str, str]:
    """What is settled for as long as a study lasts, as MLflow's parameters are; the budget may still be raised.

    Args:
        settings: Its configuration.
        goal: The score that its results are told in.
        problems: The problems of its splits.
    """
    models, study = settings.get("models", {}), settings.get("study", {})
    sources = models.get("sources", {})
    found = {
        "method": _method(settings),
        "space": _space(settings.get("space", {})),
        "sources": ", ".join(sorted(sources)),
        "base": _base(models.get("base"), sources),
        "dtype": models.get("dtype"),
        "task": settings.get("task", {}).get("name"),
        "objective": goal.name,
        "sampler": settings.get("sampler", {}).get("name"),
        "population": settings.get("sampler", {}).get("population"),
        "seed": study.get("seed"),
    }
    found |= {f"problems/{split}": len(known.problems) for split, known in problems.items()}
    if "search" in problems and study.get("problems"):
        found["problems/search"] = study["problems"]
    return {name: str(value)[:_LONGEST] for name, value in found.items() if value not in (None, "")}


def params_of_trials(settings: Mapping[str, Any], trial: FrozenTrial) -> dict[str, str]:
    """What the first trial that has a value tells of its study: the number of genes, and whether trials are pruned."""
    found = {"genes": str(len(trial.params))}
    pruner = settings.get("pruner", {}).get("name")
    if pruner is not None:
        found["pruner"] = "none" if len(trial.values or ()) > 1 else str(pruner)  # of several scores none is pruned
    return found


def description_of(study: str, settings: Mapping[str, Any], goal: Objective) -> str:
    """What is searched and how to look at it, in two lines of Markdown."""
    return "\n\n".join(_lines(study, settings, goal))


def with_winner(description: str, study: str, sentence: str) -> str:
    """A description, which people may have changed, with what is said of the winner at its end.

    Args:
        description: It may name an earlier winner.
        study: Name of the study.
        sentence: What is said.
    """
    begins = f"Winner of study {study}."
    kept = [part for part in description.split("\n\n") if part and not part.startswith(begins)]
    return "\n\n".join([*kept, sentence])


def _lines(study: str, settings: Mapping[str, Any], goal: Objective) -> Iterator[str]:
    method, space = _method(settings), _space(settings.get("space", {}))
    what = f"merges by {method} (parameters by {space})" if space else method or "merges"
    sources = ", ".join(sorted(settings.get("models", {}).get("sources", {})))
    task = settings.get("task", {}).get("name")
    of = f" of {sources}" if sources else ""
    by = f" (task {task})" if task else ""
    yield f"Searched are {what}{of}, for {goal.name}{by}."
    yield f"Its report: `python -m optmerge report study.name={study}`"


def _method(settings: Mapping[str, Any]) -> str:
    if (settings.get("space") or {}).get("path"):
        return "paths over layers"
    method = settings.get("method", {})
    return ", ".join(dict.fromkeys(filter(None, [method.get("name"), *method.get("choices", [])])))


def _space(space: Mapping[str, Any]) -> str:
    """Which tensors share genes; empty for paths."""
    if not space or space.get("path"):
        return ""
    told = [str(space.get("groups"))]
    if space.get("groups") == "blocks":
        told[0] += f" of {space.get('block_layers')}"
    if space.get("kinds", "none") != "none":
        told.append(str(space["kinds"]))
    if space.get("smooth") is not None:
        told.append(f"smooth {space['smooth']}")
    if space.get("sources", "all") != "all":
        told.append(f"sources {space['sources']}")
    return ", ".join(told)


def _base(alias: str | None, sources: Mapping[str, Any]) -> str | None:
    """The base by its hub id or the name of its folder."""
    path = (sources.get(alias) or {}).get("path") if alias is not None else None
    return portable_location(path) if path else alias
