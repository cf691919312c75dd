"""One entry of `vif=[…]`, as xl-network-configuration(5) has it: `key=value` separated by commas.

`model=virtio` is ours on every type of guest. `model=virtio-net` is ours on PV and PVH guests, where xl has
no use for it; on an HVM guest it means the virtio NIC of its QEMU, and xl keeps it. With `backend=qemu`, both
are that NIC, xl's `model=virtio-net,type=ioemu` (tools/libs/light/libxl_dm.c gives QEMU the model as it is).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.spec.net import IFNAMSIZ, MTU_MAX, MTU_MIN
from xenvirtio.spec.xenbus import MemoryAccess
from xenvirtio.toolstack.configuration.served import BACKENDS, CHOICE, QEMU, XENVIRTIO, Served

if TYPE_CHECKING:
    from xenvirtio.toolstack.configuration.grammar import Atom

DEFAULT_BRIDGE = "xenbr0"
INTERFACE = re.compile(r"[^\s/:%]+")
MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
KNOWN = ("model", "mac", "bridge", "vifname", "mtu", "memory_access", "backend")
#: what xl does for a NIC of QEMU: it runs the hotplug script, also with the tap
KNOWN_TO_XL = (*KNOWN, "type", "script", "ip", "gatewaydev", "netdev", "devid")
#: what `qemu_nic` says itself
SAID = ("model", "backend", "type", "mac")

#: settings of xl that virtio NICs do not have (yet): key → why, and what to do
REFUSED = {
    "script": (
        "hotplug scripts are not run for virtio NICs: the tap is put into the bridge directly",
        "bridge=…",
    ),
    "ip": ("addresses are only known to hotplug scripts, which are not run", "set the address in the guest"),
    "rate": ("rate limits do not exist yet for virtio NICs", "limit the tap with tc(8)"),
    "gatewaydev": ("only bridged networks work with virtio NICs", "bridge=…"),
    "netdev": ("only bridged networks work with virtio NICs", "bridge=…"),
    "vlan": ("VLANs do not exist yet for virtio NICs", "use a bridge of that VLAN: bridge=…"),
    "type": ("a virtio NIC of xenvirtio is not emulated by QEMU", "leave type= out"),
    "devid": ("virtio NICs are numbered in their order", "leave devid= out"),
    "accel": ("xl does not support it either", "leave accel out"),
    "trusted": ("trusted and untrusted are settings of the guest's module", "leave it out"),
    "untrusted": ("trusted and untrusted are settings of the guest's module", "leave it out"),
}


@dataclass(frozen=True)
class NicSettings:
    """A virtio NIC as the configuration has it; its fields are the backend's settings (B/host)."""

    number: int  #: 0 for the guest's first virtio NIC
    mac: str  #: six bytes, lower case: 00:16:3e:…
    bridge: str = DEFAULT_BRIDGE
    vifname: str | None = None  #: of the tap; None: made from the domain's number
    mtu: int | None = None  #: bytes; None: the bridge's
    memory_access: str | None = None  #: None: as the guest's other devices

    @property
    def vdev(self) -> str:
        return f"eth{self.number}"


@dataclass(frozen=True)
class QemuNic:
    """A virtio NIC of the guest's QEMU: `entry` is what xl's vif=[…] has for it."""

    mac: str
    vifname: str | None
    entry: str


def server(atom: Atom, guest_type: str, served: Served = Served()) -> str | None:  # noqa: B008 - frozen
    """Who serves the virtio NIC of this entry, one of BACKENDS; None if it is no virtio NIC, or xl's.

    Raises ConfigError if it is to be QEMU, and the guest has none.
    """
    fields = _fields(atom)
    model, (backend, at) = fields.get("model", ("", 0))[0], fields.get("backend", ("", 0))
    if model not in ("virtio", "virtio-net"):
        return None
    if backend == QEMU:
        served.check(atom, at)
    if backend in BACKENDS:
        return backend
    if not backend and served.default == QEMU:
        return QEMU
    return None if model == "virtio-net" and guest_type == "hvm" else XENVIRTIO


def qemu_nic(atom: Atom, guest: str, number: int) -> QemuNic:
    """The NIC of QEMU that this entry describes, the `number`th virtio NIC of its guest.

    It always says its address: libxl would make a new one at each start of the guest. Raises ConfigError.
    """
    fields = _fields(atom)
    _check_keys(atom, fields, KNOWN_TO_XL)
    if "memory_access" in fields:
        why = "memory_access= is refused: QEMU maps all of its guest's memory"
        atom.fail(why, "leave memory_access= out", at=fields["memory_access"][1])
    kind, at = fields.get("type", ("ioemu", 0))
    if kind != "ioemu":
        atom.fail(f"type={kind} is refused: QEMU emulates this NIC", "leave type= out", at=at)
    mac = _mac(atom, fields) if "mac" in fields else generated_mac(guest, number)
    left = [f"{key}={text}" for key, (text, _) in fields.items() if key not in SAID]
    return QemuNic(
        mac,
        _interface(atom, fields, "vifname"),
        ",".join(("model=virtio-net", "type=ioemu", f"mac={mac}", *left)),
    )


