"""Source checkpoints: open them lazily, check that they fit together, write new ones.

Importing this room is cheap: torch, safetensors and transformers are imported by the functions that need them.
"""

from optmerge.models.checkpoint import Checkpoint
from optmerge.models.convert import convert
from optmerge.models.fit import Fit, check_fit, read_row_cut
from optmerge.models.hashing import WeightsHash, weights_sha256
from optmerge.models.resolve import missing, resolve
from optmerge.models.scan import Scan, check_finite, scan
from optmerge.models.staging import check_room
from optmerge.models.write import write_checkpoint

__all__ = [
    "Checkpoint",
    "Fit",
    "Scan",
    "WeightsHash",
    "check_finite",
    "check_fit",
    "check_room",
    "convert",
    "missing",
    "read_row_cut",
    "resolve",
    "scan",
    "weights_sha256",
    "write_checkpoint",
]
