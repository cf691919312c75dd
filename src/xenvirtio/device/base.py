"""What every device is to a transport (virtio 1.3 §2), and what devices have in common.

A device knows neither its transport nor Xen. Its life:

    make → Inactive ──activate()──► Active ──deactivate()──► Inactive → close()
                                       │
                                     kick(), pollers()
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xenvirtio.queue.batch import Batch
    from xenvirtio.queue.split import SplitQueue

#: a transport's way to interrupt the driver for a queue, by its index
Notify = Callable[[int], None]


#: batches that one queue may have served in one wake-up; what is left waits until everybody had a turn
ROUNDS = 4


def ignore_change() -> None:
    """Nobody listens for configuration changes."""


class Device(Protocol):
    """One virtio device, whatever it does and however its driver reaches it."""

    device_id: int
    queue_count: int
    queue_size_max: int
    features: int
    """Feature bits offered: the device's own part; the transport adds its bits (virtio 1.3 §6)."""
    config_changed: Callable[[], None]
    """Set by the transport; the device calls it after its configuration space changed by itself."""

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened since the device was made, for `list --json`."""

    def config(self) -> bytes:
        """The configuration space now (virtio 1.3 §2.5)."""

    def write_config(self, offset: int, data: bytes) -> bool:
        """Take what the driver wrote at `offset` bytes; False if nothing there may be written."""

    def update(self, settings: Mapping[str, str]) -> None:
        """Take the settings of B/host as they are now, while it serves. Of those that it was made from only
        some can change (a disk's size, a NIC's link); the others are ignored.

        Calls `config_changed` if the driver has something to see. Raises UsageError if they cannot be
        taken, and has changed nothing then."""

    def activate(self, features: int, queues: Sequence[SplitQueue | None], notify: Notify) -> None:
        """Start to serve: DRIVER_OK came. `features` are the negotiated ones, `queues` in the order of
        their indexes; None stands for one that the driver did not enable."""

    def deactivate(self) -> None:
        """Stop; nothing is in flight when it returns. Does nothing if the device is inactive."""

    def kick(self, queue: int) -> None:
        """Process what is available on a queue.

        Ignores (and counts) queues that do not exist or are not enabled. Raises GuestViolation; the
        transport deactivates the device then, until the driver has reset it."""

    def pollers(self) -> Mapping[int, Callable[[], None]]:
        """File descriptors to wait on for reading, and what to call; the same from make to close.

        The calls may raise GuestViolation, too."""

    def close(self) -> None:
        """Let go of everything; deactivates first. May be called twice."""


class Wakeups:
    """One descriptor that stands for all of a device's reasons to be woken, so that a transport's event
    loop never learns of a change: an epoll instance which holds the device's own descriptors, and an
    event for the work left over when a queue had used up its share of one wake-up."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self._epoll = stack.enter_context(select.epoll())
            self._again = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            stack.callback(os.close, self._again)
            self._epoll.register(self._again, select.EPOLLIN)
            self._stack = stack.pop_all()
        self._watched: set[int] = set()

    def fileno(self) -> int:
        """The descriptor to wait on, for reading."""
        return self._epoll.fileno()

    def watch(self, fd: int, on: bool) -> None:
        """Wake when `fd` is readable, or no longer."""
        if on and fd not in self._watched:
            self._epoll.register(fd, select.EPOLLIN)
            self._watched.add(fd)
        elif not on and fd in self._watched:
            self._epoll.unregister(fd)
            self._watched.discard(fd)

    def again(self) -> None:
        """Wake once more, after everybody else had a turn."""
        os.eventfd_write(self._again, 1)

    def ready(self) -> Iterator[int]:
        """The watched descriptors that are readable; -1 for `again`. Never waits."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._again:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._again)
                yield -1
            else:
                yield fd

    def close(self) -> None:
        """Close both descriptors; what they watched stays open."""
        self._stack.close()


def serve(
    queue: SplitQueue, batch: Batch, run: Callable[[Batch], None], notify: Notify, wakeups: Wakeups
) -> None:
    """Serve what is available on a queue whose chains are all done when `run` returns.

    Raises GuestViolation."""
    queue.wants_kicks(False)
    for _ in range(ROUNDS):
        if queue.take(batch):
            run(batch)
            queue.give(batch)
            if queue.should_notify():
                notify(queue.index)
        elif not queue.wants_kicks(True):
            return
    wakeups.again()
