"""Pictures can be told apart in grey, and have Japanese text."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors, font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from optmerge.reports import style


def lightness(colour: str) -> float:
    """CIE L* of a colour, which is what remains of it in grey."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(colour)]
    y = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_the_colours_of_series_differ_in_grey() -> None:
    steps = np.diff(sorted(lightness(colour) for colour in style.SERIES))
    assert steps.min() > 15


def test_series_that_share_a_colour_differ_in_marker_or_hatch() -> None:
    looks = [(style.colour(i), style.marker(i), style.hatch(i)) for i in range(16)]
    assert len(set(looks)) == 16


def test_shades_darken_evenly_enough_to_be_read_in_grey() -> None:
    found = [lightness(colors.to_hex(style.shades()(share))) for share in np.linspace(0, 1, 11)]
    assert (np.diff(found) < -3).all()


def drawn(text: str) -> np.ndarray:
    with style.styled():
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.4, text, fontsize=30)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba()).copy()


def test_japanese_characters_are_drawn_and_are_no_boxes(recwarn: pytest.WarningsRecorder) -> None:
    assert style.japanese_family() is not None
    assert (drawn("日本") != drawn("数学")).any()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_where_the_system_has_no_japanese_font_the_package_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = font_manager.fontManager
    latin = [font for font in manager.ttflist if font.name.startswith("DejaVu")]
    monkeypatch.setattr(manager, "ttflist", latin)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    monkeypatch.setattr(style, "_looked", [])
    assert style.japanese_family() == "IPAexGothic"


def test_many_columns_are_drawn_as_means_of_neighbours() -> None:
    table = np.array([[0.0, 1.0, np.nan, 1.0, np.nan, np.nan]])
    assert style.binned(table, 3) == pytest.approx(np.array([[0.5, 1.0, np.nan]]), nan_ok=True)
    assert style.binned(table, 6) is table


def test_what_is_saved_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    from optmerge.reports.drawing import Drawing

    for name in ("one.png", "two.png"):
        with style.styled():
            figure = Figure(figsize=(1, 1))
            figure.text(0, 0, "x")
            Drawing("x", "X", "三つ", "", figure).save(tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
