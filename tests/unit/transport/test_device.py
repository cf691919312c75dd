"""A device behind its page: what it holds it lets go of, and its configuration is what the driver sees."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import XenError
from xenvirtio.spec import xenbus
from xenvirtio.spec.xenbus import Command, Result
from xenvirtio.testing.backend import InProcessBackend, plug
from xenvirtio.testing.echo import ECHO, EchoDevice
from xenvirtio.testing.evtchn import FakeEventChannels, Machine
from xenvirtio.testing.frontend import Frontend
from xenvirtio.testing.guest import GrantGuest
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.ports import EVENTS_AT_ONCE, Ports
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from xenvirtio.device.base import Notify
    from xenvirtio.queue.split import SplitQueue
    from xenvirtio.transport.xenbus.device import XenbusDevice


class ChangingDevice(EchoDevice):
    """Changes its configuration when it is activated and whenever it is kicked, as net and block do."""

    def change(self, name: bytes) -> None:
        self.space[:] = name
        self.config_changed()

    def activate(self, features: int, queues: Sequence[SplitQueue | None], notify: Notify) -> None:
        super().activate(features, queues, notify)
        self.change(b"activate")

    def kick(self, queue: int) -> None:
        before = self.counters["chains"]
        super().kick(queue)
        if self.counters["chains"] > before:
            self.change(b"kicked%2d" % self.counters["chains"])

    def write_config(self, offset: int, data: bytes) -> bool:
        done = super().write_config(offset, data)
        self.config_changed()
        return done


class Pair:
    """A frontend and its device, whose two queues have a port each."""

    def __init__(self, directory: Path) -> None:
        self.xen, self.guest, self.directory = FakeXen(), GrantGuest(domid=5), directory
        self.xen.start_domain(5, "guest")
        plug(self.xen, DeviceKey(5, 0), ECHO)
        limits = Limits(restart_delay=0.001)
        self.backend = InProcessBackend(self.xen, directory, lambda *_: ChangingDevice(), limits)
        self.front = Frontend(self.xen, self.guest, 5, 0, self.backend.turn)
        self.backend.know(5, self.front)
        self.backend.__enter__()
        self.front.connect()
        self.front.negotiate()
        ports = [self.front.channels.offer(0) for _ in range(2)]
        self.drivers = [self.front.add_queue(i, 16, port=port) for i, port in enumerate(ports)]
        self.ports = ports

    @property
    def device(self) -> XenbusDevice:
        (hosted,) = self.backend.workers[5].worker.hosted
        assert hosted.connection is not None
        return hosted.connection.transport

    @property
    def generation(self) -> int:
        return self.front.load32(xenbus.DEV_CONFIG_GENERATION)

    @property
    def saved_generation(self) -> int:
        return int(json.loads((self.directory / "5-0.state").read_text())["generation"])

    def close(self) -> None:
        self.backend.stop()
        self.front.close()
        self.guest.close()
        self.xen.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


@pytest.mark.parametrize("what", ["port", "queue", "device"])
def test_one_thing_that_cannot_be_closed_keeps_nothing_else(
    pair: Pair, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.front.drive()
    device = pair.device

    def fails() -> None:
        raise XenError("it does not want to")

    if what == "device":
        monkeypatch.setattr(device.device, "deactivate", fails)
    elif what == "port":
        monkeypatch.setattr(device._ports[0], "close", fails)
    else:

        class Stubborn:
            close = staticmethod(fails)

        device._queues[0].close()
        monkeypatch.setitem(device._queues, 0, Stubborn())
    assert len(pair.front.table.mapped) > 1
    ports = list(device._ports.values())
    with pytest.raises(XenError, match="it does not want to"):
        device.stop()
    monkeypatch.undo()
    assert len(pair.front.table.mapped) == 1  # the page
    assert not device.enabled_queues
    assert device._ports == {}
    bound = pair.backend.workers[5].worker.handles.ports._bound
    assert ports[1].local not in bound
    device.stop()  # nothing is closed twice
    ports[0].close()


def test_the_configuration_follows_the_device(pair: Pair) -> None:
    """virtio 1.3 §2.5: also where the device changes it while it carries out a command or serves a kick."""
    front = pair.front
    seen = [pair.generation]

    def changed(config: bytes) -> None:
        assert front.config() == config
        assert pair.generation % 2 == 0
        assert pair.generation > seen[-1]
        assert pair.saved_generation == pair.generation
        seen.append(pair.generation)

    front.drive()
    changed(b"activate")
    pair.drivers[0].add([b"data"], [4])
    pair.drivers[0].kick()
    front.notify(pair.ports[0])
    assert front.wait_used(pair.drivers[0])[0].data == [b"data"]
    changed(b"kicked 1")
    interrupts = front.interrupts
    assert front.write_config(0, b"W") is Result.OK
    changed(b"Wicked 1")
    assert front.interrupts > interrupts
    pair.backend.workers[5].crash()
    front.wait(lambda: pair.backend.started == 2 and pair.generation > seen[-1], "the next worker")
    changed(b"activate")
    assert front.status == 15


def test_a_device_that_is_closed_no_longer_tells_of_its_configuration(pair: Pair) -> None:
    pair.front.drive()
    device = pair.device.device
    assert isinstance(device, ChangingDevice)
    pair.front.disconnect()
    before = pair.front.guest.ram.read(pair.front.page, 4096)
    device.change(b"too late")
    assert pair.front.guest.ram.read(pair.front.page, 4096) == before
    assert not list(pair.directory.glob("*.state"))


def test_events_do_not_keep_an_order_to_stop_waiting() -> None:
    """A guest's worker has a second to go: few events are handled before the loop looks at its orders."""
    machine = Machine()
    guest, own = FakeEventChannels(machine, 5), FakeEventChannels(machine, 0)
    ports = Ports(own, lambda *_: None)
    handled: list[int] = []

    def handler(number: int) -> bool:
        handled.append(number)
        return True

    for number in range(40):
        remote = guest.offer(0)
        ports.bind(5, remote, functools.partial(handler, number))
        guest.notify(remote)
    ports.ready()
    assert len(handled) == EVENTS_AT_ONCE <= 8
    for _ in range(10):
        ports.ready()
    assert set(handled) == set(range(40))
    own.close()
    guest.close()


