"""One entry of `disk=[…]`, as xl-disk-configuration(5) and tools/libs/util/libxlu_disk_l.l have it.

    [prefix:]target,format,vdev,access          positional; with a prefix there is no format
    format=raw, vdev=vda, access=rw, target=…   by name; target comes last and may hold commas

A disk is ours if its vdev is `vd…`; xvd, hd and sd stay with xl, whatever else they say. Of ours, those with
`backend=qemu` are for the guest's QEMU (qemu.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from xenvirtio.spec.xenbus import MemoryAccess
from xenvirtio.toolstack.configuration.served import BACKENDS, CHOICE, QEMU, XENVIRTIO, Served

if TYPE_CHECKING:
    from xenvirtio.toolstack.configuration.grammar import Atom

#: as many as letters give: vda … vdz, vdaa … vdiv
DISKS_MAX = 256

POSITIONS = ("format", "vdev", "access")
#: words without a value → the setting that they stand for
FLAGS = {
    "cdrom": "cdrom",
    "discard": "discard",
    "no-discard": "no-discard",
    "direct-io-safe": "direct-io-safe",
    "colo": "colo",
    "no-colo": "no-colo",
    "trusted": "trusted",
    "untrusted": "trusted",
}
FORMATS = ("raw", "qcow", "qcow2", "vhd", "qed", "empty")
#: formats that each backend serves; Debian's QEMU for Xen has no other drivers
SERVED_FORMATS = {XENVIRTIO: ("raw",), QEMU: ("raw", "qcow2")}
FOREIGN_VDEV = re.compile(r"xvd[a-z]+\d*|hd[a-d]\d*|sd[a-p]\d*|d\d+p\d+|0x[0-9a-fA-F]+|\d+")
VDEVS = "virtio disks are vda, vdb, …; xl's are xvda, hda, sda, …"
OUR_VDEV = re.compile(r"vd([a-z]{1,2})")
TARGET = re.compile(r"target=(.*)", re.DOTALL)
PART = re.compile(r"[^,]*")
PREFIX = re.compile(r"(raw|qcow2?|vhd|tapdisk|tap2?|aio|ioemu|file|phy|iscsi|e?nbd|drbd):")

#: what virtio disks cannot have yet or at all: key → why, and what to do
REFUSED = {
    "script": ("block scripts are not run for virtio disks", "attach the device first and name its path"),
    "backendtype": ("xenvirtio is the backend of virtio disks", "leave backendtype= out"),
    "cdrom": ("virtio disks are no CD-ROM drives", "use vdev=xvd… or access=ro without cdrom"),
    "colo": ("COLO does not work with virtio disks", "leave it out"),
    "trusted": ("trusted and untrusted are settings of the guest's module", "virtio_xenbus.trusted=0"),
}


@dataclass(frozen=True)
class DiskSettings:
    """A virtio disk as the configuration has it; its fields are the backend's settings (B/host)."""

    vdev: str
    path: str
    writable: bool = True
    discard: bool = True
    memory_access: str | None = None  #: None: as the guest's other devices
    backend: str = XENVIRTIO  #: one of BACKENDS
    format: str = "raw"  #: one of SERVED_FORMATS

    @property
    def number(self) -> int:
        """0 for vda, 25 for vdz, 26 for vdaa."""
        number = 0
        for letter in self.vdev[2:]:
            number = number * 26 + ord(letter) - ord("a") + 1
        return number - 1


@dataclass
class _Fields:
    """What a specification says, before anyone decided whose disk it is."""

    atom: Atom
    values: dict[str, tuple[str, int]] = field(default_factory=dict)  # key → text, place in the specification
    prefix: str = ""
    trouble: tuple[str, str | None, int] | None = None  # the first: message, hint, place

    def text(self, key: str, default: str = "") -> str:
        return self.values.get(key, (default, 0))[0]

    def fail(self, key: str, message: str, hint: str | None = None) -> NoReturn:
        self.atom.fail(message, hint, at=self.values.get(key, ("", 0))[1])

    def set(self, key: str, text: str, at: int) -> None:
        if self.text(key):
            self.complain(f"{key} is given twice", None, at)
        self.values[key] = text, at

    def complain(self, message: str, hint: str | None, at: int) -> None:
        self.trouble = self.trouble or (message, hint, at)


