"""What supervisor and worker tell each other: one JSON object a message, on a SOCK_SEQPACKET socket.

Every order carries a ticket; its answer carries the same, so that an answer about a device which has been
discarded meanwhile is told from one about its successor.
"""

from __future__ import annotations

import json
import math
import socket
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
class Update:
    """Take these settings, while serving."""

    ticket: int
    devid: int
    host: dict[str, str]


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
    """An order could not be carried out; nothing of it stays. `for_good`: nor could it be later."""

    ticket: int
    devid: int
    words: str
    for_good: bool


@dataclass(frozen=True)
class Reported:
    """The answer to `Report`: how each device is, by its devid as a string."""

    ticket: int
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    worker: dict[str, int] = field(default_factory=dict)


Order = Prepare | Attach | Detach | Update | Discard | Report | Stop
Answer = Done | Failed | Reported
Message = Order | Answer

KINDS: Mapping[str, type[Message]] = {
    kind.__name__: kind
    for kind in (Prepare, Attach, Detach, Update, Discard, Report, Stop, Done, Failed, Reported)
}


def _is_number(value: object) -> bool:
    return type(value) is int  # a bool is none


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_text(value: object) -> bool:
    if isinstance(value, str):
        value.encode()  # JSON can hold what no text can: half a surrogate pair
        return True
    return False


def _is_table(value: object, of: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and of(each) for key, each in value.items())


def _is_seconds(value: object) -> bool:
    return isinstance(value, float) and (value == 0 or 0.001 <= value < math.inf)


def _are_counts(value: object) -> bool:
    return _is_table(value, _is_count)


def _is_lately(value: object) -> bool:
    if not isinstance(value, dict) or "seconds" not in value:
        return False
    return all(_is_seconds(each) if name == "seconds" else _are_counts(each) for name, each in value.items())


#: parts of a device's report (worker/hosted.py, connection.py, readings.py): others count with them
PARTS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("device_id", "status", "features", "queue_channels"), _is_count),
    **dict.fromkeys(("kicks", "ignored_kicks", "violations"), _is_count),
    "queues": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "memory_access": _is_text,
    **dict.fromkeys(("counters", "memory", "events"), _are_counts),
    **dict.fromkeys(("at", "age"), _is_seconds),
    "recent": _is_lately,
}


def _is_report(value: object) -> bool:
    return isinstance(value, dict) and all(name in PARTS and PARTS[name](value[name]) for name in value)


#: what a field of a type may hold; the keys are the annotations above
SHAPES: Mapping[str, Callable[[object], bool]] = {
    "int": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "str": _is_text,
    "dict[str, str]": lambda value: _is_table(value, _is_text),
    "dict[str, int]": lambda value: _is_table(value, _is_number),
    "dict[str, dict[str, Any]]": lambda value: _is_table(value, _is_report),
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
    """Raises MessageError: the other end may be a process that a guest has taken over."""
    try:
        values = json.loads(data)
        kind = KINDS[values.pop("kind")]
        shapes = {field.name: SHAPES[str(field.type)] for field in fields(kind)}
        if set(values) != set(shapes) or not all(shapes[name](value) for name, value in values.items()):
            raise MessageError(f"not a message {kind.__name__}: {data[:80]!r}")
        return kind(**values)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
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
