"""From a configuration to everything that a search needs, checked before anything starts."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from optmerge.commands.percent import percent
from optmerge.config import Config, options_of
from optmerge.engines import Engine
from optmerge.errors import UsageError
from optmerge.method import get_method
from optmerge.models import Checkpoint, Fit, check_finite, check_fit, missing, resolve, scan
from optmerge.recipe import CheckpointNode, Node, node_sha256
from optmerge.registered import find
from optmerge.space import By, Ingredients, ParameterSpace, Range, group_tensors, searched_ranges
from optmerge.study.identity import identity
from optmerge.study.objective import Pruner
from optmerge.study.search import Sampler
from optmerge.tasks import SPLITS, Task, check_disjoint
from optmerge.tracking import Tracker

if TYPE_CHECKING:
    from optmerge.merge import Workbench

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plugins:
    """What a configuration names, found and with its settings checked; nothing heavy is loaded yet."""

    task: Task
    engine: tuple[Any, Any]  # module and options
    sampler: Sampler
    pruner: Pruner
    pruner_options: Any
    tracking: tuple[Any, Any]


@dataclass(frozen=True)
class Assembly:
    """A search that could start now."""

    config: Config
    plugins: Plugins
    checkpoints: Mapping[str, Checkpoint]
    fit: Fit
    ingredients: Ingredients
    space: ParameterSpace
    groups: Mapping[str, tuple[str, ...]]

    def opened(self) -> dict[str, Checkpoint]:
        """Node hash to checkpoint, as a workbench takes them."""
        return {node_sha256(node): self.checkpoints[alias] for alias, node in self.ingredients.sources.items()}

    def identity(self) -> dict[str, Any]:
        """What a study must share with this search to be continued by it."""
        example = self.space.decode({gene.name: gene.start() for gene in self.space.genes}).root
        merge = {key: value for key, value in example.content().items() if key != "groups"}
        fixed = {name: given.value for name, given in self.space.ranges.items() if given.value is not None}
        search = {
            "seed": self.config.study.seed,
            "sampler": {"name": self.config.sampler["name"], **dataclasses.asdict(self.plugins.sampler.options)},
            "pruner": {"name": self.config.pruner["name"], **dataclasses.asdict(self.plugins.pruner_options)},
        }
        return identity(self.space.genes, merge | {"fixed": fixed}, self.plugins.task.fingerprint(), search)

    def model_bytes(self) -> int:
        """Size of one merged model."""
        import math

        width = {"float32": 4, "bfloat16": 2, "float16": 2}[self.config.models.dtype]
        return width * sum(math.prod(shape) for shape in self.fit.shapes.values())


@dataclass(frozen=True)
class Run:
    """A search that has started.

    Attributes:
        assembly: What it was made from.
        study: The Optuna study.
        engine: Answers, with its model in memory.
        workbench: Merges.
        tracker: Records.
        folder: Where its results go.
        console: Where progress goes.
    """

    assembly: Assembly
    study: Any
    engine: Engine
    workbench: "Workbench"
    tracker: Tracker
    folder: Path
    console: Console


def find_plugins(config: Config) -> Plugins:
    """Look up what the configuration names and check its settings.

    Raises:
        UsageError: If a name or setting is unknown, or a value is out of its range.
    """
    task_module, task_options = options_of("task", config.task, "optmerge.tasks")
    sampler = Sampler(*options_of("sampler", config.sampler, "optmerge.study.samplers"))
    pruner_module, pruner_options = options_of("pruner", config.pruner, "optmerge.study.pruners")
    engine_module, engine_options = options_of("engine", config.engine, "optmerge.engines")
    tracking = options_of("tracking", config.tracking, "optmerge.tracking")
    task = task_module.build(task_options)
    sampler.check([])
    searched_ranges(config.method.name, _ranges(config), config.method.options)
    if get_method(config.method.name).base == "required" and config.models.base is None:
        raise UsageError(
            f"method={config.method.name} measures task vectors from a base: set models.base to a source's alias"
        )
    engine_module.pick_device(engine_options)
    return Plugins(
        task=task,
        engine=(engine_module, engine_options),
        sampler=sampler,
        pruner=pruner_module.build(pruner_options),
        pruner_options=pruner_options,
        tracking=tracking,
    )


def _ranges(config: Config) -> dict[str, Range]:
    parameters = config.method.parameters.items()
    return {name: Range(given.low, given.high, given.initial, given.value) for name, given in parameters}


def make_sources(config: Config, say: Say, trained: bool) -> None:
    """Let the maker that the configuration names, if any, make the sources and problems.

    Raises:
        UsageError: If there is no such maker, or it has no folder to work in.
    """
    models = config.models
    if models.maker is None:
        return
    if models.folder is None:
        raise UsageError("models.folder is missing: it says where models.maker works")
    find("optmerge", models.maker, "models.maker").make(
        Path(models.folder), seed=models.seed, report=say, trained=trained
    )


def refuse_missing(config: Config, plugins: Plugins) -> None:
    """Check that all checkpoints and data sets can be had.

    Raises:
        UsageError: In one message: everything that is missing, and how to get it.
    """
    lines = [
        missing(source.path, source.revision, alias=alias) for alias, source in sorted(config.models.sources.items())
    ]
    lines += plugins.task.missing()
    found = [line for line in lines if line]
    if found:
        raise UsageError(
            f"nothing was started: {len(found)} of the checkpoints and data sets are missing\n  " + "\n  ".join(found)
        )


def assemble(config: Config, plugins: Plugins, say: Say) -> Assembly:
    """Open sources and problems, and check that they fit together.

    Raises:
        UsageError: If they do not, or a source holds NaN, or splits share problems.
    """
    refuse_missing(config, plugins)
    models = config.models
    checkpoints = {
        alias: Checkpoint.open(resolve(source.path, source.revision, alias=alias), alias)
        for alias, source in sorted(models.sources.items())
    }
    fit = check_fit(checkpoints, base=models.base, tokenizer=models.tokenizer)
    for notice in fit.notices:
        say(f"note: {notice}")
    problems = {split: plugins.task.problems(split) for split in SPLITS}
    check_disjoint(problems)
    if config.study.selection == "validation" and not problems["validation"]:
        raise UsageError("task.validation is empty, but study.selection=validation chooses the winner by it")
    ingredients = Ingredients(
        sources=_nodes(config, checkpoints, say),
        base=models.base,
        tokenizer=models.tokenizer,
        dtype=models.dtype,
        seed=config.study.seed,
    )
    groups = group_tensors(
        fit.names,
        cast("By", config.space.groups),
        block_layers=config.space.block_layers,
        sublayers=config.space.sublayers,
        embeddings=config.space.embeddings,
    )
    space = ParameterSpace(
        method=config.method.name,
        ranges=_ranges(config),
        groups=groups,
        ingredients=ingredients,
        options=config.method.options,
    )
    plugins.sampler.check(space.genes)
    return Assembly(config, plugins, checkpoints, fit, ingredients, space, groups)


def _nodes(config: Config, checkpoints: Mapping[str, Checkpoint], say: Say) -> dict[str, Node]:
    scans = {}
    for alias, checkpoint in checkpoints.items():
        scans[alias] = scan(checkpoint, percent(say, f"{alias}: hashing, and looking for NaN"))
    check_finite(scans)
    return {
        alias: CheckpointNode(
            location=_location(source.path),
            weights_sha256=scans[alias].weights_sha256,
            revision=_commit(checkpoints[alias].folder) or source.revision,
        )
        for alias, source in config.models.sources.items()
    }


def _commit(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache holds: a branch may have moved on when the recipe is rebuilt."""
    return folder.name if folder.parent.name == "snapshots" else None


def _location(path: str) -> str:
    """Folders as absolute paths, so that a recipe copied elsewhere still finds them; hub ids as they are."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.exists() else path
