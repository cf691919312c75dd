"""Hearing of frames that change: an IOREQ server of the guest, kept only for its INVALIDATE requests.

    (no server) ──memory that may be cached──► serving ──the last one closed, or an orderly end──► (no server)
        │                                         │ kill -9
        └── PV guest, or no server to be had:     ▼ the server stays; its file says which it is
            memory is not cached               taken over by the next worker, whatever it serves

The vCPU that changed its frames waits until every server has answered: caches are dropped first, so it does
not run on while one of them stands for what was. A server without ranges gets nothing but INVALIDATE;
anything else is answered as if no device were there. While no worker lives, a guest waits at its next
balloon-down, as its requests do. A server is ended only after all requests were answered: its destruction
wakes nobody. What is dropped, and what changes without INVALIDATE: memory/foreign_cache.py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from typing import TYPE_CHECKING

from xenvirtio.errors import MissingDependency, UsageError, XenError
from xenvirtio.memory import raw
from xenvirtio.memory.foreign import ForeignMemory
from xenvirtio.spec import ioreq
from xenvirtio.spec.xenbus import KEY_MAP_CACHE, MAP_CACHE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xenvirtio.memory.interfaces import ForeignMapper
    from xenvirtio.transport.xenbus.ports import Port
    from xenvirtio.worker.connection import Guest, Handles
    from xenvirtio.xen.interfaces import DeviceModel

logger = logging.getLogger(__name__)

MIB = 1 << 20
#: of one device, unless B/host says otherwise. A MiB costs dom0 2 KiB of page tables, and the worker less
CACHE_DEFAULT = 256 * MIB
#: longest file that is read, bytes
FILE_MAX = 4096
READS = (1 << 64) - 1


def cache_setting(host: Mapping[str, str]) -> int:
    """How much of the guest a device may keep mapped, bytes; 0: nothing. Raises UsageError."""
    text = host.get(KEY_MAP_CACHE)
    if text is None:
        return CACHE_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAP_CACHE_MAX):
        raise UsageError(
            f"{KEY_MAP_CACHE} is {text!r}", f"a number of MiB, at most {MAP_CACHE_MAX}; 0: no cache"
        )
    return int(text) * MIB


def server_file(guest: Guest) -> Path:
    """Where it is written which server the guest's worker has."""
    return guest.run_directory / f"{guest.domid}-ioreq.json"


