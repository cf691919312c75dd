# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""The device's side of a split virtqueue (virtio 1.3 §2.7).

What the driver writes is read once into our own memory, checked there, and used from there (XSA-155): here
the available idx and each ring entry, in walk.py each descriptor and each indirect table. A batch goes
through three steps, so that one call fetches the indirect tables of all its chains: walk the descriptor
table, fetch, walk those.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import cython

from xenvirtio.errors import QueueViolation
from xenvirtio.queue import rules
from xenvirtio.queue.config import QueueState
from xenvirtio.spec import virtio

if TYPE_CHECKING:
    from typing import Self

    from xenvirtio.memory.base import GuestMemory
    from xenvirtio.queue.batch import Batch
    from xenvirtio.queue.config import QueueConfig

if not cython.compiled:
    from xenvirtio.memory.raw import fence_acquire, fence_full, fence_release, load16, store16, store32
    from xenvirtio.queue.walk import Walker

COMPILED = cython.compiled

AVAIL_IDX = rules.AVAIL_IDX
FULL = rules.FULL

NO_INTERRUPT = virtio.AVAIL_F_NO_INTERRUPT
NO_NOTIFY = virtio.USED_F_NO_NOTIFY


class SplitQueue:
    """Takes chains that the driver made available, gives them back used. A context manager.

    After a QueueViolation or MemoryViolation the device is to stop; nothing but `close` is of use then.
    """

    def __init__(
        self,
        memory: GuestMemory,
        config: QueueConfig,
        features: int,
        resume: bool = False,
        state: QueueState | None = None,
    ) -> None:
        """Checks the layout and maps the rings.

        `features` are the negotiated ones. Both indexes start at 0; with `resume` at the used ring's idx (a
        restarted worker), with `state` where that says. Raises QueueViolation, MemoryViolation.
        """
        config.check()
        self.config = config
        self.index = config.index
        self.size = config.size
        self.memory = memory
        self._event_idx = bool(features & virtio.F_EVENT_IDX)
        self._mask = config.size - 1
        with contextlib.ExitStack() as stack:
            size = config.size
            desc = stack.enter_context(memory.map(config.desc, virtio.desc_length(size), False))
            avail = stack.enter_context(memory.map(config.driver, virtio.avail_length(size), False))
            used = stack.enter_context(memory.map(config.device, virtio.used_length(size), True))
            self._walker = Walker(desc.address, size, bool(features & virtio.F_INDIRECT_DESC))
            self._avail = avail.address
            self._used = used.address
            self._rings = stack.pop_all()
        if resume:
            idx = load16(self._used + 2)
            state = QueueState(idx, idx)
        self._last_avail = state.last_avail if state else 0
        self._used_idx = state.used if state else 0
        self._signalled = self._used_idx
        self._signal = state is not None
        if state is not None and self.available() > config.size:
            self.close()
            raise QueueViolation(rules.TEXT[rules.AVAIL_IDX])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def state(self) -> QueueState:
        """Where the queue stands now; a queue made with it goes on from there."""
        return QueueState(self._last_avail, self._used_idx)

    def available(self) -> int:
        """Chains that the driver made available and that were not taken, as it says: more than `size` is a
        violation that `take` will raise."""
        return (load16(self._avail + 2) - self._last_avail) & 0xFFFF

    def take(self, batch: Batch, limit: int = 0xFFFF) -> int:
        """Append all available chains, at most `limit`, to the batch; returns how many.

        Fewer come if the batch or the memory behind it has no room for more: they stay available. Then, if
        `available` is not 0, take again after giving some back. Each chain is checked and its addresses are
        translated; one that cannot be reached has a fault. The batch must have room for the longest chain.
        Raises QueueViolation, MemoryViolation.
        """
        if batch.segments < self._walker.longest:
            raise ValueError(
                f"a batch of {batch.segments} segments is too small: chains may have {self._walker.longest}"
            )
        first = batch.count
        with cython.nogil:
            rule = self._collect(batch, limit)
        try:
            if rule == 0 and self._walker.tables_used:
                self.memory.fetch_tables(batch, first, self._walker.tables_address)
                with cython.nogil:
                    rule = self._walker.parse_tables(batch, first)
            if rule:
                raise QueueViolation(rules.TEXT[rule])
            if batch.count > first:
                self.memory.begin(batch, first)
        except Exception:  # also Xen's: chains that were not reached are none
            batch.truncate(first)
            raise
        taken = batch.count - first
        self._last_avail = (self._last_avail + taken) & 0xFFFF
        return taken

    def give(self, batch: Batch) -> int:
        """Give all chains of the batch back: their data, then used entries, then the used idx."""
        return self.give_some(batch, batch.count)

    def give_some(self, batch: Batch, count: int) -> int:
        """Give the first `count` chains back, all seen by the driver at once; the rest move to the front."""
        if count < 0 or count > batch.count:
            raise ValueError(f"cannot give {count} of {batch.count} chains")
        if count:
            self.memory.finish(batch, count)
            with cython.nogil:
                self._publish(batch, count)
            batch.drop(count)
        return 0

    def should_notify(self) -> bool:
        """Does the driver want an interrupt for what was given since the last call (virtio 1.3 §2.7.7.2)?"""
        return self._should_notify()

    def wants_kicks(self, on: bool) -> bool:
        """Ask the driver for kicks, or to spare them (virtio 1.3 §2.7.10.1).

        True, only if `on`: more is available already, and no kick need come for it. With EVENT_IDX a stale
        avail_event stays when off: at most one kick too many.
        """
        return self._wants_kicks(on)

    def close(self) -> None:
        """Unmap the rings."""
        self._rings.close()

    def _collect(self, batch: Batch, limit: int) -> int:
        """First step: chains in the descriptor table. A rule, or 0."""
        self._walker.tables_used = 0
        first = batch.count
        n = (load16(self._avail + 2) - self._last_avail) & 0xFFFF
        if n > self.size:
            return AVAIL_IDX
        fence_acquire()  # no ring entry or descriptor is read before the idx that covers it
        if n > limit:
            n = limit
        if n > batch.chains - first:
            n = batch.chains - first
        for k in range(n):
            slot = (self._last_avail + k) & self._mask
            rule = self._walker.chain(batch, first + k, load16(self._avail + 4 + 2 * slot))
            if rule == FULL:
                break
            if rule:
                batch.truncate(first)
                return rule
            batch.count = first + k + 1
        return 0

    def _publish(self, batch: Batch, count: int) -> None:
        """Used entries, then the idx that covers them (virtio 1.3 §2.7.8.2)."""
        for i in range(count):
            written = batch.written[i]
            if written > batch.write_bytes[i]:
                written = batch.write_bytes[i]
            element = self._used + 4 + 8 * ((self._used_idx + i) & self._mask)
            store32(element, batch.head[i])
            store32(element + 4, written)
        fence_release()
        self._used_idx = (self._used_idx + count) & 0xFFFF
        store16(self._used + 2, self._used_idx)

    def _should_notify(self) -> bool:
        fence_full()  # the used idx is out before the driver's wish is read (virtio 1.3 §2.7.13.4.1)
        old = self._signalled
        since = (self._used_idx - old) & 0xFFFF
        self._signalled = self._used_idx
        if self._signal:  # after a restart nobody knows what the driver was told
            self._signal = False
            return True
        if since == 0:
            return False
        if not self._event_idx:
            return (load16(self._avail) & NO_INTERRUPT) == 0
        event = load16(self._avail + 4 + 2 * self.size)
        return ((self._used_idx - event - 1) & 0xFFFF) < since

    def _wants_kicks(self, on: bool) -> bool:
        if self._event_idx:
            if on:
                store16(self._used + 4 + 8 * self.size, self._last_avail)
        else:
            store16(self._used, 0 if on else NO_NOTIFY)
        if not on:
            return False
        fence_full()  # the wish is out before the idx is read again
        return load16(self._avail + 2) != self._last_avail