def virtio_disk(atom: Atom, served: Served = Served()) -> DiskSettings | None:  # noqa: B008 - frozen
    """The virtio disk that this entry describes; None if the disk is xl's.

    Raises ConfigError for a vdev that nobody knows, and for anything wrong in a virtio disk.
    """
    fields = _split(atom)
    vdev = fields.text("vdev")
    misplaced = fields.text("format").startswith("vd")
    if misplaced or vdev.startswith("vd"):
        if fields.trouble is not None:
            message, instead, at = fields.trouble
            atom.fail(message, instead, at=at)
        if misplaced:
            right = f"'{fields.text('target')},raw,{fields.text('format')},rw'"
            fields.fail("format", "the format is missing before the vdev", right)
        return _settings(fields, served)
    if not vdev and fields.trouble is None and "cdrom" not in fields.values:
        fields.fail("vdev", "this disk has no vdev", VDEVS)
    if vdev and not FOREIGN_VDEV.fullmatch(vdev):
        fields.fail("vdev", f"unknown vdev '{vdev}'", VDEVS)
    if fields.text("specification") == "virtio":
        why = "is for Arm's virtio-mmio; here libxl makes no virtio disk of it, and an HVM guest's QEMU would"
        hint = "a virtio disk is vdev=vda, vdb, …; or leave specification= out"
        fields.fail("specification", f"specification=virtio {why} serve the image by IDE as well", hint)
    return None


def other_image(atom: Atom) -> tuple[str, str, bool] | None:
    """Name, path and whether it is written, of an image that xl serves; None for what is no such."""
    fields = _split(atom)
    target = fields.text("target")
    if fields.trouble is not None or not target.startswith("/"):
        return None
    return fields.text("vdev") or "a CD-ROM", target, not _read_only(fields) and "cdrom" not in fields.values


def _read_only(fields: _Fields) -> bool:
    return fields.text("access") in ("r", "ro")


def _settings(fields: _Fields, served: Served) -> DiskSettings:
    _check_vdev(fields)
    backend = _backend(fields, served)
    for key, (why, instead) in REFUSED.items():
        if key in fields.values:
            fields.fail(key, why, instead)
    if fields.prefix in ("iscsi", "nbd", "enbd", "drbd"):
        fields.fail(
            "target", f"{fields.prefix}: is not served as a virtio disk", "attach it and name its path"
        )
    form = _format(fields, backend)
    access = fields.text("access")
    if access not in ("", "r", "ro", "w", "rw"):
        fields.fail("access", f"unknown access '{access}'", "r or ro: read-only; w or rw: writable")
    if fields.text("specification", "virtio") != "virtio":
        fields.fail("specification", "a vd… disk is a virtio disk", "leave specification= out, or use xvd…")
    if not fields.text("target"):
        fields.fail(
            "target", "this disk has no target", "name an image or a block device: target=/path/to/it"
        )
    if not fields.text("target").startswith("/"):
        fields.fail("target", f"the target '{fields.text('target')}' is not an absolute path")
    if re.search(r"[\ud800-\udfff]", fields.text("target")):
        fields.fail("target", "the target is not UTF-8, which XenStore could not carry", "rename the image")
    return DiskSettings(
        vdev=fields.text("vdev"),
        path=fields.text("target"),
        writable=not _read_only(fields),
        discard="no-discard" not in fields.values,
        memory_access=_memory_access(fields, backend),
        backend=backend,
        format=form,
    )


def _backend(fields: _Fields, served: Served) -> str:
    backend = fields.text("backend") or served.default
    if backend not in BACKENDS:
        hint = f"leave backend= out, or give {CHOICE}"
        fields.fail("backend", "virtio disks are served by this domain only", hint)
    if backend == QEMU:
        served.check(fields.atom, fields.values.get("backend", ("", 0))[1])
    return backend


def _check_vdev(fields: _Fields) -> None:
    vdev = fields.text("vdev")
    if re.fullmatch(r"vd[a-z]+\d+", vdev):
        hint = f"give the whole disk: {vdev.rstrip('0123456789')}"
        fields.fail("vdev", f"'{vdev}' is a partition; virtio disks have none of their own", hint)
    if not OUR_VDEV.fullmatch(vdev):
        fields.fail("vdev", f"unknown vdev '{vdev}'", "virtio disks are vda … vdz, vdaa … vdiv")
    if DiskSettings(vdev, "").number >= DISKS_MAX:
        fields.fail("vdev", f"'{vdev}' is beyond the {DISKS_MAX} virtio disks of a guest", "the last is vdiv")


