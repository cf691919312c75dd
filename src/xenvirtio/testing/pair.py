"""Both sides of one virtqueue: a guest with its driver, and the queue as a device has it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from xenvirtio.memory.local import LocalMemory
from xenvirtio.queue.batch import Batch
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.guest import RegionGuest

if TYPE_CHECKING:
    from xenvirtio.memory.base import GuestMemory
    from xenvirtio.testing.guest import ForeignGuest, GrantGuest

FEATURES = virtio.F_VERSION_1 | virtio.F_INDIRECT_DESC | virtio.F_EVENT_IDX


class Pair:
    """A context manager; leaving it closes the queue, then the driver, which checks that all was let go."""

    def __init__(
        self,
        size: int = 16,
        features: int = FEATURES,
        guest: RegionGuest | GrantGuest | ForeignGuest | None = None,
        memory: GuestMemory | None = None,
        batch: Batch | None = None,
    ) -> None:
        """The guest, if given, is closed with the pair."""
        with contextlib.ExitStack() as stack:
            self.guest = stack.enter_context(guest or RegionGuest(256))
            self.driver = Driver(self.guest, size, features)
            stack.callback(self.driver.close)
            self.memory: GuestMemory = memory or self.guest.memory()
            stack.callback(self.memory.close)
            self.batch = batch or Batch(min(size, 256), max(size, 1024))
            self.queue = stack.enter_context(SplitQueue(self.memory, self.driver.config, features))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def take(self, limit: int = 0xFFFF) -> int:
        return self.queue.take(self.batch, limit)

    def read(self, i: int) -> bytes:
        """All that the device can read of chain `i`."""
        return b"".join(bytes(part) for part in self.batch.readable(i))

    def write(self, i: int, data: bytes, offset: int = 0) -> bool:
        """Write as a device does; `written` becomes the end of what was written."""
        local = LocalMemory(len(data))
        local.write(0, data)
        self.batch.written[i] = offset + len(data)
        return bool(self.batch.scatter(i, offset, local.address, len(data)))

    def give(self) -> None:
        self.queue.give(self.batch)
