"""What supervisor and worker tell each other: one JSON object a message, on a SOCK_SEQPACKET socket.

Every order carries a ticket; its answer carries the same, so that an answer about a device which has been
discarded meanwhile is told from one about its successor.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: longest message, bytes: well below the default send buffer of a UNIX socket (208 KiB)
MESSAGE_MAX = 128 * 1024


@dataclass(frozen=True)
class Prepare:
    """Open what a device serves."""

    ticket: int
    devid: int
    device_id: int
    host: dict[str, str]


@dataclass(frozen=True)
class Attach:
    """Map the page, bind the port, serve."""

    ticket: int
    devid: int
    access: str
    page: int
    port: int
    resume: bool


@dataclass(frozen=True)
class Detach:
    """Let go of page, rings and port."""

    ticket: int
    devid: int


@dataclass(frozen=True)
class Discard:
    """Close the device."""

    ticket: int
    devid: int


@dataclass(frozen=True)
class Report:
    """Tell how the devices are."""

    ticket: int


@dataclass(frozen=True)
class Stop:
    """Stop all devices in an orderly way, keep their state files, end."""

    ticket: int = 0


@dataclass(frozen=True)
class Done:
    """An order was carried out."""

    ticket: int
    devid: int


@dataclass(frozen=True)
class Failed:
    """An order could not be carried out; nothing of it stays."""

    ticket: int
    devid: int
    words: str


@dataclass(frozen=True)
class Reported:
    """The answer to `Report`: how each device is, by its devid as a string."""

    ticket: int
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    worker: dict[str, int] = field(default_factory=dict)


Order = Prepare | Attach | Detach | Discard | Report | Stop
Answer = Done | Failed | Reported
Message = Order | Answer

KINDS: Mapping[str, type[Message]] = {
    kind.__name__: kind for kind in (Prepare, Attach, Detach, Discard, Report, Stop, Done, Failed, Reported)
}


class MessageError(XenvirtioError):
    """A message that is none."""


def encode(message: Message) -> bytes:
    """Raises MessageError if it is longer than MESSAGE_MAX."""
    data = json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()
    if len(data) > MESSAGE_MAX:
        raise MessageError(f"a message {type(message).__name__} of {len(data)} bytes")
    return data


def decode(data: bytes) -> Message:
    """Raises MessageError."""
    try:
        values = json.loads(data)
        kind = KINDS[values.pop("kind")]
        if set(values) != {field.name for field in fields(kind)}:
            raise MessageError(f"a message {kind.__name__} with fields {sorted(values)}")
        return kind(**values)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise MessageError(f"not a message: {data[:80]!r}") from error


def send(end: socket.socket, message: Message) -> None:
    """Sends at once or raises OSError (BlockingIOError: the other end does not read)."""
    end.send(encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> Message | None:
    """The next message, without waiting (BlockingIOError); None when the other end is gone."""
    try:
        data = end.recv(MESSAGE_MAX, socket.MSG_DONTWAIT)
    except ConnectionError:
        return None
    return decode(data) if data else None