def virtio_nic(atom: Atom, guest: str, number: int) -> NicSettings:
    """The virtio NIC that this entry describes, the `number`th of its guest.

    Raises ConfigError for anything wrong in it.
    """
    fields = _fields(atom)
    _check_keys(atom, fields, KNOWN)
    backend, at = fields.get("backend", (XENVIRTIO, 0))
    if backend != XENVIRTIO:
        hint = f"leave backend= out, or give {CHOICE}"
        atom.fail("backend= is refused: virtio NICs are served by this domain only", hint, at=at)
    return NicSettings(
        number=number,
        mac=_mac(atom, fields) if "mac" in fields else generated_mac(guest, number),
        bridge=_interface(atom, fields, "bridge") or DEFAULT_BRIDGE,
        vifname=_interface(atom, fields, "vifname"),
        mtu=_mtu(atom, fields),
        memory_access=_memory_access(atom, fields),
    )


def generated_mac(guest: str, number: int) -> str:
    """An address of Xen's own range 00:16:3e, the same at each start of the guest."""
    import hashlib  # loads OpenSSL

    digest = hashlib.sha256(f"{guest}/{number}".encode(errors="surrogateescape")).digest()
    return "00:16:3e:" + ":".join(f"{byte:02x}" for byte in (digest[0] & 0x7F, digest[1], digest[2]))


def _check_keys(atom: Atom, fields: dict[str, tuple[str, int]], known: tuple[str, ...]) -> None:
    for key, (_, at) in fields.items():
        if key in known:
            continue
        if key in REFUSED:
            why, instead = REFUSED[key]
            atom.fail(f"{key}= is refused: {why}", instead, at=at)
        if key.startswith("colo"):
            atom.fail(f"{key}= is refused: COLO does not work with virtio NICs", "leave it out", at=at)
        atom.fail(f"unknown setting '{key}' of a virtio NIC", f"known: {', '.join(known)}", at=at)


def _fields(atom: Atom) -> dict[str, tuple[str, int]]:
    """key → its value and its place in the entry."""
    fields: dict[str, tuple[str, int]] = {}
    at = 0
    for part in atom.text.split(","):
        start = at + len(part) - len(part.lstrip())
        at += len(part) + 1
        key, _, value = part.strip().partition("=")
        if key:
            fields[key.strip()] = value.strip(), start
    return fields


def _mac(atom: Atom, fields: dict[str, tuple[str, int]]) -> str:
    text, at = fields["mac"]
    if not MAC.fullmatch(text):
        atom.fail(f"'{text}' is no MAC address", "six bytes in hexadecimal: 00:16:3e:12:34:56", at=at)
    numbers = [int(byte, 16) for byte in text.split(":")]
    if numbers[0] & 1 or not any(numbers):
        hint = "its first byte is even: 00:16:3e:… is Xen's own range"
        atom.fail(f"'{text}' is not the address of one interface", hint, at=at)
    return ":".join(f"{number:02x}" for number in numbers)


def _interface(atom: Atom, fields: dict[str, tuple[str, int]], key: str) -> str | None:
    text, at = fields.get(key, ("", 0))
    if key not in fields:
        return None
    if re.search(r"[\ud800-\udfff]", text):
        hint = "rename the interface; names of ASCII letters and digits do everywhere"
        atom.fail(f"{key}= is not UTF-8, which XenStore could not carry", hint, at=at)
    if not INTERFACE.fullmatch(text) or len(text.encode()) >= IFNAMSIZ or text in (".", ".."):
        hint = f"1 to {IFNAMSIZ - 1} characters, without space, slash, colon and percent sign"
        atom.fail(f"'{text}' cannot be the name of a network interface ({key})", hint, at=at)
    return text


def _mtu(atom: Atom, fields: dict[str, tuple[str, int]]) -> int | None:
    if "mtu" not in fields:
        return None
    text, at = fields["mtu"]
    if not text.isascii() or not text.isdigit() or not MTU_MIN <= int(text) <= MTU_MAX:
        atom.fail(f"mtu={text} is not possible", f"{MTU_MIN} to {MTU_MAX} bytes", at=at)
    return int(text)


def _memory_access(atom: Atom, fields: dict[str, tuple[str, int]]) -> str | None:
    if "memory_access" not in fields:
        return None
    text, at = fields["memory_access"]
    if text not in (MemoryAccess.GRANT, MemoryAccess.FOREIGN):
        atom.fail(f"unknown memory_access '{text}'", "grant or foreign", at=at)
    return text
