"""What a search tells at its end: its results, where they are, and how to look at them."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.assembly import Assembly
from optmerge.commands.study_folder import BEST, FRONT, REPORT, RESULT
from optmerge.recipe import RECIPE


def report(result: Mapping[str, Any], assembly: Assembly, folder: Path, console: Console) -> None:
    """Print the table of results and where everything is."""
    from optmerge.reports.table import print_result

    print_result(console, result)
    for text in _whereabouts(result, assembly, folder):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _whereabouts(result: Mapping[str, Any], assembly: Assembly, folder: Path) -> Iterator[str]:
    yield ""
    yield f"model and recipe  {folder / BEST}"
    yield f"results           {folder / RESULT}"
    yield f"report, pictures  {folder / REPORT / 'index.html'}"
    if "front" in result:
        yield f"compromises       {folder / FRONT}"
    if "registered" in result:  # as it was when the study ended
        yield f"registered as     {result['registered']}"
    yield from dashboards(assembly)
    yield f"rebuild, check    {_program('python')} -m optmerge rebuild --check {folder / BEST / RECIPE}"
    name = assembly.config.study.name
    yield f"start afresh      the same command with study.name=ANOTHER (this study: {name})"


def dashboards(assembly: Assembly) -> Iterator[str]:
    """The command that opens the dashboards."""
    study, storage = assembly.config.study, assembly.config.storage
    words = setting_words(str(study.name), study.own_folder, storage.url)
    yield f"watch it          {_program('python')} -m optmerge dashboard {words}"


def setting_words(study: str, folder: Path, url: str) -> str:
    """The settings that find a study again, for people: without passwords.

    Args:
        study: Its name.
        folder: Its own folder.
        url: Where its database is.
    """
    from optmerge.study.storage import shown_url

    words, home = [f"study.name={study}"], folder.parent
    if str(home) != "studies":
        words.append(f"study.folder={home}")
    if url != f"sqlite:///{home}/studies.db":
        words.append(f"storage.url={shown_url(url)}")
    return " ".join(words)


def _program(name: str) -> str:
    """How to call a program of this environment from here: by its name only where that finds this very one."""
    here = Path(sys.executable).parent
    found = shutil.which(name)
    return name if found and Path(found).parent == here else os.path.relpath(here / name)
