"""Why a chain cannot be served, in a batch's `fault` column."""

from __future__ import annotations

NONE = 0
MEMORY = (
    1  # a buffer cannot be reached: a grant that is wrong, revoked or read-only; a frame that is not there
)
TABLE = 2  # its indirect table cannot be reached: nothing is known of its buffers
SIZE = 3  # it alone needs more staging or more iovecs than there are

#: in `on_fault`: the chain has no status byte
NO_STATUS = 0xFFFF
