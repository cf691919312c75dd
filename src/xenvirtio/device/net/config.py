"""A NIC's settings, as the toolstack wrote them to XenStore (docs/virtio-xenbus.md, B/host)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.spec.net import IFNAMSIZ, MTU_MAX, MTU_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_INTERFACE = re.compile(r"[^\s/:%]+")


@dataclass(frozen=True)
class NetConfig:
    """What a NIC is made from."""

    mac: bytes
    """6 bytes, of one station"""
    bridge: str
    """a bridge that exists; empty: the tap is left alone, for the host to route"""
    vifname: str
    """name of the tap that is made"""
    mtu: int = 0
    """bytes, without the Ethernet header; 0: the bridge's"""
    link_up: bool = True
    """whether the cable is plugged in"""

    @classmethod
    def from_settings(cls, settings: Mapping[str, str], name: str, vifname: str) -> NetConfig:
        """Read B/host of the NIC called `name`; `vifname` is used unless the settings name one.

        Keys of other layers are ignored. Raises UsageError."""
        mac_text = settings.get("mac", "")
        if not _MAC.fullmatch(mac_text):
            raise UsageError(
                f"NIC {name}: {mac_text!r} is not a MAC address", "use a form like mac=00:16:3e:01:02:03"
            )
        mac = bytes.fromhex(mac_text.replace(":", ""))
        if mac[0] & 1 or not any(mac):
            raise UsageError(
                f"NIC {name}: {mac_text} is not the address of one station",
                "use an address whose first byte is even, like 00:16:3e:01:02:03",
            )
        vifname = settings.get("vifname") or vifname
        bridge = settings.get("bridge", "")
        check_interface_name(vifname, f"NIC {name}: vifname")
        if bridge:
            check_interface_name(bridge, f"NIC {name}: bridge")
        mtu_text = settings.get("mtu", "") or "0"
        mtu = int(mtu_text) if mtu_text.isascii() and mtu_text.isdigit() and len(mtu_text) <= 5 else -1
        if mtu != 0 and not MTU_MIN <= mtu <= MTU_MAX:
            raise UsageError(
                f"NIC {name}: mtu is {mtu_text!r}", f"use a number between {MTU_MIN} and {MTU_MAX}"
            )
        return cls(mac, bridge, vifname, mtu, link_setting(settings, name))


def link_setting(settings: Mapping[str, str], name: str) -> bool:
    """Whether B/host has the link of the NIC called `name` up. Raises UsageError."""
    link = settings.get("link", "up")
    if link not in ("up", "down"):
        raise UsageError(f"NIC {name}: link is {link!r}", "use up or down")
    return link == "up"


def check_interface_name(interface: str, what: str) -> None:
    """Raise UsageError unless Linux takes `interface` as a name (net/core/dev.c, dev_valid_name)."""
    if not _INTERFACE.fullmatch(interface) or interface in (".", "..") or len(interface.encode()) >= IFNAMSIZ:
        raise UsageError(
            f"{what} {interface!r} is not a name for a network interface",
            f"use at most {IFNAMSIZ - 1} bytes, without spaces, slashes, colons and percent signs",
        )
