"""Where the sources lie during a search: planned from sizes alone."""

import pytest

from optmerge.commands.placement import Sizes, free_memory, plan_placement
from optmerge.errors import UsageError

GB = 10**9
# Three sources and a base of 7 billion parameters in 16 bits, and the model merged from them.
SOURCES, MODEL = 58 * GB, int(14.5 * GB)


def sizes(device: float | None, host: float) -> Sizes:
    return Sizes(SOURCES, MODEL, None if device is None else int(device * GB), int(host * GB))


@pytest.mark.parametrize(
    ("device", "host", "where"),
    [
        (141, 128, "device"),
        (86, 16, "device"),  # 72.5 of 73.1 GB
        (85, 128, "host"),  # 72.5 of 72.25 GB
        (80, 128, "host"),
        (24, 128, "host"),
        (24, 69, "host"),  # 58 of 58.7 GB: the model is on the device
        (24, 68, "disk"),
        (24, 48, "disk"),
        (80, 48, "disk"),
        (None, 128, "host"),
        (None, 86, "host"),
        (None, 85, "disk"),  # on the CPU the model is in host memory too
        (None, 48, "disk"),
    ],
)
def test_sources_go_to_the_fastest_place_that_holds_them(device: float | None, host: float, where: str) -> None:
    assert plan_placement(sizes(device, host)).where == where


@pytest.mark.parametrize("where", ["device", "host", "disk"])
def test_a_place_that_fits_can_be_chosen(where: str) -> None:
    placement = plan_placement(sizes(141, 128), where)
    assert placement.where == where
    (chosen,) = [line for line in placement.lines if "->" in line]
    assert chosen.endswith(": fits")


@pytest.mark.parametrize(
    ("device", "host", "wanted", "message"),
    [
        (24, 128, "device", r"placement=device: would need 72\.5 GB, more than 20\.4 GB \(85% of .* of the device\)"),
        (80, 48, "host", r"placement=host: would need 58\.0 GB, more than 40\.8 GB \(85% of .* of the machine\)"),
        (None, 80, "host", r"placement=host: would need 72\.5 GB, more than 68\.0 GB"),
        (None, 1000, "device", "placement=device: models run on the CPU"),
    ],
)
def test_a_place_that_is_too_small_is_refused(device: float | None, host: float, wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        plan_placement(sizes(device, host), wanted)
    assert "merging.placement=auto takes what fits" in str(refused.value)


def test_what_was_weighed_is_told() -> None:
    told = str(plan_placement(sizes(24, 128)))
    assert told.splitlines() == [
        "placement: sources 58.0 GB and the live model 14.5 GB, together 72.5 GB",
        "  128.0 GB free in the machine; 24.0 GB free on the device",
        "     on the device: would need 72.5 GB, more than 20.4 GB (85% of what is free of the device)",
        "  -> in host memory, mapped once and shared by all workers of the machine: fits",
        "     streamed from disk for every candidate: fits",
    ]


def test_small_models_are_told_in_smaller_units() -> None:
    placement = plan_placement(Sizes(40_000_000, 10_000_000, None, 8 * GB))
    assert placement.where == "host"
    assert "sources 40.0 MB and the live model 10.0 MB, together 50.0 MB" in str(placement)


def test_free_memory_is_some_of_what_the_machine_has() -> None:
    import psutil
    import torch

    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


def test_a_search_is_told_in_a_line_why_sources_are_not_on_the_device() -> None:
    summary = plan_placement(sizes(24, 128)).summary
    assert "\n" not in summary
    assert "sources (58.0 GB) in host memory" in summary and "the live model 14.5 GB" in summary
    assert "on the device: would need 72.5 GB, more than 20.4 GB" in summary
    assert "on the device" not in plan_placement(sizes(None, 128)).summary
