"""What a NIC offers: feature bits and configuration space (virtio 1.3 §5.1.3, §5.1.4)."""

from __future__ import annotations

from xenvirtio.spec import net as spec

QUEUE_COUNT = 3  # receive, transmit, control
QUEUE_SIZE_MAX = 256  # entries: of 1500-byte buffers enough for several packets of the greatest size
PACKET_MAX = 65550  # bytes without the virtio header: what a driver with TSO must have room for, §5.1.6.3.1
MAC_TABLE_MAX = 64  # addresses of each kind; a longer table lets everything of that kind through

FEATURES = (
    spec.F_CSUM
    | spec.F_GUEST_CSUM
    | spec.F_CTRL_GUEST_OFFLOADS
    | spec.F_MTU
    | spec.F_MAC
    | spec.F_GUEST_TSO4
    | spec.F_GUEST_TSO6
    | spec.F_GUEST_ECN
    | spec.F_HOST_TSO4
    | spec.F_HOST_TSO6
    | spec.F_HOST_ECN
    | spec.F_MRG_RXBUF
    | spec.F_STATUS
    | spec.F_CTRL_VQ
    | spec.F_CTRL_RX
    | spec.F_CTRL_RX_EXTRA
    | spec.F_CTRL_VLAN
    | spec.F_CTRL_MAC_ADDR
)


def config(mac: bytes, link_up: bool, mtu: int) -> bytes:
    """The configuration space (virtio 1.3 §5.1.4); one pair of queues."""
    return spec.CONFIG.pack(mac, spec.STATUS_LINK_UP if link_up else 0, 1, mtu)
