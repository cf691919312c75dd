"""The rules that the walk of a split queue checks, by the number that compiled code returns."""

from __future__ import annotations

AVAIL_IDX = 1
HEAD = 2
NEXT = 3
LOOP = 4
ORDER = 5
OVERFLOW = 6
BYTES = 7
INDIRECT_OFF = 8
INDIRECT_NEXT = 9
INDIRECT_LENGTH = 10
INDIRECT_HUGE = 11
INDIRECT_NESTED = 12
FULL = -1  # not a rule: no room in the batch, the chain stays in the ring

TEXT = {
    AVAIL_IDX: "available idx moved by more than the queue size (virtio 1.3 §2.7.13.3)",
    HEAD: "head index is not below the queue size (virtio 1.3 §2.7.6)",
    NEXT: "next index is outside of the descriptor table (virtio 1.3 §2.7.5)",
    LOOP: "chain is a loop, or longer than the queue and its tables allow (virtio 1.3 §2.7.5.3.1)",
    ORDER: "a readable descriptor follows a writable one (virtio 1.3 §2.7.4.2)",
    OVERFLOW: "a buffer or table ends beyond the address space (virtio 1.3 §2.7.5)",
    BYTES: "chain has 2^32 bytes or more (virtio 1.3 §2.7.5)",
    INDIRECT_OFF: "indirect descriptor without VIRTIO_F_INDIRECT_DESC (virtio 1.3 §2.7.5.3.1)",
    INDIRECT_NEXT: "indirect descriptor with NEXT (virtio 1.3 §2.7.5.3.1)",
    INDIRECT_LENGTH: "indirect table is empty or not a multiple of 16 bytes (virtio 1.3 §2.7.5.3)",
    INDIRECT_HUGE: "indirect table has more entries than 1024 and than the queue (virtio 1.3 §2.7.5.3.1)",
    INDIRECT_NESTED: "indirect descriptor within an indirect table (virtio 1.3 §2.7.5.3.1)",
}