def test_a_reset_that_waited_for_the_next_worker_comes_before_any_queue(pair: Pair) -> None:
    """XB-60: the driver may have given up waiting, and its rings may be anything by now."""
    pair.front.drive()
    pair.drivers[0].add([b"data"], [4])
    pair.drivers[0].kick()
    pair.backend.workers[5].crash()
    pair.front.write_command(Command.SET_STATUS, value=0)
    pair.front.wait(lambda: pair.backend.started == 2 and pair.front.status == 0, "the reset")
    assert pair.front.answer().result is Result.OK
    assert len(pair.front.table.mapped) == 1  # the page
    device = pair.device.device
    assert isinstance(device, ChangingDevice)
    assert device.counters["chains"] == 0
    assert pair.drivers[0].used() == []


def test_events_are_counted_by_device(pair: Pair) -> None:
    """XB-67: those of a queue's own port among the device's; XB-62: one that was for nothing."""
    front = pair.front
    front.drive()
    (hosted,) = pair.backend.workers[5].worker.hosted
    assert hosted.connection is not None
    before = hosted.connection.report()
    assert before["queue_channels"] == 2
    assert before["events"]["sent"] > 0
    pair.drivers[0].add([b"data"], [4])
    pair.drivers[0].kick()
    front.notify(pair.ports[0])
    front.wait_used(pair.drivers[0])
    front.notify(pair.ports[1])
    ports = pair.backend.workers[5].worker.handles.ports
    front.wait(lambda: ports.events > before["events"]["received"] + 1, "the second event")
    after = hosted.connection.report()
    assert after["events"]["received"] == before["events"]["received"] + 2
    assert after["events"]["spurious"] == before["events"]["spurious"] + 1
    assert after["events"]["sent"] == before["events"]["sent"] + 2  # used, and the configuration's change
