"""A guest's side of virtio over XenBus, as docs/virtio-xenbus.md has it, or as none should be.

    frontend = Frontend(xen, guest, domid=5, devid=0, turn=backend.turn)
    frontend.connect()
    features = frontend.negotiate(wanted)
    driver = frontend.add_queue(0, size=64)
    frontend.drive()                       # DRIVER_OK
    driver.add([b"request"], [512])
    frontend.kick(driver)
    used = frontend.wait_used(driver)

Every step is also there by itself (`offer`, `command`, `write_command`), for those who want to do it wrong.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit
from xenvirtio.memory.local import PAGE_SIZE
from xenvirtio.spec import virtio, xenbus
from xenvirtio.spec.xenbus import Command, Result
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.grants import FakeGrantTable
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.states import XenbusState, parse_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.testing.driver import Used
    from xenvirtio.testing.guest import ForeignGuest, GrantGuest
    from xenvirtio.testing.xen import FakeXen

#: seconds that anything may take here
LIMIT = 10.0


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    result: Result
    value: int


class Frontend:
    """One device of a guest. `turn` lets the backend work once; it is called while something is waited
    for."""

    def __init__(
        self,
        xen: FakeXen,
        guest: GrantGuest | ForeignGuest,
        domid: int,
        devid: int,
        turn: Callable[[], None],
        access: str = xenbus.MemoryAccess.GRANT,
    ) -> None:
        self.guest, self.turn, self.access = guest, turn, access
        self.key = DeviceKey(domid, devid)
        self.store = xen.connect(domid)
        self.channels = xen.channels(domid)
        self.table: FakeGrantTable = getattr(guest, "table", None) or FakeGrantTable(guest.ram, domid)
        self.page = guest.ram.place(PAGE_SIZE, PAGE_SIZE)
        self.page_ref = 0
        self.port = 0
        self.sequence = 0
        self.interrupts = 0
        self.features = 0

    # --- XenStore ---

    @property
    def backend_path(self) -> str:
        return self.store.read(f"{self.key.frontend}/backend") or ""

    @property
    def backend_state(self) -> XenbusState:
        return parse_state(self.store.read(f"{self.backend_path}/state"))

    def set_state(self, state: XenbusState) -> None:
        self.store.write(f"{self.key.frontend}/state", str(state.value))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Lets the backend work until `condition` holds. Raises TimeLimit."""
        end = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > end:
                raise TimeLimit(f"{self.key}: {what} did not come (backend {self.backend_state.label})")
            self.turn()
            self.listen()

    def wait_backend(self, state: XenbusState) -> None:
        self.wait(lambda: self.backend_state is state, f"backend state {state.label}")

    def offer(self, **nodes: str) -> None:
        """Grants the page, makes a port, writes the nodes (`nodes` replaces values; "" leaves one out)."""
        self.guest.ram.write(self.page, bytes(PAGE_SIZE))
        self.sequence = 0
        self.page_ref = self.table.grant([self.page // PAGE_SIZE])
        self.port = self.channels.offer(0)
        values = {
            "version": str(xenbus.VERSION),
            "memory-access": self.access,
            "device-page": str(self.page_ref),
            "event-channel": str(self.port),
        } | {name.replace("_", "-"): value for name, value in nodes.items()}
        for name, value in values.items():
            if value:
                self.store.write(f"{self.key.frontend}/{name}", value)

    def connect(self) -> None:
        """From Initialising to Connected, on both sides."""
        self.wait_backend(XenbusState.INIT_WAIT)
        self.offer()
        self.set_state(XenbusState.INITIALISED)
        self.wait_backend(XenbusState.CONNECTED)
        assert self.load32(xenbus.DEV_MAGIC) == xenbus.MAGIC
        assert self.load32(xenbus.DEV_VERSION) == xenbus.VERSION
        self.set_state(XenbusState.CONNECTED)

    def disconnect(self) -> None:
        """Closes as Linux does; takes page and port back, which the backend must have let go of.

        Where the toolstack has written Closing, only the backend's Closed tells that it has.
        """
        by_toolstack = self.backend_state is XenbusState.CLOSING
        self.set_state(XenbusState.CLOSING)
        if not by_toolstack:
            self.wait_backend(XenbusState.CLOSING)
            self.take_back()
        self.set_state(XenbusState.CLOSED)
        self.wait_backend(XenbusState.CLOSED)
        if by_toolstack:
            self.take_back()

    def take_back(self) -> None:
        """AssertionError if the backend still has the page mapped."""
        self.table.revoke(self.page_ref)
        self.channels.unbind(self.port)

    # --- the device page ---

    def load32(self, offset: int) -> int:
        return int(struct.unpack("<I", self.guest.ram.read(self.page + offset, 4))[0])

    def load64(self, offset: int) -> int:
        return int(struct.unpack("<Q", self.guest.ram.read(self.page + offset, 8))[0])

    def poke(self, offset: int, layout: str, *values: int) -> None:
        self.guest.ram.write(self.page + offset, struct.pack(layout, *values))

    @property
    def status(self) -> int:
        return self.load32(xenbus.DEV_STATUS)

    def config(self) -> bytes:
        return self.guest.ram.read(self.page + xenbus.DEV_CONFIG, self.load32(xenbus.DEV_CONFIG_SIZE))

    def write_command(
        self,
        command: int,
        *,
        queue: int = 0,
        value: int = 0,
        desc: int = 0,
        driver: int = 0,
        device: int = 0,
        port: int = 0,
        offset: int = 0,
        features: int = 0,
        data: bytes = b"",
    ) -> None:
        """Writes the fields, then the next sequence number, then notifies."""
        low, high = features & 0xFFFF_FFFF_FFFF_FFFF, features >> 64
        fields = struct.pack(
            "<IIIQQQIIQQ", command, queue, value, desc, driver, device, port, offset, low, high
        )
        self.guest.ram.write(self.page + xenbus.DRV_CMD, fields)
        self.guest.ram.write(self.page + xenbus.DRV_DATA, data)
        self.sequence = (self.sequence + 1) & 0xFFFF_FFFF
        self.poke(xenbus.DRV_CMD_SEQ, "<I", self.sequence)
        self.notify()

    def command(self, command: int, **fields: int) -> Answer:
        """`write_command`, and waits for the answer."""
        self.write_command(command, **fields)  # type: ignore[arg-type]
        return self.answer()

    def answer(self) -> Answer:
        """Waits for the answer to the last command."""
        self.wait(lambda: self.load32(xenbus.DEV_ACK_SEQ) == self.sequence, "the answer to a command")
        return Answer(Result(self.load32(xenbus.DEV_ACK_RESULT)), self.load64(xenbus.DEV_ACK_VALUE))

    def set_status(self, status: int, features: int = 0) -> Result:
        return self.command(Command.SET_STATUS, value=status, features=features).result

    def write_config(self, offset: int, data: bytes) -> Result:
        self.write_command(Command.CONFIG_WRITE, value=len(data), offset=offset, data=data)
        return self.answer().result

    def negotiate(self, wanted: int = 0) -> int:
        """From reset to FEATURES_OK with VERSION_1, ACCESS_PLATFORM and what of `wanted` is offered."""
        self.set_status(0)
        known = virtio.STATUS_ACKNOWLEDGE
        self.set_status(known)
        known |= virtio.STATUS_DRIVER
        self.set_status(known)
        offered = self.load64(xenbus.DEV_FEATURES) | self.load64(xenbus.DEV_FEATURES + 8) << 64
        self.features = offered & (wanted | virtio.F_VERSION_1 | virtio.F_ACCESS_PLATFORM)
        known |= virtio.STATUS_FEATURES_OK
        self.set_status(known, self.features)
        assert self.status & virtio.STATUS_FEATURES_OK, f"features {self.features:#x} were refused"
        return self.features

    def add_queue(self, index: int, size: int, port: int = 0) -> Driver:
        """Sets a queue up; returns who fills it."""
        driver = Driver(self.guest, size, self.features, index)
        result = self.enable_queue(driver, port=port)
        assert result is Result.OK, result
        return driver

    def enable_queue(self, driver: Driver, /, **fields: int) -> Result:
        """QUEUE_ENABLE as the driver's rings are; `fields` replaces values."""
        config = driver.config
        values = {
            "queue": config.index,
            "value": config.size,
            "desc": config.desc,
            "driver": config.driver,
            "device": config.device,
        } | fields
        return self.command(Command.QUEUE_ENABLE, **values).result

    def drive(self) -> None:
        """DRIVER_OK."""
        result = self.set_status(self.status | virtio.STATUS_DRIVER_OK)
        assert result is Result.OK, result

    # --- events ---

    def notify(self, port: int | None = None) -> None:
        self.channels.notify(self.port if port is None else port)

    def listen(self) -> None:
        """Takes the events that have come, as an interrupt handler does."""
        while (port := self.channels.pending()) is not None:
            self.interrupts += 1
            self.channels.unmask(port)

    def kick(self, driver: Driver) -> None:
        """Shows the device what was added, and notifies if it asked for that."""
        if driver.kick():
            self.notify()

    def wait_used(self, driver: Driver, count: int = 1) -> list[Used]:
        """The next `count` chains that come back."""
        found: list[Used] = []

        def enough() -> bool:
            found.extend(driver.used())
            return len(found) >= count

        self.wait(enough, f"{count} used chains")
        return found

    def close(self) -> None:
        self.channels.close()
        self.store.close()
