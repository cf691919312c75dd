"""The real supervisor and workers on the in-process Xen, all in one thread of the test.

A worker is an object instead of a process: `workers[domid].crash()` is its kill -9.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from typing import TYPE_CHECKING, Any, Self

from xenvirtio.spec import xenbus
from xenvirtio.testing.guest import ForeignGuest, GrantGuest
from xenvirtio.transport.xenbus.ports import Ports
from xenvirtio.worker.connection import Handles
from xenvirtio.worker.loop import Loop
from xenvirtio.worker.main import Worker
from xenvirtio.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xenvirtio.testing.foreign import FakeForeignMapper
    from xenvirtio.testing.frontend import Frontend
    from xenvirtio.testing.grants import FakeGrantTable
    from xenvirtio.testing.xen import FakeXen
    from xenvirtio.transport.xenbus.nodes import DeviceKey
    from xenvirtio.worker.connection import Guest
    from xenvirtio.worker.limits import Limits
    from xenvirtio.worker.main import MakeDevice

FakeGuest = GrantGuest | ForeignGuest


class InProcessWorker:
    """A `WorkerProcess` that is an object."""

    _pids = itertools.count(1000)

    def __init__(self, guest: Guest, backend: InProcessBackend) -> None:
        self.pid = next(self._pids)
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._channels = backend.xen.channels(0)
        self._table = backend.tables[guest.domid]
        self._loop = Loop()
        self._words = "running"
        ports = Ports(self._channels, self._loop.later)
        self._loop.add(self._channels.fileno(), ports.ready)
        model = backend.xen.device_model
        handles = Handles(ports, self._table, lambda: backend.mappers[guest.domid], lambda: model)
        self.worker = Worker(guest, self._loop, self._theirs, lambda _: handles, backend.make_device)

    def turn(self) -> None:
        """Lets it work once, if it lives."""
        if self._words == "running":
            self._loop.turn(0)
            if self._loop.stopped:
                self.worker.close()
                self._ended("exit status 0")

    def crash(self) -> None:
        """Dies where it stands: Xen and the kernel take back what it held, and nothing else happens."""
        if self._words == "running":
            self._channels.close()
            for address, refs in list(self._table.mapped.items()):
                self._table.unmap(address, len(refs))
            for hosted in self.worker.hosted:
                hosted.device.config_changed = lambda: None
                hosted.connection = None
                hosted.close()
            self._ended("killed by SIGKILL")

    kill = crash

    def _ended(self, words: str) -> None:
        self._words = words
        self._channels.close()
        self._loop.close()
        self._theirs.close()
        os.eventfd_write(self._end, 1)

    def fileno(self) -> int:
        return self._end

    def reap(self) -> str:
        self.control.close()
        os.close(self._end)
        return self._words


class InProcessBackend:
    """A daemon. A context manager: leaving it is SIGTERM."""

    def __init__(
        self, xen: FakeXen, run_directory: Path, make_device: MakeDevice, limits: Limits | None = None
    ) -> None:
        self.xen, self.make_device = xen, make_device
        self.tables: dict[int, FakeGrantTable] = {}
        self.mappers: dict[int, FakeForeignMapper] = {}
        self.workers: dict[int, InProcessWorker] = {}
        self.started = 0
        self.loop = Loop()
        self.store = xen.connect(0)
        self.supervisor = Supervisor(self.store, self.loop, self._spawn, run_directory, limits)

    def _spawn(self, guest: Guest) -> InProcessWorker:
        self.started += 1
        worker = self.workers[guest.domid] = InProcessWorker(guest, self)
        return worker

    def know(self, domid: int, frontend: Frontend) -> None:
        """Tells whose memory a domain's grants are about."""
        self.tables[domid] = frontend.table
        if isinstance(frontend.guest, ForeignGuest):
            self.mappers[domid] = frontend.guest.mapper

    def turn(self) -> None:
        """Everybody works once."""
        self.loop.turn(0.001)
        for worker in list(self.workers.values()):
            worker.turn()

    def __enter__(self) -> Self:
        self.supervisor.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and waits until all workers have ended."""
        self.supervisor.stop()
        for _ in range(1000):
            if self.loop.stopped:
                break
            self.turn()
        self.close()

    def crash(self) -> None:
        """kill -9: the workers see their sockets close."""
        for worker in self.workers.values():
            with contextlib.suppress(OSError):
                worker.control.shutdown(socket.SHUT_RDWR)
            for _ in range(10):
                worker.turn()
        self.close()

    def close(self) -> None:
        for guest in self.supervisor.guests.values():
            if guest.life.process is not None:
                guest.life.process.kill()
                guest.life.process.reap()
        self.loop.close()
        self.store.close()

    def report(self) -> dict[str, Any]:
        """What the status socket would tell."""
        answers: list[dict[str, Any]] = []
        self.supervisor.collect(answers.append)
        for _ in range(2000):
            if answers:
                return answers[0]
            self.turn()
        raise AssertionError("no report came")


def plug(
    xen: FakeXen,
    key: DeviceKey,
    device_id: int,
    host: Mapping[str, str] | None = None,
    access: str = xenbus.MemoryAccess.GRANT,
) -> None:
    """Writes a device's nodes as a toolstack does."""
    with xen.connect(0) as store:
        back, front = key.backend(0), key.frontend
        nodes = {
            "frontend": front,
            "frontend-id": str(key.domid),
            "online": "1",
            "state": "1",
            "type": f"virtio,device{device_id:x}",
            "transport": "xenbus",
        }
        for name, value in nodes.items():
            store.write(f"{back}/{name}", value)
            store.set_permissions(f"{back}/{name}", ["n0", f"r{key.domid}"])
        for name, value in ({"memory-access": access} | dict(host or {})).items():
            store.write(f"{back}/host/{name}", value)
        store.set_permissions(back, ["n0", f"r{key.domid}"])
        nodes = {"backend": back, "backend-id": "0", "state": "1", "transport": "xenbus"}
        store.mkdir(front)
        store.set_permissions(front, [f"n{key.domid}", "r0"])
        for name, value in nodes.items():
            store.write(f"{front}/{name}", value)
            store.set_permissions(f"{front}/{name}", [f"n{key.domid}", "r0"])


def unplug(xen: FakeXen, key: DeviceKey) -> None:
    """Asks for an orderly detach, as a toolstack does; the nodes stay until `remove`."""
    with xen.connect(0) as store:
        store.write(f"{key.backend(0)}/online", "0")
        store.write(f"{key.backend(0)}/state", "5")


def remove(xen: FakeXen, key: DeviceKey) -> None:
    """Removes both sides' nodes."""
    with xen.connect(0) as store:
        store.remove(key.backend(0))
        store.remove(key.frontend)
