"""The report of a study: a page with everything in it, and its pictures as files beside it."""

import base64
import os
import re
import tempfile
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from optmerge.errors import OptmergeError, UsageError
from optmerge.reports.chosen import chosen_drawings
from optmerge.reports.cost import Cost, cost_of, power_of
from optmerge.reports.drawing import Drawing
from optmerge.reports.examples import examples_of
from optmerge.reports.findings import Ending, Findings, read_findings
from optmerge.reports.page import GENERATOR, Picture, page_of
from optmerge.reports.style import styled
from optmerge.study.charter import OpenStudy
from optmerge.study.result import asked_of_sources

PAGE = "index.html"
_DOTS = 96  # of a page, to an inch


@dataclass(frozen=True)
class Pictured:
    """A picture of a report, as a file.

    Attributes:
        path: The file.
        title: A line over it.
        alt: What it shows, with the numbers that matter.
    """

    path: Path
    title: str
    alt: str


@dataclass(frozen=True)
class Report:
    """A report as it was written.

    Attributes:
        page: The page, which needs no other file.
        figures: Its pictures, in its order.
    """

    page: Path
    figures: Sequence[Pictured]


def write_report(
    opened: OpenStudy, folder: Path, ending: Ending | None = None, *, watts: float | None = None
) -> Report:
    """Write the report of a study, finished or not. The database is only read.

    Args:
        opened: The study.
        folder: Where it goes; what an earlier report left there is replaced.
        ending: What is known of the study's end.
        watts: What a machine (of a search on GPUs: a GPU) at work is taken to draw.

    Raises:
        UsageError: If the folder holds a page that is none of ours.
        OptmergeError: If it cannot be written.
    """
    earlier = _earlier(folder)
    findings = read_findings(opened, ending or Ending())
    cost = _cost(findings, watts)
    with styled():
        chosen = chosen_drawings(findings, cost)
        _refuse_others_pictures(folder, {drawing.name for drawing in chosen.drawings} - earlier)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as made:
                pictures = {drawing.name: _saved(drawing, Path(made)) for drawing in chosen.drawings}
                page = page_of(findings, pictures, chosen, cost, examples_of(findings, chosen.compared))
                (Path(made) / PAGE).write_text(page, encoding="utf-8")
                # The page comes first: it needs no other file, and names the pictures that are ours.
                for name in (PAGE, *(f"{name}.png" for name in pictures)):
                    os.replace(Path(made) / name, folder / name)
            for name in earlier - pictures.keys():
                (folder / f"{name}.png").unlink(missing_ok=True)
        except OSError as error:
            raise OptmergeError(f"{folder}: the report cannot be written: {error.strerror or error}") from error
    figures = [Pictured(folder / f"{one.name}.png", one.title, one.alt) for one in chosen.drawings]
    return Report(folder / PAGE, figures)


def _earlier(folder: Path) -> set[str]:
    """Names of the pictures of the report that is there.

    Raises:
        UsageError: If what is there is none.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is there, and is no folder; choose another with out=FOLDER")
    page = folder / PAGE
    if not page.exists():
        return set()
    text = page.read_text(encoding="utf-8", errors="replace")
    if GENERATOR not in text:
        raise UsageError(f"{page} is there, and is no report; choose another folder with out=FOLDER")
    return set(re.findall(r'<figure id="([\w.-]+)">', text))


def _refuse_others_pictures(folder: Path, names: Set[str]) -> None:
    there = [f"{name}.png" for name in sorted(names) if (folder / f"{name}.png").exists()]
    if there:
        raise UsageError(
            f"{folder} holds {', '.join(there)}, which no report has left there; choose another folder with out=FOLDER"
        )


def _cost(findings: Findings, watts: float | None) -> Cost:
    lengths = [len(scores) for scores in findings.matrix.values()]
    recipe, device = findings.ending.recipe, str(findings.config.get("engine", {}).get("device", "auto"))
    return cost_of(
        findings.every,
        findings.trials,
        problems=int(findings.config.get("study", {}).get("problems") or max(lengths, default=0)),
        by_sources=asked_of_sources(findings.opened.study),
        power=power_of((recipe.merged_on if recipe is not None else None) or device, watts),
        seconds=None if findings.result is None else findings.result["seconds"],
    )


def _saved(drawing: Drawing, folder: Path) -> Picture:
    path = folder / f"{drawing.name}.png"
    drawing.save(path)
    inches = drawing.figure.get_size_inches()
    return Picture(
        drawing.name,
        drawing.title,
        drawing.alt,
        drawing.caption,
        f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}",
        *(round(_DOTS * float(side)) for side in inches),
    )
