"""Where the sources lie during a search: planned, and told, before anything starts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from optmerge.commands.assembly import Assembly
from optmerge.errors import UsageError
from optmerge.phrases import shown_bytes

if TYPE_CHECKING:
    import torch

Where = Literal["device", "host", "disk"]

_SHARE = 0.85  # of the free memory; the rest is left for activations and the key-value cache
_WORTH_COMPILING = 50_000_000  # parameters; below, plain PyTorch merges before a compiler has begun

_WORDS: dict[Where, str] = {
    "device": "on the device",
    "host": "in host memory, mapped once and shared by all workers of the machine",
    "disk": "streamed from disk for every candidate",
}


@dataclass(frozen=True)
class Sizes:
    """What has to be placed and where there is room, in bytes.

    Attributes:
        sources: All sources, the base among them.
        model: The live model.
        device: Free memory of the GPU; None where models run on the CPU.
        host: Memory of the machine that can be had.
    """

    sources: int
    model: int
    device: int | None
    host: int


@dataclass(frozen=True)
class Placement:
    """Where the sources go, and why.

    Attributes:
        where: The place.
        summary: It in a line.
        lines: Every place, and whether they fit there.
    """

    where: Where
    summary: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def plan_placement(sizes: Sizes, wanted: str = "auto") -> Placement:
    """Choose the fastest place in which the sources fit.

    Args:
        sizes: What there is to place, and room.
        wanted: `auto`, or the place that it must be.

    Raises:
        UsageError: If they do not fit where they must be.
    """
    device_room, host_room = int(_SHARE * (sizes.device or 0)), int(_SHARE * sizes.host)
    # On the CPU the live model is in host memory too.
    host_needs = sizes.sources + (sizes.model if sizes.device is None else 0)
    misfits: dict[Where, str | None] = {
        "device": "models run on the CPU"
        if sizes.device is None
        else _misfit(sizes.sources + sizes.model, device_room, "of the device"),
        "host": _misfit(host_needs, host_room, "of the machine"),
        "disk": None,
    }
    fitting = [where for where, misfit in misfits.items() if misfit is None]
    if wanted != "auto" and wanted not in fitting:
        misfit = next(text for where, text in misfits.items() if where == wanted)
        raise UsageError(f"merging.placement={wanted}: {misfit}; merging.placement=auto takes what fits")
    chosen: Where = next(where for where in misfits if where == (fitting[0] if wanted == "auto" else wanted))
    free = "" if sizes.device is None else f"; {shown_bytes(sizes.device)} free on the device"
    sources, model, total = (shown_bytes(one) for one in (sizes.sources, sizes.model, sizes.sources + sizes.model))
    lines = [
        f"placement: sources {sources} and the live model {model}, together {total}",
        f"  {shown_bytes(sizes.host)} free in the machine{free}",
    ]
    for where, misfit in misfits.items():
        mark = "->" if where == chosen else "  "
        lines.append(f"  {mark} {_WORDS[where]}: {'fits' if misfit is None else misfit}")
    why = f" (on the device: {misfits['device']})" if sizes.device is not None and chosen != "device" else ""
    summary = f"placement: sources ({sources}) {_WORDS[chosen]}{why}; the live model {model}"
    return Placement(chosen, summary, tuple(lines))


def measured(assembly: Assembly, device: "torch.device") -> Sizes:
    """The sizes of a search on this machine, before its model is loaded."""
    sources = sum(checkpoint.nbytes for checkpoint in assembly.checkpoints.values())
    on_device = free_memory(device) if device.type != "cpu" else None
    return Sizes(sources, assembly.model_bytes(), on_device, _host_memory())


def worth_compiling(assembly: Assembly) -> bool:
    """Whether merges are long enough for compiled kernels, if the configuration leaves it open."""
    setting = assembly.config.merging.compile
    return setting == "always" or (setting == "auto" and assembly.fit.parameters >= _WORTH_COMPILING)


def free_memory(device: "torch.device") -> int:
    """Bytes that can be had on a device now."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return _host_memory()


def _host_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _misfit(needed: int, room: int, of: str) -> str | None:
    if needed <= room:
        return None
    return f"would need {shown_bytes(needed)}, more than {shown_bytes(room)} (85% of what is free {of})"
