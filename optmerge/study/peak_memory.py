"""How much memory a trial took."""

import resource
import sys

_KILOBYTE = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in


def watch_memory(device: str) -> None:
    """Begin to watch the memory of a GPU; that of a process is watched from its start."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int:
    """Most bytes that were in use: on a GPU, by this process since `watch_memory`; elsewhere by it since its start."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KILOBYTE
