"""A device that is connected: its page, its memory and its event channel, taken and let go of together."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import GuestViolation, XenvirtioError
from xenvirtio.memory.grant import GrantMemory
from xenvirtio.spec.xenbus import MemoryAccess
from xenvirtio.transport.xenbus.device import XenbusDevice
from xenvirtio.transport.xenbus.page import DevicePage
from xenvirtio.transport.xenbus.ports import EventCounters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenvirtio.device.base import Device
    from xenvirtio.memory.base import GuestMemory
    from xenvirtio.memory.interfaces import ForeignMapper, GrantTable
    from xenvirtio.transport.xenbus.ports import Port, Ports
    from xenvirtio.transport.xenbus.saved import Saved, StateFile
    from xenvirtio.worker.invalidation import Invalidation
    from xenvirtio.xen.interfaces import DeviceModel


@dataclass(frozen=True)
class Guest:
    """Whom a worker serves."""

    domid: int
    name: str
    uuid: str
    run_directory: Path


@dataclass(frozen=True)
class Handles:
    """A worker's handles on Xen."""

    ports: Ports
    grants: GrantTable
    foreign: Callable[[], ForeignMapper]
    """made when the first device wants it: grant mode does without the privilege"""
    device_model: Callable[[], DeviceModel]
    """made when the first device may have a map cache"""


class Line:
    """The event channels of one device."""

    def __init__(self, ports: Ports, domid: int, remote: int) -> None:
        self._ports, self._domid = ports, domid
        self.handler: Callable[[], bool] = lambda: False
        self.counters = EventCounters()
        self._port = ports.bind(domid, remote, lambda: self.handler(), self.counters)

    def notify(self) -> None:
        self._port.notify()

    def bind(self, remote: int, handler: Callable[[], bool]) -> Port:
        return self._ports.bind(self._domid, remote, handler, self.counters)

    def close(self) -> None:
        self._port.close()


class ResumeError(XenvirtioError):
    """What an earlier worker left cannot be gone on with, now or later."""


class Connection:
    """Connected from construction to `close`.

    With `resume` it goes on from the state file. Raises XenError, OSError (the state file cannot be read or
    written), ResumeError (also for rings that the guest has spoilt meanwhile); nothing stays then.
    """

    def __init__(
        self,
        guest: Guest,
        handles: Handles,
        device: Device,
        label: str,
        fresh: Saved,
        file: StateFile,
        invalidation: Invalidation,
        cache_bytes: int,
        *,
        resume: bool,
    ) -> None:
        saved = fresh
        if resume:
            found = file.read()
            if found is None or (found.guest, found.access, found.page, found.port) != (
                fresh.guest,
                fresh.access,
                fresh.page,
                fresh.port,
            ):
                raise ResumeError(f"{file.path} does not tell how to go on with the guest's device")
            saved = found
        with contextlib.ExitStack() as stack:
            address = handles.grants.map([saved.page], guest.domid, True)
            stack.callback(handles.grants.unmap, address, 1)
            self.memory: GuestMemory
            if saved.access == MemoryAccess.FOREIGN:
                self.memory = foreign = invalidation.open(handles.foreign(), cache_bytes)
                stack.callback(invalidation.release, foreign)
            else:
                self.memory = GrantMemory(handles.grants, guest.domid)
                stack.callback(self.memory.close)
            self._line = line = Line(handles.ports, guest.domid, saved.port)
            stack.callback(line.close)
            self.transport = XenbusDevice(
                label, device, self.memory, DevicePage(address), line, saved, file.write
            )
            stack.callback(self.transport.close)
            if resume:
                try:
                    self.transport.resume()
                except GuestViolation as violation:
                    words = f"the guest's rings cannot be had again: {violation.rule}"
                    raise ResumeError(words) from violation
            else:
                self.transport.start()
            line.handler = self.transport.event
            self._stack = stack.pop_all()
        self.access = saved.access

    def report(self) -> dict[str, Any]:
        """How it is, for `xenvirtio list --json`."""
        transport = self.transport
        return {
            "memory_access": self.access,
            "status": transport.status,
            "features": transport.features,
            "queues": transport.enabled_queues,
            "queue_channels": transport.queue_channels,
            "events": asdict(self._line.counters),
            "kicks": transport.kicks,
            "ignored_kicks": transport.ignored_kicks,
            "violations": transport.violations,
            "memory": self.memory.counters.as_dict(),
        }

    def close(self) -> None:
        """Lets go of everything of the guest's; the device stays open."""
        self._stack.close()
