"""The nodes that the toolstack writes, on a XenStore that minds permissions; what `list` makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import XenError
from xenvirtio.testing.xen import FakeXen
from xenvirtio.toolstack.configuration.configuration import GuestConfig
from xenvirtio.toolstack.configuration.grammar import Source, parse
from xenvirtio.toolstack.configuration.guest import guest_from
from xenvirtio.toolstack.listing import rows
from xenvirtio.toolstack.nodes import plug, unplug_all

if TYPE_CHECKING:
    from collections.abc import Iterator

B = "/local/domain/0/backend/virtio/5"
F = "/local/domain/5/device/virtio"
TEXT = "name='web'; disk=['/srv/a.img,,vda']; vif=['model=virtio,mac=0:16:3e:0:0:1']"


@pytest.fixture
def xen() -> Iterator[FakeXen]:
    with FakeXen() as xen:
        xen.start_domain(5, "web", "pvh")
        devices = guest_from(GuestConfig("g", parse(Source("g", TEXT)))).devices

        def plug_all(view: object) -> None:
            for device in devices:
                plug(view, 5, device)  # type: ignore[arg-type]

        xen.connect(0).transact(plug_all)
        yield xen


def test_the_guest_can_read_its_backend_and_write_its_frontend(xen: FakeXen) -> None:
    guest = xen.connect(5)
    assert guest.read("device/virtio/0/backend") == f"{B}/0"
    assert guest.read(f"{B}/0/state") == "1"
    assert guest.read(f"{B}/0/transport") == "xenbus"
    guest.write("device/virtio/0/state", "3")
    guest.write("device/virtio/0/device-page", "8")


def test_the_guest_can_neither_change_its_backend_nor_see_what_is_behind_it(xen: FakeXen) -> None:
    guest = xen.connect(5)
    with pytest.raises(XenError):
        guest.write(f"{B}/0/state", "4")
    with pytest.raises(XenError):
        guest.write(f"{B}/0/new", "x")
    with pytest.raises(XenError):
        guest.read(f"{B}/0/host/path")
    with pytest.raises(XenError):
        guest.names(f"{B}/0/host")


def test_another_guest_sees_nothing(xen: FakeXen) -> None:
    xen.start_domain(6, "other")
    other = xen.connect(6)
    for path in (f"{B}/0/state", f"{B}/0/host/path", f"{F}/0/state"):
        with pytest.raises(XenError):
            other.read(path)


def test_nothing_is_left_after_unplugging(xen: FakeXen) -> None:
    store = xen.connect(0)
    xen.destroy_domain(5)
    store.transact(lambda view: unplug_all(view, 5))
    assert store.names(B) is None
    store.transact(lambda view: unplug_all(view, 5))


def test_list_shows_what_xenstore_and_the_daemon_tell(xen: FakeXen) -> None:
    store = xen.connect(0)
    for path in (f"{B}/0/state", f"{F}/0/state"):
        store.write(path, "4")
    store.write(f"{F}/0/memory-access", "grant")
    store.write(f"{B}/256/error", "no tap")
    report = {
        "devid": 0,
        "memory_access": "grant",
        "counters": {"reads": 3},
        "memory": {"grants_copied": 7},
        "kicks": 2,
    }
    disk, nic = rows(store, {(5, 0): report})
    assert disk.as_json() == {
        "guest": "web",
        "domid": 5,
        "type": "pvh",
        "device": "vda",
        "kind": "disk",
        "transport": "xenbus",
        "memory_access": "grant",
        "state": "connected",
        "error": None,
        "backing": "/srv/a.img",
        "totals": {"seconds": None, "in_bytes": 0, "in_requests": 3, "out_bytes": 0, "out_requests": 0},
        "rates": None,
        "per_request": None,
        "map_hit_rate": None,
        "counters": {"reads": 3},
        "memory": {"grants_copied": 7},
        "backend": {"kicks": 2},
    }
    assert (nic.device, nic.kind, nic.backing) == ("eth0", "nic", "vio5.0 in xenbr0")
    assert (nic.memory_access, nic.error, nic.counters) == (None, "no tap", {})
    assert nic.state == "guest Initialising (1), backend Initialising (1)"


def test_list_is_empty_where_no_guest_has_virtio_devices() -> None:
    with FakeXen() as xen:
        assert rows(xen.connect(0), {}) == []


def test_what_a_guest_writes_is_shown_without_control_characters(xen: FakeXen) -> None:
    store = xen.connect(0)
    xen.connect(5).write(f"{F}/0/memory-access", "\x1b[2Jgrant")
    store.write(f"{B}/0/error", "odd\x07 ring")
    store.write("/local/domain/5/name", "we\x1bb")
    disk, _ = rows(store, {(5, 256): {"memory_access": "foreign"}})
    assert (disk.memory_access, disk.error, disk.guest) == ("?", "odd? ring", "we?b")
    assert rows(store, {(5, 256): {"memory_access": "foreign"}})[1].memory_access == "foreign"
