"""The smallest useful device: it writes back what it is sent. For tests of transports, and as an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.queue.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xenvirtio.device.base import Notify
    from xenvirtio.queue.split import SplitQueue

#: no device type of the specification
ECHO = 0x3E


class EchoDevice:
    """A `device.base.Device`: each chain's readable bytes come back in its writable part.

    Its configuration space is eight bytes, which the driver may write, and the setting `space` replaces.
    """

    device_id = ECHO
    queue_count = 2
    queue_size_max = 256
    features = 1 << 3

    def __init__(self) -> None:
        self.config_changed: Callable[[], None] = lambda: None
        self.space = bytearray(b"config!!")
        self.open = True
        self.active = False
        self.counters: dict[str, int] = {"chains": 0, "faults": 0}
        self._queues: Sequence[SplitQueue | None] = ()
        self._batch = Batch(256, 1024)

    def config(self) -> bytes:
        return bytes(self.space)

    def write_config(self, offset: int, data: bytes) -> bool:
        self.space[offset : offset + len(data)] = data
        return True

    def update(self, settings: Mapping[str, str]) -> None:
        if "refuse" in settings:
            raise UsageError(settings["refuse"])
        self.space[:] = settings.get("space", "config!!").encode().ljust(8)[:8]
        self.config_changed()

    def activate(self, features: int, queues: Sequence[SplitQueue | None], notify: Notify) -> None:  # noqa: ARG002
        self._queues, self._notify, self.active = queues, notify, True

    def deactivate(self) -> None:
        self._queues, self.active = (), False

    def kick(self, queue: int) -> None:
        ring = self._queues[queue] if queue < len(self._queues) else None
        if ring is None:
            return
        while ring.take(self._batch) or ring.wants_kicks(True):
            for i in range(self._batch.count):
                self._echo(i)
            self.counters["chains"] += self._batch.count
            ring.give(self._batch)
            if ring.should_notify():
                self._notify(queue)

    def _echo(self, i: int) -> None:
        self._batch.written[i] = 0
        if self._batch.fault[i]:
            self.counters["faults"] += 1
            return
        data = b"".join(bytes(part) for part in self._batch.readable(i))
        written = 0
        for part in self._batch.writable(i):
            piece = data[written : written + len(part)]
            part[: len(piece)] = piece
            written += len(piece)
        self._batch.written[i] = written

    def pollers(self) -> Mapping[int, Callable[[], None]]:
        return {}

    def close(self) -> None:
        self.deactivate()
        self.open = False