class Invalidation:
    """One guest's server, and the memory that is dropped by it. `close` ends it in order."""

    def __init__(self, guest: Guest, handles: Handles) -> None:
        self._guest, self._handles = guest, handles
        self._file = server_file(guest)
        self._memories: list[ForeignMemory] = []
        self._server: _Server | None = None
        self.answered = 0
        """INVALIDATE requests"""

    # --- memory ---

    def open(self, mapper: ForeignMapper, cache_bytes: int) -> ForeignMemory:
        """The guest's memory, cached if its invalidations can be heard; it is closed by `release`."""
        if not cache_bytes or not self._listen():
            return ForeignMemory(mapper, self._guest.domid)
        memory = ForeignMemory(mapper, self._guest.domid, cache_bytes)
        self._memories.append(memory)
        return memory

    def release(self, memory: ForeignMemory) -> None:
        """Closes memory; with the last one that was cached, the server goes."""
        memory.close()
        if memory in self._memories:
            self._memories.remove(memory)
            if not self._memories:
                self.close()

    # --- the server's life ---

    def take_over(self) -> None:
        """Goes on with the server that a killed worker left, if it did; a vCPU may wait for it."""
        number = self._left_behind()
        if number is None:
            return
        try:
            self._serve(self._handles.device_model(), number)
        except (XenError, MissingDependency) as error:
            logger.warning("guest %s: IOREQ server %d is given up: %s", self._guest.name, number, error)
            self._abandon(number)
        else:
            logger.info("guest %s: IOREQ server %d taken over", self._guest.name, number)

    def close(self) -> None:
        """Answers what waits and ends the server; does nothing if there is none."""
        server, self._server = self._server, None
        if server is not None:
            try:
                server.end()
            except XenError as error:  # the guest is gone, or it does not go on for want of us
                logger.info("guest %s: IOREQ server %d: %s", self._guest.name, server.number, error)
            self._file.unlink(missing_ok=True)

    def _listen(self) -> bool:
        """There is a server now."""
        if self._server is not None and self._server.is_there():
            return True
        self.close()  # somebody else in this domain has ended it: nothing was heard since
        for memory in self._memories:
            memory.invalidate()
        try:
            model = self._handles.device_model()
            number = model.create(self._guest.domid)
        except (XenError, MissingDependency) as error:
            if not isinstance(error, XenError) or error.errno != errno.EINVAL:  # a PV guest
                logger.warning("guest %s: no map cache: %s", self._guest.name, error)
            return False
        try:
            self._write(number)  # first: a worker that dies from here on leaves a trace
            self._serve(model, number)
        except (XenError, OSError) as error:
            logger.warning("guest %s: no map cache: %s", self._guest.name, error)
            self._abandon(number)
            return False
        return True

    def _serve(self, model: DeviceModel, number: int) -> None:
        self._server = _Server(self, model, number)

    def _abandon(self, number: int) -> None:
        """Ends a server that cannot be served: better for the guest than to wait for it."""
        with contextlib.suppress(XenError, MissingDependency):
            self._handles.device_model().destroy(self._guest.domid, number)
        self._file.unlink(missing_ok=True)

    def _write(self, number: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"guest": self._guest.uuid, "server": number}))
        os.replace(fresh, self._file)

    def _left_behind(self) -> int | None:
        try:
            with self._file.open() as file:
                found = json.loads(file.read(FILE_MAX))
            number = found["server"] if found["guest"] == self._guest.uuid else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return number if type(number) is int else None

    # --- requests ---

    def bind(self, remote: int, slot: int) -> Port:
        """Hears a vCPU's port, whose requests are at the local address `slot`. Raises XenError."""
        port = self._handles.ports.bind(self._guest.domid, remote, lambda: self.answer(slot, port))
        return port

    def answer(self, slot: int, port: Port) -> bool:
        """Answers the request in a slot; False if there is none."""
        flags = raw.load8(slot + ioreq.FLAGS)
        if flags & ioreq.STATE_MASK not in (ioreq.STATE_READY, ioreq.STATE_IN_PROCESS):
            return False
        if raw.load8(slot + ioreq.TYPE) == ioreq.TYPE_INVALIDATE:
            self.answered += 1
            for memory in self._memories:
                memory.invalidate()
        elif flags & ioreq.FLAG_READ:
            raw.store64(slot + ioreq.DATA, READS)
        raw.fence_release()
        raw.store8(slot + ioreq.FLAGS, flags & ~ioreq.STATE_MASK | ioreq.STATE_ANSWERED)
        port.notify()
        return True

    @property
    def domid(self) -> int:
        return self._guest.domid


class _Server:
    """A server that is served: its page is mapped, it is enabled, its ports are bound."""

    def __init__(self, owner: Invalidation, model: DeviceModel, number: int) -> None:
        self.number = number
        self._owner, self._model = owner, model
        self._ports: list[tuple[int, Port]] = []
        with contextlib.ExitStack() as stack:
            page = model.map_page(owner.domid, number)
            stack.callback(model.unmap_page, page)
            model.enable(owner.domid, number, True)  # Xen fills in the ports now
            for slot in range(page, page + ioreq.SLOTS_MAX * ioreq.SLOT_SIZE, ioreq.SLOT_SIZE):
                remote = raw.load32(slot + ioreq.PORT)
                if remote:
                    port = owner.bind(remote, slot)
                    stack.callback(port.close)
                    self._ports.append((slot, port))
            self._stack = stack.pop_all()
        self._answer_all()

    def _answer_all(self) -> None:
        for slot, port in self._ports:
            self._owner.answer(slot, port)

    def is_there(self) -> bool:
        """Xen has it still."""
        try:
            self._model.enable(self._owner.domid, self.number, True)
        except XenError:
            return False
        return True

    def end(self) -> None:
        """Raises XenError if the guest is gone; nothing of it is held then, either."""
        with self._stack:
            self._model.enable(self._owner.domid, self.number, False)
            self._answer_all()
            self._model.destroy(self._owner.domid, self.number)
