"""How all pictures of a report look: told apart in grey and by people who see few colours, with Japanese text."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

log = logging.getLogger(__name__)

# Paul Tol's high-contrast scheme, black and a pale blue: in grey these are five steps of lightness.
DARK, GOLD, ROSE, BLACK, PALE = SERIES = ("#004488", "#ddaa33", "#bb5566", "#000000", "#cceeff")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
HATCHES = ("", "///", "...", "xx", "--", "++")
EDGE, FAINT = "0.25", "0.65"  # of what is outlined, and of what matters little

WIDTH = 10.0  # of most pictures, in inches
DPI = 120

# Families that have Japanese, as systems and packages call them, the best first.
_JAPANESE = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Source Han Sans JP",
    "Source Han Sans",
    "IPAexGothic",
    "IPAGothic",
    "BIZ UDGothic",
    "TakaoGothic",
    "VL Gothic",
    "Hiragino Sans",
    "Hiragino Kaku Gothic ProN",
    "Yu Gothic",
    "Meiryo",
    "MS Gothic",
    "Droid Sans Fallback",
    "WenQuanYi Zen Hei",
)
_FILES = ("notosanscjk", "notosansjp", "sourcehansans", "ipaexg", "ipag", "bizudg", "takao", "vl-gothic", "wqy-zenhei")
_PACKAGE = "matplotlib_fontja"  # brings a font, where the system has none
_looked: list[str] = []


@contextmanager
def styled() -> Iterator[None]:
    """In this context pictures are made, and saved: some of the style counts only then."""
    import matplotlib

    settings: Any = {
        "font.family": ["DejaVu Sans", *([family] if (family := japanese_family()) else [])],
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": EDGE,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "hatch.linewidth": 0.6,
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "text.parse_math": False,  # names may have dollar signs
    }
    with matplotlib.rc_context(settings):
        yield


def japanese_family() -> str | None:
    """A family of fonts with Japanese that can be had here, if there is one; it is looked for once."""
    if not _looked:
        _looked.append(_family() or "")
    return _looked[0] or None


def _family() -> str | None:
    from matplotlib import font_manager

    def known() -> str | None:
        names = {font.name for font in font_manager.fontManager.ttflist}
        return next((family for family in _JAPANESE if family in names), None)

    family = known()
    if family is None:  # matplotlib keeps a list of fonts, which does not know those that were installed later
        for path in [*font_manager.findSystemFonts(), *_of_package()]:
            if Path(path).name.lower().replace(" ", "").startswith(_FILES):
                font_manager.fontManager.addfont(path)
        family = known()
    if family is None:
        log.info("no font with Japanese is installed here: pictures show boxes; pip install matplotlib-fontja")
    return family


def _of_package() -> list[str]:
    """The fonts of the package that brings one. It is not imported: that would change settings of matplotlib."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return []
    return [str(path) for path in Path(spec.origin).parent.rglob("*.ttf")]


def marker(order: int) -> str:
    """The marker of the series at a place."""
    return MARKERS[order % len(MARKERS)]


def colour(order: int) -> str:
    """The colour of the series at a place."""
    return SERIES[order % len(SERIES)]


def hatch(order: int) -> str:
    """The hatch of the series at a place."""
    return HATCHES[order % len(HATCHES)]


def shades() -> "Colormap":
    """From white for 0 to dark for 1; grey where there is nothing."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("solved", ["#ffffff", "#7a9cc0", DARK]).with_extremes(bad="0.8")


def percent_axis(axis: Any) -> None:
    """Let an axis that shows a share tell it in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def binned(matrix: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """A matrix of at most so many columns, each the mean of neighbours without what is missing."""
    count = matrix.shape[1]
    if count <= most:
        return matrix
    edges = np.linspace(0, count, most + 1).astype(int)[:-1]
    seen = ~np.isnan(matrix)
    total = np.add.reduceat(np.where(seen, matrix, 0.0), edges, axis=1)
    number = np.add.reduceat(seen.astype(float), edges, axis=1)
    found: NDArray[np.float64] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return found
