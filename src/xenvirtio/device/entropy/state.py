"""A source of random bytes (virtio 1.3 §5.4): what a device in plain Python looks like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xenvirtio.device.base import Notify, Wakeups, ignore_change, serve
from xenvirtio.queue.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xenvirtio.queue.split import SplitQueue

REQUEST_MAX = 64 << 10  # bytes given at once; a driver asks again for more


class EntropyDevice:
    """See xenvirtio.device.base.Device."""

    device_id = 4
    queue_count = 1
    queue_size_max = 64
    features = 0

    def __init__(self) -> None:
        self.config_changed: Callable[[], None] = ignore_change
        self.counters: dict[str, int] = {"requests": 0, "bytes": 0}
        self._wakeups = Wakeups()
        self._active: tuple[SplitQueue, Batch, Notify] | None = None

    def config(self) -> bytes:
        return b""

    def write_config(self, offset: int, data: bytes) -> bool:  # noqa: ARG002
        return False

    def update(self, settings: Mapping[str, str]) -> None:
        """It has none."""

    def activate(self, features: int, queues: Sequence[SplitQueue | None], notify: Notify) -> None:  # noqa: ARG002
        queue = queues[0]
        self._active = None if queue is None else (queue, Batch(queue.size), notify)

    def deactivate(self) -> None:
        self._active = None

    def kick(self, queue: int) -> None:
        if self._active is not None and queue == 0:
            virtqueue, batch, notify = self._active
            serve(virtqueue, batch, self._fill, notify, self._wakeups)

    def _fill(self, batch: Batch) -> None:
        for i in range(batch.count):
            left = 0 if batch.fault[i] else REQUEST_MAX
            for part in batch.writable(i):
                count = min(len(part), left)
                part[:count] = os.getrandom(count)
                batch.written[i] += count
                left -= count
            self.counters["requests"] += 1
            self.counters["bytes"] += batch.written[i]

    def pollers(self) -> Mapping[int, Callable[[], None]]:
        return {self._wakeups.fileno(): self._wake}

    def _wake(self) -> None:
        for _ in self._wakeups.ready():
            self.kick(0)

    def close(self) -> None:
        self.deactivate()
        self._wakeups.close()
