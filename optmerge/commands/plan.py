"""The dry run: what a search would do, what it needs, and about how long it takes."""

import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.assembly import Assembly, assemble, find_plugins, make_sources
from optmerge.config import Config
from optmerge.errors import OptmergeError

_PROBE_TOKENS = 16  # tokens a response in the timing probe, scaled up to the task's limit


def print_plan(config: Config, console: Console) -> None:
    """Print groups, genes, problems, memory and time of a search, and start nothing.

    Raises:
        UsageError: If the search could not start.
    """
    from optmerge.commands.search import quiet_libraries

    quiet_libraries()

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
    lines = [f"  {name}: {', '.join(patterns)}" for name, patterns in assembly.groups.items()]
    return f"groups ({len(lines)})\n" + "\n".join(lines)


def _genes(assembly: Assembly) -> str:
    genes = assembly.space.genes
    lines = [f"  {gene.name} in [{gene.low:g}, {gene.high:g}], starting at {gene.start():g}" for gene in genes[:6]]
    if len(genes) > 6:
        lines.append(f"  ... and {len(genes) - 6} more")
    return f"genes ({len(genes)})\n" + "\n".join(lines)


def _problems(assembly: Assembly) -> str:
    from optmerge.tasks import SPLITS

    counts = ", ".join(f"{len(assembly.plugins.task.problems(split))} {split}" for split in SPLITS)
    return f"problems\n  {counts}; {assembly.config.study.trials} trials"


def _memory(assembly: Assembly) -> str:
    import torch

    from optmerge.commands.placement import fits_on_device, free_memory, sources_bytes

    module, options = assembly.plugins.engine
    device = torch.device(module.pick_device(options))
    sources, model = sources_bytes(assembly), assembly.model_bytes()
    if device.type == "cpu":
        placed = "memory-mapped from disk"
    else:
        placed = "on the device" if fits_on_device(assembly, device) else "memory-mapped from disk, copied as needed"
    return (
        f"memory ({device}: {free_memory(device) / 1e9:.2f} GB free)\n"
        f"  sources {sources / 1e9:.3f} GB, {placed}; the live model {model / 1e9:.3f} GB\n"
        f"  the result takes {model / 1e9:.3f} GB on disk"
    )


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
        engine, workbench = start_engine(assembly)
        candidate = workbench.candidate(assembly.space.decode(start))
        began = time.perf_counter()
        engine.mount(candidate)
        merged = time.perf_counter()
        engine.run([dataclasses.replace(request, max_new_tokens=tokens) for request in requests])
        answered = time.perf_counter()
    except OptmergeError as error:
        return f"time\n  could not be measured: {error}"
    merge, generate = merged - began, (answered - merged) * limit / tokens * len(problems) / len(requests)
    total = (merge + generate) * assembly.config.study.trials
    return (
        f"time (measured on {len(requests)} problems, {tokens} tokens each)\n"
        f"  a merge {merge:.2f} s; {len(problems)} problems at most {generate:.0f} s if every response runs to "
        f"{limit} tokens\n"
        f"  at most {_duration(total)} for {assembly.config.study.trials} trials without pruning"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