def _format(fields: _Fields, backend: str) -> str:
    form = fields.text("format")
    key = "format" if form else "target"
    form = form or (fields.prefix if fields.prefix in FORMATS else "raw")
    if form == "empty":
        fields.fail(key, "a virtio disk cannot be empty")
    if form not in FORMATS:
        fields.fail(
            key, f"unknown format '{form}'", "the order is target,format,vdev,access; the format is raw"
        )
    if form not in SERVED_FORMATS[backend]:
        image = fields.text("target") or "IMAGE"
        to_raw = f"qemu-img convert -f {form.replace('vhd', 'vpc')} -O raw {image} {image}.raw"
        hint = f"{to_raw}; or: qemu-nbd --connect=/dev/nbd0 {image}, and give phy:/dev/nbd0"
        if form == "qcow2":
            hint += f"; or, in an HVM guest: backend={QEMU}"
        what = " or ".join(SERVED_FORMATS[backend])
        fields.fail(key, f"format {form} is not served: only {what} images and block devices are", hint)
    return form


def _memory_access(fields: _Fields, backend: str) -> str | None:
    modes = (MemoryAccess.GRANT, MemoryAccess.FOREIGN)
    for key in ("memory_access", "grant_usage"):
        if backend == QEMU and key in fields.values:
            fields.fail(key, f"{key} is refused: QEMU maps all of its guest's memory", f"leave {key}= out")
    if "memory_access" in fields.values:
        mode = fields.text("memory_access")
        if mode not in modes:
            fields.fail("memory_access", f"unknown memory_access '{mode}'", "grant or foreign")
        return mode
    if "grant_usage" in fields.values:
        usage = fields.text("grant_usage")
        if usage not in ("0", "1"):
            fields.fail("grant_usage", f"grant_usage is 0 or 1, not '{usage}'")
        return MemoryAccess.GRANT if usage == "1" else MemoryAccess.FOREIGN
    return None


def _split(atom: Atom) -> _Fields:
    """Cut a specification at its commas, as libxlu's scanner does."""
    fields, text, at = _Fields(atom), atom.text, 0
    while at < len(text):
        if text[at] in " \t\n":
            at += 1
            continue
        if named := TARGET.match(text, at):
            fields.set("target", named[1].removesuffix(","), named.start(1))
            break
        if prefix := PREFIX.match(text, at):
            fields.prefix = fields.prefix if fields.prefix in FORMATS else prefix[1]
            at = prefix.end()
            continue
        part = PART.match(text, at)
        assert part is not None
        _take(fields, part[0], at)
        at = part.end() + 1
    return fields


def _take(fields: _Fields, part: str, at: int) -> None:
    if named := re.fullmatch(r"([a-z][-_a-z0-9]*)=(.*)", part, re.DOTALL):
        _take_named(fields, named[1], named[2], at, at + named.start(2))
    elif "=" in part:
        fields.complain(f"'{part}' cannot be told apart from key=value", "write target=… at the end", at)
    elif part in FLAGS:
        fields.set(FLAGS[part], "1", at)
    else:
        _take_positional(fields, part, at)


def _take_named(fields: _Fields, key: str, value: str, at: int, value_at: int) -> None:
    known = ("format", "vdev", "access", "script", "backend", "backendtype", "specification")
    if key in (*known, "memory_access", "grant_usage"):
        fields.set(key, value, value_at)
    elif key == "devtype" and value == "cdrom":
        fields.set("cdrom", "1", at)
    elif key == "devtype" and value == "disk":
        return
    elif key.startswith("colo-") or key in ("active-disk", "hidden-disk"):
        fields.set("colo", "1", at)
    else:
        fields.complain(f"unknown setting '{key}' of a virtio disk", f"known: {', '.join(known)}, target", at)


def _take_positional(fields: _Fields, part: str, at: int) -> None:
    if "target" not in fields.values:
        fields.values["target"] = part, at
        return
    for key in POSITIONS:
        if key in fields.values or (key == "format" and fields.prefix):
            continue
        if key == "format" and not fields.text("target") and ":" in part:
            continue  # an empty drive: ",hdc:cdrom,r"
        if key == "vdev" and ":" in part:
            part, _, devtype = part.rpartition(":")
            if devtype == "cdrom":
                fields.values["cdrom"] = "1", at
        fields.values[key] = part, at
        return
    fields.complain(f"'{part}' is one value too many", "the order is target,format,vdev,access", at)
