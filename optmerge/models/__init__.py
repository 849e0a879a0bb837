"""Source checkpoints: open them lazily, check that they fit together, write new ones.

Importing this room is cheap: torch, safetensors and transformers are imported by the functions that need them.
"""

from optmerge.models.adapter import Adapter, open_checkpoints
from optmerge.models.checkpoint import Checkpoint
from optmerge.models.companions import Companions, companions
from optmerge.models.convert import convert
from optmerge.models.fit import Fit, check_complete, check_fit
from optmerge.models.hashing import WeightsHash, weights_sha256
from optmerge.models.resolve import commit_of, missing, resolve
from optmerge.models.scan import Scan, check_finite, default_cache, scan
from optmerge.models.staging import check_room
from optmerge.models.vocabulary import tokens_sha256
from optmerge.models.write import write_checkpoint

__all__ = [
    "Adapter",
    "Checkpoint",
    "Companions",
    "Fit",
    "Scan",
    "WeightsHash",
    "check_finite",
    "check_complete",
    "check_fit",
    "check_room",
    "commit_of",
    "companions",
    "convert",
    "default_cache",
    "missing",
    "open_checkpoints",
    "resolve",
    "scan",
    "tokens_sha256",
    "weights_sha256",
    "write_checkpoint",
]
