"""From a configuration to everything that a search needs, checked before anything starts."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from optmerge.commands.percent import percent
from optmerge.commands.policy import licence_lines, licences_of, refuse_what_forbids
from optmerge.config import Config, options_of
from optmerge.engines import Bench, Engine
from optmerge.errors import UsageError
from optmerge.models import (
    Adapter,
    Checkpoint,
    Companions,
    Fit,
    check_finite,
    check_fit,
    commit_of,
    companions,
    missing,
    open_checkpoints,
    resolve,
    scan,
    tokens_sha256,
)
from optmerge.models.layers import depth, layer_of
from optmerge.models.licences import Declared
from optmerge.recipe import RECIPE, CheckpointNode, Node, PathNode, load_recipe, node_sha256
from optmerge.registered import find, version_of
from optmerge.space import (
    By,
    Grouping,
    Ingredients,
    Kinds,
    ParameterSpace,
    PathSettings,
    PathSpace,
    Range,
    Searched,
    TensorGroup,
    group_tensors,
)
from optmerge.study.charter import OpenStudy
from optmerge.study.identity import identity
from optmerge.study.judged import ProblemSet, problem_sets
from optmerge.study.launchers.launcher import Launcher
from optmerge.study.objective import Pruner
from optmerge.study.sampler import Sampler
from optmerge.tasks import SPLITS, Split, Task, check_disjoint
from optmerge.tracking import Tracker

if TYPE_CHECKING:
    import optuna

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plugins:
    """What a configuration names, found and with its settings checked; nothing heavy is loaded yet."""

    task: Task
    task_version: Mapping[str, str]  # of a task that is not ours: the hash of its file
    engine: tuple[Any, Any]  # module and options
    sampler: Sampler
    pruner: Pruner
    pruner_options: Any
    tracking: tuple[Any, Any]
    launcher: Launcher


@dataclass(frozen=True)
class Assembly:
    """A search that could start now."""

    config: Config
    plugins: Plugins
    checkpoints: Mapping[str, Checkpoint]
    fit: Fit
    companions: Companions
    space: ParameterSpace | PathSpace
    groups: Mapping[str, TensorGroup]
    stand_ins: Mapping[str, CheckpointNode] = field(default_factory=dict)  # of sources that are recipes
    licences: Mapping[str, Declared] = field(default_factory=dict)  # what each source is under

    def opened(self) -> dict[str, Checkpoint]:
        """Node hash to checkpoint, as a workbench takes them."""
        leaves = {**self.space.sources, **self.stand_ins}
        return {node_sha256(node): self.checkpoints[alias] for alias, node in leaves.items()}

    def identity(self) -> dict[str, Any]:
        """What a study must share with this search to be continued by it."""
        search = {
            "seed": self.config.study.seed,
            **({} if self.config.study.problems is None else {"problems": self.config.study.problems}),
            "sampler": {"name": self.config.sampler["name"], **dataclasses.asdict(self.plugins.sampler.options)},
            "pruner": {"name": self.config.pruner["name"], **dataclasses.asdict(self.plugins.pruner_options)},
        }
        task = {**self.plugins.task.fingerprint(), **self.plugins.task_version}
        return identity(self.space.genes, self.space.description(), task, search)

    def problem_sets(self) -> dict[Split, ProblemSet]:
        """The splits of its task, each with a hash that says whose scores can be compared."""
        return problem_sets(self.plugins.task, str(self.config.task["name"]), self.plugins.task_version)

    def model_bytes(self) -> int:
        """Size of one merged model."""
        width = {"float32": 4, "bfloat16": 2, "float16": 2}[self.config.models.dtype]
        path = self.config.space.path
        if path is None:
            return width * self.fit.parameters
        sizes = {name: math.prod(shape) for name, shape in self.fit.shapes.items()}
        layers = sum(size for name, size in sizes.items() if layer_of(name) is not None)
        # The longest path that there may be.
        return width * (self.fit.parameters - layers + path.max_hops * layers // depth(self.fit.names))


@dataclass(frozen=True)
class Run:
    """A search that has started.

    Attributes:
        assembly: What it was made from.
        opened: The study.
        engine: Answers, with its model in memory.
        workbench: Merges.
        tracker: Records.
        folder: Where its results go.
        console: Where progress goes.
    """

    assembly: Assembly
    opened: OpenStudy
    engine: Engine
    workbench: Bench
    tracker: Tracker
    folder: Path
    console: Console

    @property
    def study(self) -> "optuna.Study":
        return self.opened.study


def find_plugins(config: Config) -> Plugins:
    """Look up what the configuration names and check its settings.

    Raises:
        UsageError: If a name or setting is unknown, a value is out of its range, or the engine cannot run merges.
    """
    refuse_what_forbids(config)
    task_module, task_options = options_of("task", config.task, "optmerge.tasks")
    sampler = Sampler(*options_of("sampler", config.sampler, "optmerge.study.samplers"))
    pruner_module, pruner_options = options_of("pruner", config.pruner, "optmerge.study.pruners")
    engine_module, engine_options = options_of("engine", config.engine, "optmerge.engines")
    tracking = options_of("tracking", config.tracking, "optmerge.tracking")
    task = task_module.build(task_options)
    if config.space.path is not None:
        config.space.path.check()
    else:
        _check_merging(config, sampler)
    _check_engine(config, engine_module)
    engine_module.pick_device(engine_options)
    launcher_module, launcher_options = options_of("launcher", config.launcher, "optmerge.study.launchers")
    return Plugins(
        task=task,
        task_version=version_of(task_module),
        engine=(engine_module, engine_options),
        sampler=sampler,
        pruner=pruner_module.build(pruner_options),
        pruner_options=pruner_options,
        tracking=tracking,
        launcher=launcher_module.build(launcher_options),
    )


def _check_engine(config: Config, module: ModuleType) -> None:
    """Refuse an engine that takes no candidates: its module says so, as an engine is built only after the sources."""
    if getattr(module, "NEEDS", "weights") == "nothing":
        raise UsageError(module.REFUSAL)


def _check_merging(config: Config, sampler: Sampler) -> None:
    _grouping(config).check()
    searched, has_base = _searched(config), config.models.base is not None
    merged = [alias for alias in config.models.sources if alias != config.models.base]
    searched.check(merged, has_base)
    sampler.check(searched.choice_genes(merged, has_base))


def _grouping(config: Config) -> Grouping:
    space = config.space
    return Grouping(
        by=cast("By", space.groups),
        block_layers=space.block_layers,
        kinds=cast("Kinds", space.kinds),
        embeddings=space.embeddings,
        head=space.head,
        patterns=space.patterns,
        patterns_by=cast("By", space.patterns_by),
        smooth=space.smooth,
    )


def _searched(config: Config) -> Searched:
    method = config.method
    return Searched(
        method=method.name,
        choices=method.choices,
        ranges={name: Range(**vars(given)) for name, given in method.parameters.items()},
        genes={pattern: Range(**vars(given)) for pattern, given in method.genes.items()},
        options=method.options,
        choose_sources=config.space.sources == "choose",
        least_sources=config.space.least_sources,
    )


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
        missing(source.path, source.revision, alias=alias)
        for alias, source in sorted(config.models.sources.items())
        if source.path
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
    licences = licences_of(config, ask_hub=True)
    for line in licence_lines(config, licences):
        say(line)
    models = config.models
    checkpoints = open_checkpoints(
        {alias: resolve(s.path, s.revision, alias=alias) for alias, s in sorted(models.sources.items())},
        {alias: source.over for alias, source in models.sources.items()},
        base=models.base,
    )
    fit = check_fit(
        checkpoints,
        base=models.base,
        tokenizer=models.tokenizer,
        pad_vocabulary_to=models.pad_vocabulary_to,
        same_depth=config.space.path is None,
    )
    beside = companions(fit)
    for notice in [*_adapter_notices(config, checkpoints), *fit.notices]:
        say(f"note: {notice}")
    problems = {split: plugins.task.problems(split) for split in SPLITS}
    check_disjoint(problems)
    if config.study.problems is not None and config.task["name"] == "composite":
        raise UsageError("study.problems: a sample would not keep the weights of task=composite; leave it null")
    for guard in plugins.task.guards:
        if guard.of is not None and guard.of not in config.models.sources:
            known = ", ".join(sorted(config.models.sources))
            raise UsageError(f"task.guards.{guard.name}.of={guard.of}: no such source; models.sources has {known}")
    asked = config.study.problems
    if asked is not None and config.pruner["name"] != "none":
        raise UsageError(
            f"study.problems={asked}: every generation answers other problems, so that trials cannot race those of the "
            "last one; write pruner=none"
        )
    if asked is not None and asked > len(problems["search"]):
        raise UsageError(f"study.problems={asked}: task.search has only {len(problems['search'])}")
    if config.study.selection == "validation" and not problems["validation"]:
        raise UsageError("task.validation is empty, but study.selection=validation chooses the winner by it")
    nodes = _nodes(config, checkpoints, fit, licences, say)
    if config.space.path is not None:
        found = _found_recipes(config, nodes)
        path_space = _path_space(config, config.space.path, {**nodes, **found}, checkpoints)
        plugins.sampler.check(path_space.genes, len(plugins.task.objectives))
        stand_ins = {alias: nodes[alias] for alias in found}
        return Assembly(config, plugins, checkpoints, fit, beside, path_space, {}, stand_ins, licences)
    ingredients = Ingredients(
        sources=nodes,
        base=models.base,
        tokenizer=models.tokenizer,
        dtype=models.dtype,
        seed=config.study.seed,
        vocabulary_base=models.base if fit.alignment else None,
        pad_vocabulary_to=models.pad_vocabulary_to,
    )
    groups = group_tensors(fit.names, _grouping(config))
    space = ParameterSpace(searched=_searched(config), groups=groups, ingredients=ingredients)
    plugins.sampler.check(space.genes, len(plugins.task.objectives))
    return Assembly(config, plugins, checkpoints, fit, beside, space, groups, licences=licences)


def _path_space(
    config: Config, path: PathSettings, nodes: Mapping[str, Node], checkpoints: Mapping[str, Checkpoint]
) -> PathSpace:
    from optmerge.flow.families import family_of  # brings torch, which commands that only look do not need

    depths = {alias: depth(checkpoints[alias].names()) for alias in nodes}
    family_of(str(checkpoints[path.order[0]].config.get("model_type")))
    return PathSpace(path, nodes, depths, config.models.tokenizer, config.models.dtype)


def _found_recipes(config: Config, nodes: Mapping[str, CheckpointNode]) -> dict[str, Node]:
    """The recipes of sources that a search has found, which stand in recipes for the checkpoints that they are.

    Raises:
        UsageError: If the checkpoint is not what its recipe says.
    """
    found: dict[str, Node] = {}
    for alias, source in config.models.sources.items():
        if source.search:
            recipe = load_recipe(Path(source.path) / RECIPE)
            if recipe.weights_sha256 != nodes[alias].weights_sha256:
                raise UsageError(f"{alias}: the weights in {source.path} are not those that its recipe names")
            if isinstance(recipe.root, PathNode):
                raise UsageError(f"models.sources.{alias}.search: its winner is a path, and a source must be a merge")
            found[alias] = recipe.root
    return found


def _nodes(
    config: Config, checkpoints: Mapping[str, Checkpoint], fit: Fit, licences: Mapping[str, Declared], say: Say
) -> dict[str, CheckpointNode]:
    scans = {}
    for alias, checkpoint in checkpoints.items():
        scans[alias] = scan(checkpoint, percent(say, f"{alias}: hashing, and looking for NaN"))
    check_finite(scans)

    def node(alias: str) -> CheckpointNode:
        source, checkpoint = config.models.sources[alias], checkpoints[alias]
        adapter = checkpoint if isinstance(checkpoint, Adapter) else None
        return CheckpointNode(
            location=_location(source.path),
            weights_sha256=scans[alias].weights_sha256,
            revision=commit_of((adapter.weights if adapter else checkpoint).folder) or source.revision,
            over=node(adapter.base.alias) if adapter else None,
            tokens_sha256=tokens_sha256(checkpoint) if fit.alignment else None,
            licence=licences[alias].text if licences[alias].found else None,
        )

    return {alias: node(alias) for alias in config.models.sources}


def _adapter_notices(config: Config, checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    adapters = [checkpoint for checkpoint in checkpoints.values() if isinstance(checkpoint, Adapter)]
    notices = [adapter.notice(config.models.sources[adapter.base.alias].path) for adapter in adapters]
    return [notice for notice in notices if notice]


def _location(path: str) -> str:
    """Folders as absolute paths, so that a recipe copied elsewhere still finds them; hub ids as they are."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.exists() else path
