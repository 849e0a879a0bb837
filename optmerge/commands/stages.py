"""Sources that are the winners of searches: these run first."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from optmerge.commands.ending import BEST
from optmerge.config import Config, compose_config
from optmerge.recipe import RECIPE


def searched_sources(config: Config) -> dict[str, Config]:
    """Alias to the configuration of the search whose winner the source is; none where the winner is there already.

    Such a search shares the study's seed, folder, database, tracker, launcher and engine, and is named after it.
    """
    study = config.study
    shared = [f"study.seed={study.seed}", f"study.folder={study.folder}"]
    stages = {}
    for alias, source in config.models.sources.items():
        if source.search and not (Path(source.path or "nowhere") / RECIPE).is_file():
            stage = compose_config([*shared, *source.search, f"study.name={study.name}-{alias}"])
            stage.storage, stage.tracking, stage.launcher = config.storage, config.tracking, config.launcher
            stage.engine, stage.merging = config.engine, config.merging
            stages[alias] = stage
    return stages


def standing_in(config: Config, stages: Mapping[str, Config]) -> Config:
    """The configuration with models of the same shape in the place of winners that are not there yet.

    A winner has the shape, vocabulary and configuration of the source that gives its tokenizer. So all that can be
    wrong with the last search can be found, and planned, before the first.

    Args:
        config: The last search.
        stages: Alias to the search whose winner the source will be.
    """
    shaped = copy.deepcopy(config)
    for alias, stage in stages.items():
        models = standing_in(stage, searched_sources(stage)).models
        like = models.tokenizer if models.tokenizer in models.sources else models.base or min(models.sources)
        shaped.models.sources[alias] = replace(models.sources[like], search=[])
    return shaped


def winner_folder(stage: Config) -> Path:
    """Where the winner of a search is, or will be."""
    return (Path(stage.study.folder) / str(stage.study.name) / BEST).absolute()


def search_sources(config: Config, console: Console) -> dict[str, str]:
    """Run, resume or report the searches whose winners are sources, and let the sources be there.

    Returns:
        Alias to the name of the study.
    """
    from optmerge.commands.search import run_search

    studies = {}
    for alias, stage in searched_sources(config).items():
        console.print(f"First the search for source {alias}.", highlight=False)
        run_search(stage, console)
        config.models.sources[alias].path = str(winner_folder(stage))
        studies[alias] = str(stage.study.name)
    return studies
