"""How large a batch may be: as memory allows, which is found by trying."""

import logging
import sys
from dataclasses import dataclass

CPU_ROWS = 256
_FIRST = 16384  # tokens of the first batch on an accelerator: 2 GiB of keys and values of a model of 7B

log = logging.getLogger(__name__)


@dataclass
class BatchLimit:
    """How large batches may be. Memory goes with their tokens: rows times the longest row, its response included.

    Attributes:
        rows: Most rows; None for any number.
        tokens: Most tokens; None for any number.
        growing: Whether twice as many tokens are tried after a batch that worked. What has failed is not tried again.
    """

    rows: int | None
    tokens: int | None = None
    growing: bool = False

    @classmethod
    def of(cls, batch_size: int | None, device: str) -> "BatchLimit":
        """The limit to begin with.

        Args:
            batch_size: Most rows; None for as many as memory allows.
            device: Where the model is. The memory of a CPU is others' too, and long before it is exhausted all is slow.
        """
        if batch_size is not None or device.startswith("cpu"):
            return cls(batch_size or CPU_ROWS)
        return cls(None, _FIRST, growing=True)

    def fitting(self, length: int) -> int:
        """How many rows of a length go together; at least one."""
        rows = sys.maxsize if self.rows is None else self.rows
        return max(1, rows if self.tokens is None else min(rows, self.tokens // length))

    def worked(self, rows: int, length: int) -> None:
        """Note that there was memory for a batch that was as large as it might be."""
        if self.growing and self.tokens is not None:
            self.tokens = max(self.tokens, 2 * rows * length)

    def failed(self, rows: int, length: int) -> None:
        """Note that memory ran out."""
        self.tokens, self.growing = rows * length // 2, False
        log.info(
            "memory ran out on %d rows of %d tokens; batches now have at most %d tokens", rows, length, self.tokens
        )
