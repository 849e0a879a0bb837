"""Sizes and times as people read them."""

import pytest

from optmerge.phrases import shown_bytes, shown_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 kB"), (626_200, "626.2 kB"), (1_000_000, "1.0 MB"), (2_345_678, "2.3 MB"), (14_500_000_000, "14.5 GB")],
)
def test_bytes(count: int, text: str) -> None:
    assert shown_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (840, "14 min"), (12_600, "3.5 h")])
def test_seconds(seconds: float, text: str) -> None:
    assert shown_seconds(seconds) == text
