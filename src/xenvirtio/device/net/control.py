"""Commands on the control queue (virtio 1.3 §5.1.6.5): u8 class, u8 command, data; answered by one byte.

Rare and small, so plain Python on a copy of the command. A command that is malformed, unknown or not
negotiated gets CTRL_ERR and changes nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from xenvirtio.errors import GuestViolation
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.device.net.requests import ReceiveFilter
    from xenvirtio.queue.batch import Batch

COMMAND_MAX = 64 << 10  # bytes; more than any table a driver has reason to send


class Control:
    """Carries out commands for a driver that negotiated `features`."""

    def __init__(
        self,
        features: int,
        receive_filter: ReceiveFilter,
        set_mac: Callable[[bytes], None],
        set_offloads: Callable[[int], None],
    ) -> None:
        self._features = features
        self._filter = receive_filter
        self._set_mac = set_mac
        self._set_offloads = set_offloads
        self.refused = 0

    def run(self, batch: Batch) -> None:
        """Answer every chain of the batch. Raises GuestViolation where there is no room for an answer."""
        for i in range(batch.count):
            if not batch.write_bytes[i] and not batch.fault[i]:
                raise GuestViolation("virtio 1.3 §5.1.6.5: a control command has room for its ack byte")
            done = not batch.fault[i] and batch.read_bytes[i] <= COMMAND_MAX
            done = done and self.execute(b"".join(batch.readable(i)))
            self.refused += not done
            batch.written[i] = 0
            for part in batch.writable(i) if not batch.fault[i] else ():
                if len(part):
                    part[0] = spec.CTRL_OK if done else spec.CTRL_ERR
                    batch.written[i] = 1
                    break

    def execute(self, command: bytes) -> bool:
        """One command, its class first; whether it was carried out."""
        if len(command) < spec.CTRL_HEADER_SIZE:
            return False
        kind, number, data = command[0], command[1], command[2:]
        if kind == spec.CTRL_RX:
            return self._receive_mode(number, data)
        if kind == spec.CTRL_MAC:
            return self._mac(number, data)
        if kind == spec.CTRL_VLAN:
            return self._vlan(number, data)
        if kind == spec.CTRL_GUEST_OFFLOADS:
            return self._offloads(number, data)
        return False

    def _receive_mode(self, number: int, data: bytes) -> bool:
        needed = spec.F_CTRL_RX if number <= spec.CTRL_RX_ALLMULTI else spec.F_CTRL_RX_EXTRA
        if not self._features & needed or len(data) != 1 or data[0] > 1:
            return False
        return self._filter.set_mode(number, data[0] == 1)

    def _mac(self, number: int, data: bytes) -> bool:
        if number == spec.CTRL_MAC_ADDR_SET:
            if not self._features & spec.F_CTRL_MAC_ADDR or len(data) != spec.ETH_ALEN or data[0] & 1:
                return False
            self._set_mac(data)
            return True
        if number != spec.CTRL_MAC_TABLE_SET or not self._features & spec.F_CTRL_RX:
            return False
        tables = []
        for _ in ("unicast", "multicast"):
            if len(data) < 4:
                return False
            end = 4 + struct.unpack_from("<I", data)[0] * spec.ETH_ALEN
            if end > len(data):
                return False
            tables.append([data[at : at + spec.ETH_ALEN] for at in range(4, end, spec.ETH_ALEN)])
            data = data[end:]
        if data:
            return False
        self._filter.set_tables(*tables)
        return True

    def _vlan(self, number: int, data: bytes) -> bool:
        if not self._features & spec.F_CTRL_VLAN or len(data) != 2:
            return False
        if number not in (spec.CTRL_VLAN_ADD, spec.CTRL_VLAN_DEL):
            return False
        return self._filter.set_vlan(struct.unpack("<H", data)[0], number == spec.CTRL_VLAN_ADD)

    def _offloads(self, number: int, data: bytes) -> bool:
        if (
            not self._features & spec.F_CTRL_GUEST_OFFLOADS
            or number != spec.CTRL_GUEST_OFFLOADS_SET
            or len(data) != 8
        ):
            return False
        wanted = int(struct.unpack("<Q", data)[0])
        if wanted & ~(self._features & spec.GUEST_OFFLOADS):
            return False
        self._set_offloads(wanted)
        return True
