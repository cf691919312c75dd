"""A lab guest's configuration, and the guest.cfg for `xenvirtio create` made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Mapping

#: where dom0 has what artifacts.build() made
FOLDER = "/opt/xenvirtio/guest"
#: Faster boots under emulation: no mitigations to patch in, no checks of page permissions, nothing that waits
#: for a clock that emulation bends. A PV guest with foreign access adds `iommu=soft`: machine addresses, by
#: swiotlb-xen.
KERNEL_OPTIONS = (
    "console=hvc0 quiet mitigations=off rodata=off nowatchdog lsm= random.trust_cpu=on "
    "clocksource=xen tsc=unstable"
)

TYPES = ("pv", "pvh", "hvm")
#: the kernel's file below FOLDER: Xen's own builder takes the unpacked one; QEMU's loader, for HVM, a bzImage
KERNELS = {"pv": "vmlinux", "pvh": "vmlinux", "hvm": "vmlinuz"}
#: an HVM guest without what costs time under emulation: each access to an emulated device is an exit to QEMU
HVM_SETTINGS = {"vga": '"none"', "vnc": "0", "usb": "0"}


#: The processor of a guest, by its type; dom0 has the first (lab/qemu.py). Where Xen switches between an HVM
#: guest and another on one emulated processor, the guest is lost now and then: with Xen's state for its own.
PROCESSORS = {"pv": "1", "pvh": "2", "hvm": "3"}


@dataclass(frozen=True)
class Disk:
    """A virtio disk; `path` is an image in dom0."""

    path: str
    vdev: str = "vda"
    writable: bool = True
    format: str = "raw"

    def entry(self) -> str:
        access = "rw" if self.writable else "ro"
        return f"format={self.format}, vdev={self.vdev}, access={access}, target={self.path}"


@dataclass(frozen=True)
class Nic:
    """A virtio NIC; what is not given is left to xenvirtio."""

    bridge: str = "xenbr0"
    mac: str | None = None
    mtu: int | None = None
    model: str = "virtio"

    def entry(self) -> str:
        parts = [f"model={self.model}", f"bridge={self.bridge}"]
        parts += [f"mac={self.mac}"] if self.mac else []
        parts += [f"mtu={self.mtu}"] if self.mtu else []
        return ",".join(parts)


#: the tools disk, which guest.mount_tools() expects
TOOLS_DISK = Disk(f"{FOLDER}/tools.squashfs", "vdb", writable=False)


@dataclass(frozen=True)
class GuestConfig:
    """What a lab guest is to be; memory in MiB."""

    name: str
    type: str = "pv"  # pv, pvh or hvm; an HVM guest has one processor: emulated SVM loses others more often
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    address: str | None = None  # of eth0: "10.77.0.2/24"
    memory_access: str = MemoryAccess.GRANT
    modules: bool = True  # False: virtio_xenbus is not loaded
    memory: int = 256
    vcpus: int = 1
    kernel_options: str = ""  # added to the usual ones
    settings: Mapping[str, str] = field(default_factory=dict)  # further lines: {"on_crash": '"destroy"'}

    def text(self) -> str:
        """The guest.cfg."""
        lines = {
            "name": _quoted(self.name),
            "type": _quoted(self.type),
            "kernel": _quoted(f"{FOLDER}/{KERNELS[self.type]}"),
            "ramdisk": _quoted(f"{FOLDER}/initramfs"),
            "memory": str(self.memory),
            "vcpus": str(self.vcpus),
            "cpus": _quoted(PROCESSORS[self.type]),
            "extra": _quoted(self._command_line()),
            "memory_access": _quoted(self.memory_access),
        }
        if self.disks:
            lines["disk"] = _listed([disk.entry() for disk in self.disks])
        if self.nics:
            lines["vif"] = _listed([nic.entry() for nic in self.nics])
        if self.type == "hvm":
            lines |= HVM_SETTINGS
        return "".join(f"{key} = {value}\n" for key, value in {**lines, **self.settings}.items())

    def _command_line(self) -> str:
        words = [KERNEL_OPTIONS]
        if self.type == "pv" and self.memory_access == MemoryAccess.FOREIGN:
            words.append("iommu=soft")
        words += [f"xenvirtio.address={self.address}"] if self.address else []
        words += [] if self.modules else ["xenvirtio.modules=0"]
        words += [self.kernel_options] if self.kernel_options else []
        return " ".join(words)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _listed(entries: list[str]) -> str:
    return f"[ {', '.join(repr(entry) for entry in entries)} ]"
