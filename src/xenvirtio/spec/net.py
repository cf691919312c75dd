"""virtio-net: constants and wire layouts (virtio 1.3 §5.1; Linux uapi linux/virtio_net.h, linux/if_tun.h)."""

from __future__ import annotations

from struct import Struct

DEVICE_ID = 1

# --- virtqueues with one pair, §5.1.2 ---
QUEUE_RX = 0
QUEUE_TX = 1
QUEUE_CTRL = 2

# --- feature bits, §5.1.3 ---
F_CSUM = 1 << 0
F_GUEST_CSUM = 1 << 1
F_CTRL_GUEST_OFFLOADS = 1 << 2
F_MTU = 1 << 3
F_MAC = 1 << 5
F_GUEST_TSO4 = 1 << 7
F_GUEST_TSO6 = 1 << 8
F_GUEST_ECN = 1 << 9
F_HOST_TSO4 = 1 << 11
F_HOST_TSO6 = 1 << 12
F_HOST_ECN = 1 << 13
F_MRG_RXBUF = 1 << 15
F_STATUS = 1 << 16
F_CTRL_VQ = 1 << 17
F_CTRL_RX = 1 << 18
F_CTRL_VLAN = 1 << 19
F_CTRL_RX_EXTRA = 1 << 20
F_CTRL_MAC_ADDR = 1 << 23

#: the features that F_CTRL_GUEST_OFFLOADS switches while the device runs, §5.1.6.5.6
GUEST_OFFLOADS = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN

# --- configuration space, §5.1.4: mac, status, max_virtqueue_pairs, mtu ---
CONFIG = Struct("<6sHHH")
STATUS_LINK_UP = 1

# --- packet header, §5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers ---
HEADER = Struct("<BBHHHHH")
HEADER_SIZE = 12
HEADER_NUM_BUFFERS = 10  # offset of num_buffers
HDR_F_NEEDS_CSUM = 1
HDR_F_DATA_VALID = 2
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_ECN = 0x80

# --- control queue, §5.1.6.5: u8 class, u8 command, data, u8 ack ---
CTRL_HEADER_SIZE = 2
CTRL_OK = 0
CTRL_ERR = 1
CTRL_RX = 0
CTRL_RX_PROMISC = 0
CTRL_RX_ALLMULTI = 1
CTRL_RX_ALLUNI = 2
CTRL_RX_NOMULTI = 3
CTRL_RX_NOUNI = 4
CTRL_RX_NOBCAST = 5
CTRL_MAC = 1
CTRL_MAC_TABLE_SET = 0
CTRL_MAC_ADDR_SET = 1
CTRL_VLAN = 2
CTRL_VLAN_ADD = 0
CTRL_VLAN_DEL = 1
CTRL_GUEST_OFFLOADS = 5
CTRL_GUEST_OFFLOADS_SET = 0

# --- Ethernet ---
ETH_ALEN = 6
ETH_HLEN = 14
ETH_P_8021Q = 0x8100
VLAN_COUNT = 4096
MTU_MIN = 68  # RFC 791; also the least that a virtio-net device may state, §5.1.4.1
MTU_MAX = 65535

# --- tap, linux/if_tun.h, linux/sockios.h ---
IFNAMSIZ = 16  # with the closing zero
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETCARRIER = 0x400454E2
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCSIFHWADDR = 0x8924
SIOCBRADDIF = 0x89A2
