"""The tap that carries a NIC's packets, in its bridge (Linux Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import MissingDependency, UsageError
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from xenvirtio.device.net.config import NetConfig

#: what taps of guests are called by on their bridge; high, so that the bridge never takes it as its own
_HOST_MAC = b"\xfe\xff\xff\xff\xff\xff"
_ARPHRD_ETHER = 1
_IFF_UP = 1
_MTU_DEFAULT = 1500

_TUN_FLAGS = {
    spec.F_GUEST_CSUM: spec.TUN_F_CSUM,
    spec.F_GUEST_TSO4: spec.TUN_F_TSO4,
    spec.F_GUEST_TSO6: spec.TUN_F_TSO6,
    spec.F_GUEST_ECN: spec.TUN_F_TSO_ECN,
}


class Tap:
    """A tap that lives as long as this object. `fd` gives and takes one packet a call, behind a virtio
    header of 12 bytes, and never waits; `mtu` is in bytes."""

    def __init__(self, config: NetConfig) -> None:
        """Make the tap, join the bridge, bring it up. Raises UsageError, MissingDependency."""
        self.name = config.vifname
        with contextlib.ExitStack() as stack:
            control = stack.enter_context(
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            )
            if config.bridge:
                _check_bridge(config.bridge)
            self.mtu = config.mtu or (_mtu(control, config.bridge) if config.bridge else _MTU_DEFAULT)
            self.fd = _open()
            stack.callback(os.close, self.fd)
            self._create()
            self._set_up(control, config.bridge)
            control.close()
            self._stack = stack.pop_all()

    def _create(self) -> None:
        flags = spec.IFF_TAP | spec.IFF_NO_PI | spec.IFF_VNET_HDR | spec.IFF_TUN_EXCL
        try:
            ioctl(self.fd, spec.TUNSETIFF, _request(self.name, struct.pack("=H", flags)))
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL) and _exists(self.name):
                raise UsageError(
                    f"network interface {self.name} exists already",
                    f"choose another vifname, or remove it: ip link delete {self.name}",
                ) from error
            raise UsageError(
                f"tap {self.name} cannot be made: {error.strerror}", "making taps takes CAP_NET_ADMIN"
            ) from error
        ioctl(self.fd, spec.TUNSETVNETHDRSZ, struct.pack("@i", spec.HEADER_SIZE))
        self.set_offloads(0)

    def _set_up(self, control: socket.socket, bridge: str) -> None:
        try:
            address = struct.pack("=H", _ARPHRD_ETHER) + _HOST_MAC
            ioctl(control, spec.SIOCSIFHWADDR, _request(self.name, address))
            ioctl(control, spec.SIOCSIFMTU, _request(self.name, struct.pack("@i", self.mtu)))
            if bridge:
                # The host itself does not speak on a guest's port. Absent where the kernel has no IPv6.
                with contextlib.suppress(OSError):
                    Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("1")
                index = struct.pack("@i", socket.if_nametoindex(self.name))
                ioctl(control, spec.SIOCBRADDIF, _request(bridge, index))
            up = (
                struct.unpack_from("=H", ioctl(control, spec.SIOCGIFFLAGS, _request(self.name)), 16)[0]
                | _IFF_UP
            )
            ioctl(control, spec.SIOCSIFFLAGS, _request(self.name, struct.pack("=H", up)))
        except OSError as error:
            place = f" in bridge {bridge}" if bridge else ""
            raise UsageError(
                f"tap {self.name} cannot be set up{place} with an MTU of {self.mtu} bytes: {error.strerror}",
                f"check the MTU, and that {bridge} is a Linux bridge: ip -d link show {bridge}"
                if bridge
                else "check the MTU",
            ) from error

    def set_offloads(self, guest_features: int) -> None:
        """Tell the host what the guest takes: F_GUEST_* bits. Packets that need more are finished before.

        A bit without those that it stands on (virtio 1.3 §5.1.3.1) counts for nothing. Does nothing if the
        tap was removed from outside: what reads it next sees that."""
        if not guest_features & spec.F_GUEST_CSUM:
            guest_features = 0
        if not guest_features & (spec.F_GUEST_TSO4 | spec.F_GUEST_TSO6):
            guest_features &= ~spec.F_GUEST_ECN
        flags = sum(flag for bit, flag in _TUN_FLAGS.items() if guest_features & bit)
        try:
            ioctl(self.fd, spec.TUNSETOFFLOAD, flags)
        except OSError as error:
            if error.errno != errno.EBADFD:
                raise

    def set_carrier(self, up: bool) -> None:
        """Plug the cable in, as the host and its bridge see it, or pull it.

        Does nothing where the tap was removed from outside, and on kernels before 5.0."""
        try:
            ioctl(self.fd, spec.TUNSETCARRIER, struct.pack("@i", up))
        except OSError as error:
            if error.errno not in (errno.EBADFD, errno.EINVAL):
                raise

    def close(self) -> None:
        """Remove the tap. May be called twice."""
        self._stack.close()


def bridges() -> list[str]:
    """The names of the bridges in this network namespace."""
    from pyroute2 import IPRoute  # heavy, and only a mistaken user comes here

    with IPRoute() as route:
        return sorted(str(link.get("ifname")) for link in route.get_links(kind="bridge"))


def _check_bridge(bridge: str) -> None:
    if not _exists(bridge):
        names = bridges()
        there = f"there are: {', '.join(names)}" if names else "there is none at all"
        raise UsageError(
            f"no bridge {bridge} on this host; {there}",
            f"make it: ip link add {bridge} type bridge && ip link set {bridge} up",
        )


def _exists(interface: str) -> bool:
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(interface) > 0
    return False


def _mtu(control: socket.socket, interface: str) -> int:
    return int(struct.unpack_from("@i", ioctl(control, spec.SIOCGIFMTU, _request(interface)), 16)[0])


def _request(interface: str, value: bytes = b"") -> bytes:
    """A struct ifreq."""
    return interface.encode().ljust(spec.IFNAMSIZ, b"\0") + value.ljust(24, b"\0")


def _open() -> int:
    try:
        return os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise MissingDependency(
            f"/dev/net/tun cannot be opened: {error.strerror}", "modprobe tun, and run as root"
        ) from error
