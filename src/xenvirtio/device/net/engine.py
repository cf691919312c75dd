# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""Moves packets between a tap and the guest's buffers, a batch at a time.

The engine works on a file descriptor that gives and takes one packet a call behind a header of 12 bytes and
never waits. The header always passes through a local copy: checked on its way to the host, completed on its
way to the guest. The rest moves straight from and into the guest's buffers.
"""

from __future__ import annotations

import ctypes
import errno
from array import array
from enum import IntEnum
from typing import TYPE_CHECKING

import cython

from xenvirtio.device.net import space
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from xenvirtio.queue.batch import Batch

if not cython.compiled:
    from xenvirtio.device.net.requests import HeaderRules, Offloads, ReceiveFilter
    from xenvirtio.device.syscalls import readv, writev
    from xenvirtio.memory.raw import copy, store16

EINTR = errno.EINTR
EAGAIN = errno.EAGAIN
ENODEV = errno.ENODEV
HEADER = spec.HEADER_SIZE
NUM_BUFFERS = spec.HEADER_NUM_BUFFERS
ETH_HLEN = spec.ETH_HLEN
#: what is read into a local copy first: the header, an Ethernet header and a VLAN tag
HEAD = spec.HEADER_SIZE + spec.ETH_HLEN + 4
FULL = spec.HEADER_SIZE + space.PACKET_MAX
IOVECS = 1024  # linux/uio.h UIO_MAXIOV
DRAIN_MAX = 4096  # packets; a tap queues 500 (linux drivers/net/tun.c), more than this is a flood


class End(IntEnum):
    """Why receiving ended."""

    DRAINED = 0  # the host has no more packets
    STARVED = 1  # the buffers at hand are used up, or too few for the packet that waits
    BUDGET = 2  # as much was done as was allowed at once
    GONE = 3  # the descriptor fails: no link any more


DRAINED = End.DRAINED
STARVED = End.STARVED
BUDGET = End.BUDGET
GONE = End.GONE


class Engine:
    """Sends and receives on one descriptor, which stays the caller's; counts what it did."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.rules = HeaderRules(0)
        self.filter = ReceiveFilter(bytes(spec.ETH_ALEN), False)
        self.mergeable = False
        self.offloads = Offloads(0)
        self.end = End.DRAINED
        self._iov_array = array("Q", bytes(16 * 1024))
        self._iov = self._iov_array
        self._iov_address = self._iov_array.buffer_info()[0]
        self._local = ctypes.create_string_buffer(64)
        self._head = ctypes.addressof(self._local)
        # A waiting packet, from its header on. Also takes the part of a packet that finds no buffer.
        self._store = ctypes.create_string_buffer(spec.HEADER_SIZE + space.PACKET_MAX + 1)
        self._waiting = ctypes.addressof(self._store)
        self._waiting_length = 0
        self._count = self._chains = 0
        self.tx_packets = self.tx_bytes = self.tx_dropped = self.tx_invalid = 0
        self.rx_packets = self.rx_bytes = self.rx_dropped = self.rx_filtered = 0

    def configure(self, features: int, receive_filter: ReceiveFilter) -> None:
        """Serve a driver that negotiated these features, from a fresh start."""
        self.rules = HeaderRules(features)
        self.filter = receive_filter
        self.mergeable = bool(features & spec.F_MRG_RXBUF)
        self.offloads = Offloads(features)
        self._waiting_length = 0

    def counters(self) -> dict[str, int]:
        """Packets and bytes (without virtio headers) by direction, as the guest sees it."""
        return {
            "tx_packets": self.tx_packets,
            "tx_bytes": self.tx_bytes,
            "tx_dropped": self.tx_dropped,
            "tx_invalid": self.tx_invalid,
            "rx_packets": self.rx_packets,
            "rx_bytes": self.rx_bytes,
            "rx_dropped": self.rx_dropped,
            "rx_filtered": self.rx_filtered,
        }

    def transmit(self, batch: Batch) -> None:
        """Send every chain of the batch, or drop it; all can be given back on return."""
        with cython.nogil:
            self._transmit(batch)

    def discard(self, batch: Batch) -> None:
        """Drop every chain of the batch: there is no link."""
        for i in range(batch.count):
            batch.written[i] = 0
        self.tx_dropped += batch.count

    def _transmit(self, batch: Batch) -> None:
        for i in range(batch.count):
            batch.written[i] = 0
            self._send(batch, i)

    def _send(self, batch: Batch, i: int) -> None:
        length = batch.read_bytes[i]
        sent = -EINTR
        if batch.fault[i] != 0 or length < HEADER or batch.iov_read[i] >= IOVECS:
            self.tx_invalid += 1
            return
        length -= HEADER
        if not batch.gather(i, 0, self._head, HEADER) or not self.rules.check(self._head, length):
            self.tx_invalid += 1
            return
        count = self._start(HEADER)
        skip = HEADER
        for row in range(batch.iov_first[i], batch.iov_first[i] + batch.iov_read[i]):
            size = batch.iov[2 * row + 1]
            if size <= skip:
                skip -= size
                continue
            self._iov[2 * count] = batch.iov[2 * row] + skip
            self._iov[2 * count + 1] = size - skip
            skip = 0
            count += 1
        while sent == -EINTR:
            sent = writev(self.fd, self._iov_address, count)
        if sent < 0:
            self.tx_dropped += 1
        else:
            self.tx_packets += 1
            self.tx_bytes += length

    def _start(self, length: int) -> int:
        """Begin the list of iovecs with the local copy of a packet's first bytes."""
        self._iov[0] = self._head
        self._iov[1] = length
        return 1

    def drain(self) -> None:
        """Drop what the host has sent until now; it was for nobody, or for another driver."""
        self._start(HEAD)
        for _ in range(DRAIN_MAX):
            length = readv(self.fd, self._iov_address, 1)  # the rest of a packet goes with its beginning
            if length > 0:
                self.rx_dropped += 1
            elif length != -EINTR:
                return

    def receive(self, batch: Batch, full: bool, budget: int) -> int:
        """Fill chains of the batch, at most `budget` packets; how many chains, from the first on, are done.

        `end` says why it ended (an End). `full`: the driver cannot add more buffers, so a packet for which
        these are too few is dropped; otherwise it waits for more.
        """
        with cython.nogil:
            return self._receive(batch, full, budget)

    def _receive(self, batch: Batch, full: bool, budget: int) -> int:
        cursor = 0
        while budget > 0:
            budget -= 1
            while cursor < batch.count and batch.fault[cursor] != 0:
                batch.written[cursor] = 0
                cursor += 1
            if cursor == batch.count:
                self.end = STARVED
                return cursor
            room = self._list_buffers(batch, cursor)
            length = self._waiting_length if self._waiting_length else self._read(room)
            if length == 0:
                continue
            if length < 0:
                self.end = DRAINED if length == -EAGAIN else GONE
                return cursor
            size = length
            if size <= room:
                cursor += self._deliver(batch, cursor, size)
            elif not self.mergeable or size > FULL:
                self._drop()
            elif cursor + self._chains < batch.count:
                # A chain that cannot be reached cuts the buffers short: those before it go back empty.
                self._keep(size)
                while self._chains > 0:
                    batch.written[cursor] = 0
                    cursor += 1
                    self._chains -= 1
            elif cursor == 0 and full:
                self._drop()
            else:
                self._keep(size)
                self.end = STARVED
                return cursor
        self.end = BUDGET
        return cursor

    def _list_buffers(self, batch: Batch, cursor: int) -> int:
        """List where one packet may go: the local copy of its head, then the chains from `cursor` on, as many
        as the greatest packet needs. Returns how many bytes fit."""
        room = 0
        chain = cursor
        self._count = self._start(HEAD)
        while room < FULL and chain < batch.count and batch.fault[chain] == 0 and self._count < IOVECS - 1:
            row = batch.iov_first[chain] + batch.iov_read[chain]
            end = row + batch.iov_write[chain]
            while row < end and self._count < IOVECS - 1:
                size = batch.iov[2 * row + 1]
                skip = 0
                if room < HEAD:
                    skip = HEAD - room if HEAD - room < size else size
                if size > skip:
                    self._iov[2 * self._count] = batch.iov[2 * row] + skip
                    self._iov[2 * self._count + 1] = size - skip
                    self._count += 1
                room += size
                row += 1
            chain += 1
            if not self.mergeable:
                break
        self._chains = chain - cursor
        return room

    def _read(self, room: int) -> int:
        """Read one packet; what does not fit goes to its place in the store. The length with the header, 0 if
        nobody wants the packet, or -errno."""
        length = -EINTR
        count = self._count
        room = room if room > HEAD else HEAD
        if room <= FULL:
            self._iov[2 * count] = self._waiting + room
            self._iov[2 * count + 1] = FULL + 1 - room  # one more than any packet: a longer one shows
            count += 1
        while length == -EINTR:
            length = readv(self.fd, self._iov_address, count)
        if length <= 0:
            return length if length < 0 else -ENODEV
        size = length
        if size < HEADER + ETH_HLEN:
            self.rx_dropped += 1
            return 0
        if not self.filter.accepts(self._head + HEADER):
            self.rx_filtered += 1
            return 0
        if not self.offloads.takes(self._head):
            self.rx_dropped += 1
            return 0
        return length

    def _drop(self) -> None:
        self.rx_dropped += 1
        self._waiting_length = 0

    def _keep(self, length: int) -> None:
        """Let a packet wait for more buffers: what lies in chains already joins the rest in the store."""
        if self._waiting_length:
            return
        at = HEAD
        copy(self._waiting, self._head, HEAD)
        for row in range(1, self._count):
            copy(self._waiting + at, self._iov[2 * row], self._iov[2 * row + 1])
            at += self._iov[2 * row + 1]
        self._waiting_length = length

    def _deliver(self, batch: Batch, cursor: int, length: int) -> int:
        """A packet that fits: its head, with num_buffers, goes to the guest. How many chains it took."""
        chain = cursor
        left = length
        while left > 0:
            batch.written[chain] = left if left < batch.write_bytes[chain] else batch.write_bytes[chain]
            left -= batch.written[chain]
            chain += 1
        if self._waiting_length:
            store16(self._waiting + NUM_BUFFERS, chain - cursor)
            self._spread(batch, cursor, self._waiting, length)
            self._waiting_length = 0
        else:
            store16(self._head + NUM_BUFFERS, chain - cursor)
            self._spread(batch, cursor, self._head, length if length < HEAD else HEAD)
        self.rx_packets += 1
        self.rx_bytes += length - HEADER
        return chain - cursor

    def _spread(self, batch: Batch, chain: int, source: int, length: int) -> None:
        """Copy local memory to the beginning of the bytes that the chains from `chain` on make together."""
        while length > 0:
            part = length if length < batch.write_bytes[chain] else batch.write_bytes[chain]
            batch.scatter(chain, 0, source, part)
            source += part
            length -= part
            chain += 1
