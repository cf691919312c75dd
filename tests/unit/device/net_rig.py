"""A NIC with a driver, and a pair of sockets in the tap's place."""

from __future__ import annotations

import os
import socket

from tests.unit.device.device_rig import Rig
from xenvirtio.device.net.config import NetConfig
from xenvirtio.device.net.state import NetDevice
from xenvirtio.spec import net as spec
from xenvirtio.testing.guest import KINDS

MAC = bytes.fromhex("00163e010203")
OTHER = bytes.fromhex("00163e0a0b0c")
BROADCAST = b"\xff" * 6
RX, TX, CTRL = spec.QUEUE_RX, spec.QUEUE_TX, spec.QUEUE_CTRL


class SocketLink:
    """One end is the device's link, the other is the host: one packet a message, virtio header first."""

    mtu = 1500

    def __init__(self) -> None:
        self.ours, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.ours, self.host):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.fd = self.ours.fileno()
        self.offloads: list[int] = []
        self.carrier = True

    def set_offloads(self, guest_features: int) -> None:
        self.offloads.append(guest_features)

    def set_carrier(self, up: bool) -> None:
        self.carrier = up

    def close(self) -> None:
        self.ours.close()
        self.host.close()


class Nic(Rig):
    def __init__(self, kind: str = "regions", size: int = 64) -> None:
        self.link = SocketLink()
        super().__init__(NetDevice(NetConfig(MAC, "", "vif1.0"), self.link), KINDS[kind](), size)

    def arrive(self, frame: bytes, header: bytes = bytes(12)) -> None:
        """A packet comes from the host."""
        self.link.host.send(header + frame)

    def offer(self, *rooms: int) -> None:
        """The driver adds receive buffers of these sizes and lets the device look."""
        for room in rooms:
            self.drivers[RX].add([], [room])
        if self.drivers[RX].kick():
            self.device.kick(RX)

    def received(self) -> list[bytes]:
        """What the guest got since it last looked, buffer by buffer: only the bytes said to be written."""
        self.poll()
        return [b"".join(used.data)[: used.length] for used in self.drivers[RX].used()]

    def sent(self) -> list[bytes]:
        """What reached the host."""
        result = []
        while True:
            try:
                result.append(self.link.host.recv(1 << 17))
            except BlockingIOError:
                return result


def frame(length: int, target: bytes = MAC) -> bytes:
    return target + OTHER + b"\x08\x00" + os.urandom(length - 14)


def header(
    flags: int = 0, gso: int = 0, hdr_len: int = 0, gso_size: int = 0, start: int = 0, offset: int = 0
) -> bytes:
    return spec.HEADER.pack(flags, gso, hdr_len, gso_size, start, offset, 0)
