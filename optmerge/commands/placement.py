"""Where sources and model lie during a search, and whether they fit."""

from typing import TYPE_CHECKING

from optmerge.commands.assembly import Assembly

if TYPE_CHECKING:
    import torch

_SHARE = 0.85  # of the free memory; the rest is left for activations and the key-value cache


def sources_bytes(assembly: Assembly) -> int:
    """Size of all sources as they are stored."""
    return sum(checkpoint.nbytes for checkpoint in assembly.checkpoints.values())


def fits_on_device(assembly: Assembly, device: "torch.device") -> bool:
    """Whether all sources fit into a GPU's free memory, beside the model that is already there."""
    return device.type == "cuda" and sources_bytes(assembly) < _SHARE * free_memory(device)


def free_memory(device: "torch.device") -> int:
    """Bytes that can be had on a device now."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
