"""A disk: virtio-blk on a raw file or block device (virtio 1.3 §5.2)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from xenvirtio.device.base import Notify, Wakeups, ignore_change, serve
from xenvirtio.device.block import space
from xenvirtio.device.block.config import size_setting
from xenvirtio.device.block.engine import Engine
from xenvirtio.device.block.image import Image
from xenvirtio.device.block.requests import Requests
from xenvirtio.queue.batch import Batch
from xenvirtio.spec import block as spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xenvirtio.device.block.config import BlockConfig
    from xenvirtio.queue.split import SplitQueue


@dataclass(frozen=True)
class Inactive:
    """No driver: there are no queues."""


@dataclass(frozen=True)
class Active:
    """A driver is there, and set up the queue."""

    queue: SplitQueue
    batch: Batch
    requests: Requests
    notify: Notify


class BlockDevice:
    """See xenvirtio.device.base.Device."""

    device_id = spec.DEVICE_ID
    queue_count = 1
    queue_size_max = space.QUEUE_SIZE_MAX

    def __init__(self, config: BlockConfig) -> None:
        """Open the image. Raises UsageError."""
        self.config_changed: Callable[[], None] = ignore_change
        with contextlib.ExitStack() as stack:
            self._image = stack.enter_context(contextlib.closing(Image(config)))
            self._wakeups = stack.enter_context(contextlib.closing(Wakeups()))
            self._stack = stack.pop_all()
        self._engine = Engine(self._image.fd, self._image.is_device, config.serial)
        self._ignored_kicks = 0
        self._negotiated = 0
        self._state: Inactive | Active = Inactive()
        self.features = space.features(self._image)

    @property
    def counters(self) -> Mapping[str, int]:
        return {**self._engine.counters(), "ignored_kicks": self._ignored_kicks}

    def config(self) -> bytes:
        return space.config(self._image, self._engine.writeback)

    def write_config(self, offset: int, data: bytes) -> bool:
        """Only the cache mode can be written (§5.2.5.1): 1 is write-back, 0 write-through."""
        if offset != spec.CONFIG_WRITEBACK or data not in (b"\0", b"\1"):
            return False
        if not self._negotiated & spec.F_CONFIG_WCE:
            return False
        writeback = data == b"\1"
        if self._engine.writeback and not writeback:
            self._engine.sync()
        self._engine.writeback = writeback
        return True

    def update(self, settings: Mapping[str, str]) -> None:
        """The size can change. Nothing is under way now; what comes is checked against the new end."""
        if not self._image.resize(size_setting(settings, self._image.path)):
            return
        if isinstance(self._state, Active):
            requests = self._requests(self._state.batch, self._negotiated)
            self._state = replace(self._state, requests=requests)
        self.config_changed()

    def _requests(self, batch: Batch, features: int) -> Requests:
        sectors = self._image.size // spec.SECTOR_SIZE
        return Requests(batch.chains, batch.iovecs, sectors, features)

    def activate(self, features: int, queues: Sequence[SplitQueue | None], notify: Notify) -> None:
        self.deactivate()
        self._negotiated = features
        # §5.2.5.2: without FLUSH the driver cannot ask for stable data, so every write is
        self._engine.writeback = bool(features & spec.F_FLUSH)
        if not self._engine.writeback:
            self.config_changed()
        queue = queues[0]
        if queue is None:
            return
        batch = Batch(queue.size)
        self._state = Active(queue, batch, self._requests(batch, features), notify)
        self._wakeups.again()

    def deactivate(self) -> None:
        self._state = Inactive()
        self._negotiated = 0
        self._engine.writeback = True

    def kick(self, queue: int) -> None:
        state = self._state
        if isinstance(state, Inactive) or queue != 0:
            self._ignored_kicks += 1
            return
        serve(state.queue, state.batch, partial(self._run, state.requests), state.notify, self._wakeups)

    def _run(self, requests: Requests, batch: Batch) -> None:
        requests.parse(batch)
        self._engine.run(batch, requests)

    def pollers(self) -> Mapping[int, Callable[[], None]]:
        return {self._wakeups.fileno(): self._wake}

    def _wake(self) -> None:
        for _ in self._wakeups.ready():
            if isinstance(self._state, Active):
                self.kick(0)

    def close(self) -> None:
        self.deactivate()
        self._stack.close()
