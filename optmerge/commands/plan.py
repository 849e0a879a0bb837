"""The dry run: what a search would do, what it needs, and about how long it takes."""

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.assembly import Assembly, assemble, find_plugins, make_sources
from optmerge.config import Config
from optmerge.errors import OptmergeError
from optmerge.phrases import shown_bytes, shown_seconds
from optmerge.recipe import RECIPE
from optmerge.space import Gene, PathSpace, TensorGroup

_MOST_GROUPS, _MOST_GENES = 12, 6  # lines
_PROBE_TOKENS = 16  # tokens a response in the timing probe, scaled up to the task's limit


def print_plan(config: Config, console: Console) -> None:
    """Print groups, genes, problems, memory and time of a search, and start nothing.

    Raises:
        UsageError: If the search could not start.
    """
    from optmerge.commands.search import quiet_libraries
    from optmerge.commands.stages import searched_sources, standing_in, winner_folder

    quiet_libraries()
    find_plugins(config)
    stages = searched_sources(config)
    for alias, stage in list(stages.items()):
        best = winner_folder(stage)
        if (best / RECIPE).is_file():
            config.models.sources[alias].path = str(best)
            del stages[alias]
            continue
        console.print(f"Source {alias} is the winner of a search that runs first:", highlight=False)
        print_plan(copy.deepcopy(stage), console)
    if any(stage.models.maker and stage.models.folder != config.models.folder for stage in stages.values()):
        console.print("The last search can be planned when the sources of the first are made.", highlight=False)
        return
    if stages:
        console.print("Then the last search; models of the same shape stand in for those winners:", highlight=False)
        config = standing_in(config, stages)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with tempfile.TemporaryDirectory() as untrained:
        unmade = config.models.maker is not None and not Path(str(config.models.folder)).exists()
        if unmade:
            _use_folder(config, untrained)
        plugins = find_plugins(config)
        if unmade:
            say("The sources are not made yet; sizes and times below are those of untrained models of the same shape.")
            make_sources(config, lambda text: None, trained=False)
        assembly = assemble(config, plugins, say)
        for text in (_groups(assembly), _genes(assembly), _problems(assembly), _memory(assembly), _time(assembly)):
            say(text)
    say("Nothing was started.")


def _use_folder(config: Config, folder: str) -> None:
    """Point everything that lies in the maker's folder to another one."""
    old = str(config.models.folder)
    config.models.folder = f"{folder}/made"
    for source in config.models.sources.values():
        source.path = source.path.replace(old, config.models.folder, 1)
    for settings in config.task.values():
        if isinstance(settings, dict) and settings.get("path"):
            settings["path"] = settings["path"].replace(old, config.models.folder, 1)


def _groups(assembly: Assembly) -> str:
    # What is taken from a source comes first, so that it is not among those that are only counted.
    if isinstance(assembly.space, PathSpace):
        return _paths(assembly.space)
    groups = sorted(assembly.groups.items(), key=lambda item: item[1].source is None)
    lines = [f"  {name}: {_group(group)}" for name, group in groups]
    return f"groups ({len(groups)})\n" + "\n".join(_first(lines, _MOST_GROUPS))


def _paths(space: PathSpace) -> str:
    settings = space.settings
    layers = " then ".join(
        f"{sum(layer.source == alias for layer in space.layers)} of {alias}" for alias in settings.order
    )
    return (
        f"paths over {len(space.layers)} layers, {layers}\n"
        f"  laid down {settings.repeats} times: {len(space.slots)} slots, at most {settings.max_hops} hops"
    )


def _group(group: TensorGroup) -> str:
    tensors = ", ".join(group.tensors[:3])
    if len(group.tensors) > 3:
        tensors += f" and {len(group.tensors) - 3} more"
    if group.source is not None:
        return f"{tensors}, taken from {group.source}"
    if len(group.anchors) == 2:
        first, second = group.anchors
        return f"{tensors}, {1 - group.share:.0%} {first} and {group.share:.0%} {second}"
    return f"{tensors}, as {group.anchors[0]}" if group.anchors else tensors


def _genes(assembly: Assembly) -> str:
    genes, fixed = assembly.space.genes, len(assembly.space.fixed)
    lines = _first([f"  {_gene(gene)}" for gene in genes], _MOST_GENES)
    if fixed:
        lines.append(f"  {fixed} more value{' is' if fixed == 1 else 's are'} fixed")
    return f"genes ({len(genes)})\n" + "\n".join(lines)


def _gene(gene: Gene) -> str:
    match gene.kind:
        case "choice":
            more = f" and {len(gene.choices) - 6} more" if len(gene.choices) > 6 else ""
            return f"{gene.name}, a choice of {', '.join(gene.choices[:6])}{more}, starting with {gene.start()}"
        case "switch":
            return f"{gene.name}, a switch, starting {'on' if gene.start() else 'off'}"
        case _:
            whole = ", whole numbers" if gene.kind == "int" else ""
            return f"{gene.name} in [{gene.low:g}, {gene.high:g}]{whole}, starting at {gene.start():g}"


def _first(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"  ... and {len(lines) - most} more"]


def _problems(assembly: Assembly) -> str:
    from optmerge.tasks import SPLITS

    counts = ", ".join(f"{len(assembly.plugins.task.problems(split))} {split}" for split in SPLITS)
    return f"problems\n  {counts}; {assembly.config.study.trials} trials"


def _memory(assembly: Assembly) -> str:
    import torch

    from optmerge.commands.placement import measured, plan_placement

    module, options = assembly.plugins.engine
    placement = plan_placement(
        measured(assembly, torch.device(module.pick_device(options))), assembly.config.merging.placement
    )
    return f"{placement}\n  the result takes {shown_bytes(assembly.model_bytes())} on disk"


def _time(assembly: Assembly) -> str:
    """Measure one merge and one short answer to a batch of problems, and scale up."""
    import dataclasses

    from optmerge.commands.search import start_engine

    task = assembly.plugins.task
    problems = task.problems("search")
    requests: list[Any] = [task.request(problem) for problem in problems[:32]]
    limit = max(request.max_new_tokens for request in requests)
    tokens = min(limit, _PROBE_TOKENS)
    start = {gene.name: gene.start() for gene in assembly.space.genes}
    try:
        engine, workbench = start_engine(assembly, lambda text: None)
        candidate = workbench.candidate(assembly.space.decode(start))
        began = time.perf_counter()
        engine.mount(candidate)
        merged = time.perf_counter()
        engine.run([dataclasses.replace(request, max_new_tokens=tokens) for request in requests])
        answered = time.perf_counter()
    except OptmergeError as error:
        return f"time\n  could not be measured: {error}"
    asked = assembly.config.study.problems or len(problems)
    merge, generate = merged - began, (answered - merged) * limit / tokens * asked / len(requests)
    total = (merge + generate) * assembly.config.study.trials
    return (
        f"time (measured on {len(requests)} problems, {tokens} tokens each)\n"
        f"  a merge {merge:.2f} s; {asked} problems at most {generate:.0f} s if every response runs to "
        f"{limit} tokens\n"
        f"  at most {shown_seconds(total)} for {assembly.config.study.trials} trials without pruning"
    )
