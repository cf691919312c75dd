"""The states of a XenBus device (xen/include/public/io/xenbus.h, enum xenbus_state)."""

from __future__ import annotations

from enum import IntEnum


class XenbusState(IntEnum):
    """What a `state` node holds; UNKNOWN also stands for a missing node and for nonsense in it."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8

    @property
    def label(self) -> str:
        """The name as Xen spells it: InitWait, Connected, …"""
        return "".join(part.capitalize() for part in self.name.split("_"))


def parse_state(text: str | None) -> XenbusState:
    """The state in a node that a guest may have written: anything else than one digit 0-8 is UNKNOWN."""
    if text is not None and len(text) == 1 and text in "012345678":
        return XenbusState(int(text))
    return XenbusState.UNKNOWN
