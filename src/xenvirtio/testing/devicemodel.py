"""In-process IOREQ servers: a `xen.interfaces.DeviceModel`, and the vCPUs that make requests of them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError
from xenvirtio.memory import raw
from xenvirtio.memory.local import PAGE_SIZE, LocalMemory
from xenvirtio.spec import ioreq

if TYPE_CHECKING:
    from xenvirtio.testing.evtchn import FakeEventChannels
    from xenvirtio.testing.xen import FakeXen

SERVERS_MAX = 8


class Server:
    """One server: its page, its end of each vCPU's event channel."""

    def __init__(self, channels: FakeEventChannels, vcpus: int) -> None:
        self.memory = LocalMemory(PAGE_SIZE)
        self.channels = channels
        self.ports = [channels.offer(0) for _ in range(vcpus)]
        self.enabled = False

    def slot(self, vcpu: int) -> int:
        return self.memory.address + vcpu * ioreq.SLOT_SIZE

    def state(self, vcpu: int) -> int:
        return raw.load8(self.slot(vcpu) + ioreq.FLAGS) & ioreq.STATE_MASK


class FakeDeviceModel:
    """All servers of all domains; they outlive the workers that made them."""

    def __init__(self, xen: FakeXen, vcpus: int = 2) -> None:
        self._xen, self._vcpus = xen, vcpus
        self.servers: dict[tuple[int, int], Server] = {}
        self.mapped: list[int] = []

    def _server(self, domid: int, server: int) -> Server:
        if domid not in self._xen.domains:
            raise XenError(f"no domain {domid}", errno.ESRCH)
        try:
            return self.servers[domid, server]
        except KeyError:
            raise XenError(f"domain {domid} has no IOREQ server {server}", errno.ENOENT) from None

    def create(self, domid: int) -> int:
        if domid not in self._xen.domains:
            raise XenError(f"no domain {domid}", errno.ESRCH)
        if self._xen.kinds[domid] == "pv":
            raise XenError(f"domain {domid} is a PV guest", errno.EINVAL)
        for number in range(SERVERS_MAX):
            if (domid, number) not in self.servers:
                self.servers[domid, number] = Server(self._xen.channels(domid), self._vcpus)
                return number
        raise XenError(f"domain {domid} has {SERVERS_MAX} IOREQ servers", errno.ENOSPC)

    def map_page(self, domid: int, server: int) -> int:
        address = self._server(domid, server).memory.address
        self.mapped.append(address)
        return address

    def unmap_page(self, address: int) -> None:
        self.mapped.remove(address)

    def enable(self, domid: int, server: int, on: bool) -> None:
        found = self._server(domid, server)
        found.enabled = on
        for vcpu, port in enumerate(found.ports):
            raw.store32(found.slot(vcpu) + ioreq.PORT, port)

    def destroy(self, domid: int, server: int) -> None:
        found = self._server(domid, server)
        stuck = [
            k for k in range(self._vcpus) if found.state(k) in (ioreq.STATE_READY, ioreq.STATE_IN_PROCESS)
        ]
        assert not stuck, f"vCPUs {stuck} wait for ever"
        self.servers.pop((domid, server)).channels.close()

    def close(self) -> None:
        """The servers stay."""

    # --- the guest's side ---

    def ask(self, domid: int, vcpu: int = 0, kind: int = ioreq.TYPE_INVALIDATE, flags: int = 0) -> None:
        """A vCPU makes a request of every enabled server, as Xen does at each change of its frames."""
        for server in self.servers_of(domid):
            if server.enabled:
                slot = server.slot(vcpu)
                assert server.state(vcpu) == ioreq.STATE_NONE, "a vCPU that waits makes no requests"
                raw.store64(slot + ioreq.DATA, 0)
                raw.store8(slot + ioreq.TYPE, kind)
                raw.store8(slot + ioreq.FLAGS, flags | ioreq.STATE_READY)
                server.channels.notify(server.ports[vcpu])

    def go_on(self, domid: int, vcpu: int = 0) -> list[int] | None:
        """What every server answered to a vCPU, which runs on then; None while it waits."""
        waited = [server for server in self.servers_of(domid) if server.state(vcpu) != ioreq.STATE_NONE]
        if any(server.state(vcpu) != ioreq.STATE_ANSWERED for server in waited):
            return None
        for server in waited:
            raw.store8(server.slot(vcpu) + ioreq.FLAGS, ioreq.STATE_NONE)
        return [raw.load64(server.slot(vcpu) + ioreq.DATA) for server in waited]

    def servers_of(self, domid: int) -> list[Server]:
        return [server for (owner, _), server in sorted(self.servers.items()) if owner == domid]
