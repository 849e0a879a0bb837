"""Many searches from one command line, by Hydra's sweeper."""

import itertools
import sys
import tempfile
from collections.abc import Sequence

from rich.console import Console

from optmerge.config import CONF, compose_config, explain, register, typed_config
from optmerge.errors import OptmergeError, UsageError


def run_many(overrides: Sequence[str], console: Console) -> None:
    """Run one search for each combination of swept values, and compare the results.

    All combinations are checked before the first starts, so that a mistake in the last one is not found at hour
    twenty.

    Raises:
        UsageError: If one of them cannot start, or two would share a study.
        OptmergeError: If one fails.
    """
    from optmerge.commands.assembly import find_plugins
    from optmerge.commands.stages import check_all

    configs = [compose_config(combination) for combination in _combinations(overrides)]
    places = [(config.study.folder, config.storage.url, config.study.name) for config in configs]
    for place in places:
        if places.count(place) > 1:
            raise UsageError(
                f"{places.count(place)} combinations would share the study {place[-1]}; name them by what differs, "
                "such as 'study.name=demo-${pruner.name}-seed${study.seed}'"
            )
    for config in configs:
        if config.models.maker is None:
            check_all(config, Console(quiet=True))
        else:  # sources that are to be made cannot be looked at yet
            find_plugins(config)
    # Hydra keeps the settings of a sweep, which may hold a password, in a folder; the studies have all that matters.
    with tempfile.TemporaryDirectory() as folder:
        hand_to_hydra(["--multirun", f"hydra.sweep.dir={folder}", *overrides], console)
    if any(config.dry_run for config in configs):
        return
    import json

    from optmerge.commands.study_folder import RESULT
    from optmerge.reports.table import print_comparison

    paths = [config.study.own_folder / RESULT for config in configs]
    print_comparison(console, [json.loads(path.read_text(encoding="utf-8")) for path in paths])


def _combinations(overrides: Sequence[str]) -> list[list[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [str(override.input_line)]
            for override in parsed
        ]
    except HydraException as error:
        raise UsageError(explain(error)) from error
    return [list(combination) for combination in itertools.product(*choices)]


def hand_to_hydra(arguments: Sequence[str], console: Console) -> None:
    """Let Hydra's own command line do what it is for: sweeps, launchers, printing the configuration."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    register()
    failed: list[OptmergeError] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(composed: DictConfig) -> None:
        from optmerge.commands.plan import print_plan
        from optmerge.commands.search import run_search

        if failed:
            return
        try:
            config = typed_config(composed, HydraConfig.get().runtime.choices)
            (print_plan if config.dry_run else run_search)(config, console)
        except OptmergeError as error:  # not raised here: Hydra would print a traceback
            failed.append(error)

    called, sys.argv = sys.argv, ["optmerge", *arguments]
    try:
        job()
    finally:
        sys.argv = called
    if failed:
        raise failed[0]
