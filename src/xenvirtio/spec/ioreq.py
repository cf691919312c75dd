"""The page on which Xen hands requests of a guest's vCPUs to a device model (xen/include/public/hvm/ioreq.h).

One slot a vCPU, in the order of their numbers. A slot's request is answered by its state and an event on its
port; until then the vCPU waits.
"""

from __future__ import annotations

SLOT_SIZE = 32
#: slots on the page, and vCPUs of an HVM or PVH guest (HVM_MAX_VCPUS)
SLOTS_MAX = 128

# --- in a slot (byte offsets, little-endian) ---
ADDR = 0  # u64
DATA = 8  # u64: what is written, or was read
COUNT = 16  # u32
SIZE = 20  # u32
PORT = (
    24  # u32: vp_eport, the vCPU's event channel port, unbound for the device model; 0 before it is enabled
)
FLAGS = 30  # u8: the state, and the bits below
TYPE = 31  # u8

STATE_MASK = 0x0F
STATE_NONE, STATE_READY, STATE_IN_PROCESS, STATE_ANSWERED = range(4)
FLAG_DATA_IS_POINTER = 0x10
FLAG_READ = 0x20

TYPE_PIO = 0
TYPE_COPY = 1  # memory
TYPE_PCI_CONFIG = 2
TYPE_INVALIDATE = 8  # frames that were RAM may be others now: mappings of the guest are to be dropped
