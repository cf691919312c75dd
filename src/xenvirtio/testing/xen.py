"""An in-process Xen: XenStore with watches, transactions and permissions, event channels, IOREQ servers.

    xen = FakeXen()
    xen.start_domain(5, "guest")
    store, channels = xen.connect(0), xen.channels(0)

Grants and foreign frames are a guest's own: `testing.guest`. It behaves as oxenstored and Linux's evtchn
device do, as far as a backend can see.
"""

from __future__ import annotations

from typing import Self

from xenvirtio.testing.devicemodel import FakeDeviceModel
from xenvirtio.testing.evtchn import FakeEventChannels, Machine
from xenvirtio.testing.store import FakeStore, Tree


class FakeXen:
    """A machine: its domains, XenStore, event channels."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.domains: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.machine = Machine()
        self._control = FakeStore(self.tree, 0, self.domains)
        self.device_model = FakeDeviceModel(self)
        self.start_domain(0, "Domain-0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for connection in list(self.tree.connections):
            connection.close()

    def start_domain(self, domid: int, name: str, kind: str = "pv") -> None:
        """Makes a domain with the nodes that libxl gives it."""
        self.domains[domid], self.kinds[domid] = name, kind
        home = f"/local/domain/{domid}"
        self._control.write(f"{home}/name", name)
        self._control.write(f"{home}/domid", str(domid))
        self._control.write(f"{home}/vm", f"/vm/00000000-0000-4000-8000-{domid:012d}")
        self._control.write(f"/libxl/{domid}/type", kind)
        self._control.mkdir(f"{home}/device")
        self._control.set_permissions(f"{home}/device", [f"n{domid}", "r0"])

    def destroy_domain(self, domid: int) -> None:
        """As `xl destroy`: its home is removed, @releaseDomain fires, its ports are closed."""
        del self.domains[domid]
        self._control.remove(f"/local/domain/{domid}")
        self.machine.close_domain(domid)
        self.tree.fire("@releaseDomain")

    def connect(self, domid: int) -> FakeStore:
        return FakeStore(self.tree, domid, self.domains)

    def channels(self, domid: int) -> FakeEventChannels:
        return FakeEventChannels(self.machine, domid)
