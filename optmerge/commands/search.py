"""The search command: from a configuration to a merged model in a folder."""

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from optmerge.commands.assembly import Assembly, Plugins, Run, Say, assemble, find_plugins, make_sources
from optmerge.commands.ending import finish, finished_result
from optmerge.commands.noticeboard import Noticeboard
from optmerge.commands.study_folder import BEST, RESPONSES
from optmerge.commands.whereabouts import dashboards, report
from optmerge.commands.workers import end_elsewhere, run_workers
from optmerge.config import Config
from optmerge.errors import OptmergeError, UsageError
from optmerge.models import Adapter, check_room
from optmerge.reports.progress import ProgressLine
from optmerge.study.charter import CONFIG, OpenStudy, open_study
from optmerge.tracking import Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.trial import FrozenTrial

    from optmerge.study.database import Database
    from optmerge.study.objective import Objective


STAGES = "searched_sources"  # user attribute of a study: alias to the study whose winner the source is


def run_search(config: Config, console: Console) -> dict[str, Any]:
    """Run, resume or report a study.

    Args:
        config: The whole configuration.
        console: Where progress and results go.

    Returns:
        The contents of its result.json.

    Raises:
        OptmergeError: If it cannot be run, or was interrupted.
    """
    from optmerge.commands.stages import check_all, search_sources, searched_sources

    quiet_libraries()
    plugins = find_plugins(config)
    if searched_sources(config):
        check_all(config, console)
    stages = search_sources(config, console)
    assembly, database = _prepare(config, plugins, console)
    folder = config.study.own_folder
    known = _known_study(assembly, database)
    done = finished_result(config, known, folder) if known else None
    if done is not None:
        console.print(f"Study {config.study.name} is finished: this is what it found.", highlight=False)
        report(done, assembly, folder, console)
        return done
    check_room_for(assembly)
    module, options = plugins.tracking
    tracker = module.build(options)
    opened = known or create_study(assembly, database)
    if known:  # how it ends may be told otherwise now
        database.set_study_user_attr(known.study_id, CONFIG, settings_to_keep(config))
    if stages:
        opened.study.set_user_attr(STAGES, stages)
    database.set_control(
        opened.study_id,
        trials=config.study.trials,
        stagnation=config.study.stagnation,
        stop=False,
        since=len(opened.study.get_trials(deepcopy=False)),
    )
    opened = open_study(database, str(config.study.name))
    with _told_why_it_stops(opened.study, tracker):
        _start_tracking(opened, assembly, tracker)
        launcher = plugins.launcher
        if launcher.workers == 1 and launcher.is_here:
            run = _start(assembly, opened, tracker, folder, console)
            _search(run)
        else:
            run_workers(assembly, opened, tracker, folder, console)
            if not launcher.is_here:
                result = end_elsewhere(assembly, folder, console)
                report(result, assembly, folder, console)
                return result
            run = _start(assembly, opened, tracker, folder, console)
        result = finish(run)
    report(result, assembly, folder, console)
    return result


def _start(assembly: Assembly, opened: OpenStudy, tracker: Tracker, folder: Path, console: Console) -> Run:
    engine, workbench = start_engine(assembly, lambda text: console.print(text, highlight=False, markup=False))
    return Run(assembly, opened, engine, workbench, tracker, folder, console)


def _prepare(config: Config, plugins: Plugins, console: Console) -> tuple[Assembly, "Database"]:
    trained_sources(config, console)
    return assemble(config, plugins, printed(console)), open_database(config)


def trained_sources(config: Config, console: Console) -> None:
    """Let the maker that the configuration names, if any, make its sources, unless they are there."""
    if config.models.maker is not None:
        open_database(config)  # a wrong URL is found out before minutes of training, not after
        make_sources(config, printed(console), trained=True)


def printed(console: Console) -> Say:
    """What prints notices as they are."""
    return lambda text: console.print(text, highlight=False, markup=False)


def open_database(config: Config, *, create: bool = True) -> "Database":
    """The database that a configuration names; if it is a file, it is made only on request."""
    from optmerge.study.storage import open_storage

    storage = config.storage
    return open_storage(storage.url, patience=storage.patience, beat=storage.beat, grace=storage.grace, create=create)


