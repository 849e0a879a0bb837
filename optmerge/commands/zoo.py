"""The zoo command: the demo's tiny models and problems, without a search."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from optmerge.commands.help import program
from optmerge.commands.words import with_own_configs
from optmerge.errors import UsageError


def run_zoo(arguments: Sequence[str], console: Console) -> None:
    """Make the sources that `models.maker` makes, or find that they are there.

    Raises:
        UsageError: If a setting is unknown, or the folder holds something else.
        OptmergeError: If a training fails.
    """
    from optmerge.commands.assembly import make_sources
    from optmerge.config import compose_config

    words = with_own_configs(arguments)
    folders = [word for word in words if "=" not in word]
    if len(folders) > 1 or any(word.startswith("-") for word in words):
        raise UsageError("write `zoo [FOLDER] [models.seed=1 and other settings]`")
    config = compose_config([word for word in words if "=" in word])
    if config.models.maker is None:
        raise UsageError("models.maker is null: nothing makes these models; write models=zoo")
    if folders:
        config.models.folder = folders[0]
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        console.print(text)

    make_sources(config, say, trained=True)
    folder = Path(str(config.models.folder))
    parts = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    how = f"; {program()} models.maker=null {shlex.quote(f'models.folder={folder}')} merges them" if folders else ""
    console.print(f"{folder}: {parts}{'' if said else ', there already'}{how}")
