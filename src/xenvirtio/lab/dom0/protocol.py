r"""How the lab and the agent in dom0 talk: frames over a virtio-serial port.

A frame is one type byte and a body, with the delimiter escaped out of both (as SLIP does, RFC 1055), so
that a peer which starts in the middle of a dead session's bytes finds its feet at the next delimiter:

    frame  = escaped(type body) 0xC0
    0xC0 → 0xDB 0xDC        0xDB → 0xDB 0xDD

One session a port at a time:

    host                                agent
    HELLO {"nonce", "version"}     →                      ends whatever ran on this port before
                                   ←    HELLO {"nonce", "version"}
    EXEC  {"argv", "env", "cwd", "tty"} →
    STDIN bytes (empty: end), SIGNAL {"number"}, RESIZE {"rows", "columns"} →
                                   ←    STDOUT bytes, STDERR bytes
                                   ←    EXIT {"status"} or {"signal"} or {"error"}

Closing the port ends the session, and with it the command's process group.
This file runs on both sides: on the host's Python and on dom0's, so it imports the standard library only.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Any

VERSION = 1
#: how many ports the lab's machine has: that many commands can run at once
PORTS = 16
#: name of a port as dom0 sees it below /dev/virtio-ports
PORT_NAME = "xenvirtio.agent.{}"
#: bytes of a data frame's body before escaping; one virtio-serial write is at most 32 KiB (Linux
#: virtio_console)
CHUNK = 16384
#: bytes of a frame that either side accepts; anything longer is not from our peer
FRAME_MAX = 4 << 20

_END = b"\xc0"
_ESC = b"\xdb"


class Kind(IntEnum):
    """The first byte of a frame."""

    HELLO = 1
    EXEC = 2
    STDIN = 3
    SIGNAL = 4
    RESIZE = 5
    STDOUT = 6
    STDERR = 7
    EXIT = 8


class ProtocolError(ValueError):
    """The peer sent what no peer of ours sends."""


def encode(kind: Kind, body: bytes = b"") -> bytes:
    """One frame on the wire."""
    raw = bytes([kind]) + body
    return raw.replace(_ESC, b"\xdb\xdd").replace(_END, b"\xdb\xdc") + _END


def encode_json(kind: Kind, value: dict[str, Any]) -> bytes:
    """One frame whose body is a JSON object."""
    return encode(kind, json.dumps(value, separators=(",", ":")).encode())


def decode_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a frame's body; raises ProtocolError."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {body[:80]!r}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"not a JSON object: {body[:80]!r}")
    return value


class Decoder:
    """Turns bytes, cut anywhere, into frames; drops damaged ones, as after a peer that died in one."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, bytes]]:
        """Takes what was received; returns the frames that it completes."""
        self._rest += data
        if _END not in data:
            if len(self._rest) > FRAME_MAX:
                self._rest.clear()
            return []
        *complete, rest = bytes(self._rest).split(_END)
        self._rest = bytearray(rest)
        frames = []
        for escaped in complete:
            raw = escaped.replace(b"\xdb\xdc", _END).replace(b"\xdb\xdd", _ESC)
            if not raw:
                continue
            try:
                frames.append((Kind(raw[0]), raw[1:]))
            except ValueError:
                continue
        return frames