@contextlib.contextmanager
def _told_why_it_stops(study: Any, tracker: Tracker) -> Iterator[None]:
    """Tell tracker and user why a search ends before its end, and how to go on."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    again = "run the same command again to go on"
    try:
        yield
    except KeyboardInterrupt as error:
        tracker.stop("interrupted")
        name = study.study_name
        raise OptmergeError(f"interrupted; what is finished is kept in study {name}: {again}") from error
    except OptmergeError as error:
        tracker.stop(str(error))
        raise
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = f"the study database failed: {str(error).splitlines()[0]}"
        tracker.stop(reason)
        raise OptmergeError(f"{reason}; {again}") from error


def _start_tracking(opened: OpenStudy, assembly: Assembly, tracker: Tracker) -> None:
    from optmerge.study.identity import KEY

    study, goal, problems = opened.study, assembly.plugins.task.goal, assembly.problem_sets()
    tracker.start(study.study_name, study.user_attrs[KEY], settings_to_keep(assembly.config), goal, problems)
    for trial in opened.study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            tracker.trial(trial)


def settings_to_keep(config: Config) -> dict[str, Any]:
    """A configuration without addresses, which may hold passwords, and without what a worker is told otherwise."""
    settings = dataclasses.asdict(config)
    for address in ("url", "url_file"):
        del settings["storage"][address]
    if "uri" in settings["tracking"]:
        del settings["tracking"]["uri"]
    return settings


def _search(run: Run) -> None:
    from optmerge.study.worker import work

    objective = objective_of(run)
    assembly, opened = run.assembly, run.opened
    proposer = assembly.plugins.sampler.proposer(assembly.space.genes, assembly.config.study.seed, opened.starts)
    with (
        progress_line(assembly, opened, run.console) as line,
        Shown(opened, line, run.tracker, Noticeboard(assembly, opened, run.folder)) as shown,
    ):
        for _ in work(opened.study, opened.database, opened.plan, proposer, objective):
            shown.update()
        shown.update()  # others may have finished the last ones


class Shown:
    """What a progress line and a tracker were told of a study, whoever ran its trials.

    As a context it tells optuna-dashboard of an end before the end.

    Args:
        opened: The study; what ended before is known already.
        line: The progress line.
        tracker: The tracker.
        board: Tells optuna-dashboard.
    """

    def __init__(self, opened: OpenStudy, line: ProgressLine, tracker: Tracker, board: Noticeboard) -> None:
        self._study = opened.study
        self._line = line
        self._tracker = tracker
        self._board = board
        board.update()
        self._numbers = {trial.number for trial in self._ended()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            self._board.leave()

    def update(self) -> None:
        """Tell them of the trials that ended since the last time."""
        for trial in self._ended():
            if trial.number not in self._numbers:
                self._numbers.add(trial.number)
                self._line.show(trial)
                self._tracker.trial(trial)
        self._board.update()

    def _ended(self) -> "list[FrozenTrial]":
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]


def objective_of(run: Run) -> "Objective":
    """What a trial of a search does."""
    from optmerge.study.objective import Objective, RememberAs
    from optmerge.tasks.task import sha256_of

    plugins, config = run.assembly.plugins, run.assembly.config
    study, space = config.study, run.assembly.space
    ease, floors = _known_of_sources(run)
    key = sha256_of([run.assembly.identity()["task"], config.engine, config.models.dtype])
    return Objective(
        space,
        run.workbench,
        run.engine,
        plugins.task,
        plugins.pruner,
        study.seed,
        study.problems,
        ease,
        RememberAs(study.own_folder / RESPONSES, key, study.keep_responses),
        floors,
    )


def _known_of_sources(run: Run) -> tuple["NDArray[np.float64] | None", dict[str, float]]:
    """How easy the search problems are, and the floors of guards, by what the sources score; if any of it matters."""
    from optmerge.study.ease import ease_of_problems, floors_of_guards, scores_of_sources

    plugins, config = run.assembly.plugins, run.assembly.config
    task, space = plugins.task, run.assembly.space
    looks = len(plugins.pruner.batch_sizes(config.study.problems or len(task.problems("search"))))
    if (looks == 1 or len(task.objectives) > 1) and not task.guards:
        return None, {}
    sources = {alias: space.source(alias) for alias in sorted(space.sources)}
    with run.console.status("scoring the sources on the search problems") as status:
        found = scores_of_sources(
            run.opened,
            sources,
            run.workbench,
            run.engine,
            task,
            lambda alias: status.update(f"scoring {alias} on the search problems"),
        )
    return ease_of_problems(found, task), floors_of_guards(found, task, config.models.base)


def progress_line(assembly: Assembly, opened: OpenStudy, console: Console) -> ProgressLine:
    """Say what is searched, and give the line that will say how far it is."""
    from optmerge.study.slots import counted

    config, plugins = assembly.config, assembly.plugins
    earlier = counted(opened.study.get_trials(deepcopy=False))
    genes, problems = len(assembly.space.genes), config.study.problems or len(plugins.task.problems("search"))
    workers = f", {plugins.launcher.workers} workers" if plugins.launcher.workers > 1 else ""
    beginning = f"{genes} genes, {config.study.trials} trials of {problems} problems{workers}"
    resuming = f" goes on after {len(earlier)} trials" if earlier else ""
    console.print(f"Study {config.study.name}{resuming}: {beginning}.", highlight=False)
    for text in dashboards(assembly):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    return ProgressLine(console, config.study.trials, earlier, plugins.task.goal, opened.plan)


def quiet_libraries() -> None:
    """Let only what people need through: libraries print progress bars and notes of their own."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import optuna
    from optuna.exceptions import ExperimentalWarning

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # names of objectives
    for name in ("transformers", "torchao", "torch.utils._pytree"):  # where torchao is, it complains that no GPU is
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import enable_progress_bars

        enable_progress_bars()  # the line before silences downloads too, which are long work


