"""Sources that are the winners of searches: these run first."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from optmerge.commands.assembly import assemble, find_plugins
from optmerge.commands.study_folder import BEST
from optmerge.config import Config, compose_config
from optmerge.errors import UsageError
from optmerge.models.adapter_config import ADAPTER_CONFIG
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
            stage.engine, stage.merging, stage.policy = config.engine, config.merging, config.policy
            stages[alias] = stage
    return stages


def standing_in(config: Config, stages: Mapping[str, Config]) -> Config:
    """The configuration with models of the same shape in the place of winners that are not there yet.

    A winner has the shape of any of its sources, and, but for joined vocabularies, all else of the one that gives its
    tokenizer. So what is wrong with the last search can be found, and planned, before the first.

    Args:
        config: The last search.
        stages: Alias to the search whose winner the source will be.
    """
    shaped = copy.deepcopy(config)
    for alias, stage in stages.items():
        models = standing_in(stage, searched_sources(stage)).models
        like = models.tokenizer if models.tokenizer in models.sources else models.base or min(models.sources)
        if models.base is not None and (Path(models.sources[like].path) / ADAPTER_CONFIG).is_file():
            like = models.base
        shaped.models.sources[alias] = replace(models.sources[like], search=[], over=None)
    return shaped


def check_all(config: Config, console: Console) -> None:
    """Check the searches that run first, and the last one, before hours are spent on any.

    Raises:
        UsageError: As `assemble` does.
    """
    from optmerge.commands.search import check_room_for, printed, trained_sources

    stages = searched_sources(config)
    for alias, stage in stages.items():
        if stage.space.path is not None:
            raise UsageError(f"models.sources.{alias}.search: its winner is a path, and a source must be a merge")
        check_all(stage, console)
    plugins = find_plugins(config)
    trained_sources(config, console)
    assembly = assemble(standing_in(config, stages), plugins, printed(console))
    check_room_for(assembly)


def winner_folder(stage: Config) -> Path:
    """Where the winner of a search is, or will be."""
    return (stage.study.own_folder / BEST).absolute()


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
