"""A picture, with what it says in words for those who do not see it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A picture of a report.

    Attributes:
        name: What its file is called, without ending.
        title: A line over it.
        alt: What it shows, with the numbers that matter.
        caption: How it is to be read.
        figure: The picture; made and saved in the context `optmerge.reports.style.styled`.
    """

    name: str
    title: str
    alt: str
    caption: str
    figure: "Figure"

    def save(self, path: Path) -> None:
        """Write it as PNG, so that nobody ever sees half of it."""
        partial = path.with_name(f".{path.name}.partial")
        # Without date and version the same picture has the same bytes.
        self.figure.savefig(partial, format="png", metadata={"Software": None, "Description": self.alt})
        os.replace(partial, path)


def shown_on(path: Path) -> str:
    """What a picture that `Drawing.save` has written shows, in words; empty for any other file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return str(image.info.get("Description", ""))
    except (OSError, UnidentifiedImageError):
        return ""


def shown_difference(value: float, *, share: bool) -> str:
    """How far apart two scores are, for people."""
    return f"{100 * value:+.1f} points" if share else f"{value:+.4g}"