def _known_study(assembly: Assembly, database: "Database") -> OpenStudy | None:
    """The study of that name, if it is there and is the same search."""
    from optmerge.study.charter import exists
    from optmerge.study.identity import check_identity

    name = str(assembly.config.study.name)
    if not exists(database, name):
        return None
    opened = open_study(database, name)
    check_identity(opened.study, assembly.identity())
    return opened


def create_study(assembly: Assembly, database: "Database") -> OpenStudy:
    """Create the study of a configuration."""
    from optmerge.study.charter import found_study
    from optmerge.study.slots import Plan

    config, plugins = assembly.config, assembly.plugins
    starts = starting_genomes(assembly)
    proposer = plugins.sampler.proposer(assembly.space.genes, config.study.seed, starts)
    population, lag = proposer.arrangement(plugins.launcher.workers)
    plan = Plan(
        population=population,
        lag=lag,
        maximize=tuple(goal.direction == "maximize" for goal in plugins.task.objectives),
        max_retries=config.study.max_retries,
    )
    return found_study(
        database,
        str(config.study.name),
        identity=assembly.identity(),
        config=settings_to_keep(config),
        plan=plan,
        starts=starts,
        goal=plugins.task.goal,
        objectives=plugins.task.objectives,
    )


def starting_genomes(assembly: Assembly) -> list[dict[str, Any]]:
    """The genomes of the recipes that a search begins with."""
    from optmerge.recipe import load_recipe
    from optmerge.space import PathSpace, genome_of

    space, recipes = assembly.space, [load_recipe(Path(path)) for path in assembly.config.study.warm_start]
    if isinstance(space, PathSpace):
        return [space.genome_of(recipe) for recipe in recipes]
    return [genome_of(recipe, space, assembly.fit.names) for recipe in recipes]


def check_room_for(assembly: Assembly) -> None:
    """Check that there is room on the disk for what a search leaves.

    Raises:
        OptmergeError: If there is not.
    """
    folder = assembly.config.study.own_folder
    # The winner's folder, and the one that it replaces until it is whole. A registry on this disk links its weights.
    copies = 1 + (folder / BEST).exists()
    check_room(folder, copies * assembly.model_bytes(), "make room, or set study.folder to another disk")


def start_engine(assembly: Assembly, say: Say) -> tuple[Any, Any]:
    """The engine with its model in memory, and the bench that merges beside it.

    Args:
        assembly: A search that could start now.
        say: Told where the sources are placed, and when kernels are compiled.

    Raises:
        UsageError: If the engine cannot take merged weights, or the sources do not fit where they must be.
    """
    import torch

    from optmerge.commands.placement import measured, plan_placement, worth_compiling
    from optmerge.merge import Kernels, Workbench

    module, options = assembly.plugins.engine
    device = torch.device(module.pick_device(options))
    placement = plan_placement(measured(assembly, device), assembly.config.merging.placement)
    say(placement.summary)
    adapters = [alias for alias, source in assembly.checkpoints.items() if isinstance(source, Adapter)]
    if adapters and placement.where != "device":
        say(f"  adapters ({', '.join(adapters)}) are merged into their base anew for every candidate")
    engine = module.build(options, assembly.companions.folder, assembly.config.models.dtype)
    if engine.needs != "weights":
        raise UsageError(f"engine={module.__name__.rpartition('.')[2]} cannot take merged weights")
    kernels = Kernels(say) if worth_compiling(assembly) else None
    bench = Workbench(
        assembly.opened(),
        assembly.fit,
        torch.device(engine.device),
        resident=placement.where == "device",
        kernels=kernels,
        keep_facts=True,
        keep_sources=placement.where == "host",
    )
    if assembly.config.space.path is not None:
        from optmerge.flow import PathBench

        return engine, PathBench(bench, assembly.stand_ins)
    return engine, bench
