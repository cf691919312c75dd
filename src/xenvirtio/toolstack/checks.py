"""What must hold on this host before a guest is made; nothing is changed here."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError, XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from xenvirtio.toolstack.configuration.guest import Guest, VirtioDevice
    from xenvirtio.toolstack.xl import Domain

SECTOR = 512  # bytes; virtio 1.3 §5.2.4: capacity counts these
#: how an image of a format begins (QEMU, docs/interop/qcow2.txt)
MAGIC = {"qcow2": b"QFI\xfb"}


@dataclass(frozen=True)
class Host:
    """The machine that serves: where to look, so that tests can look elsewhere."""

    networks: Path = Path("/sys/class/net")
    user: Callable[[], int] = os.geteuid
    daemon_runs: Callable[[], bool] = lambda: False


def check_user(host: Host) -> None:
    """Raises UsageError for anyone but root: XenStore and xl are root's."""
    if host.user() != 0:
        raise UsageError("guests are started by root", hint="run it again with sudo")


def check_guest(guest: Guest, host: Host) -> None:
    """Images, bridges, kernel files, and the daemon if there is a virtio device.

    Raises UsageError, or XenvirtioError if the daemon does not run.
    """
    for file in guest.files:
        if file.startswith("/") and not Path(file).is_file():
            raise UsageError(f"guest {guest.name}: there is no kernel or ramdisk {file}")
    for device in guest.devices:
        if device.is_disk:
            check_image(device)
        else:
            check_bridge(device, host)
    for vdev, disk in guest.qemu_disks.items():
        check_file(f"disk {vdev}", disk["path"], disk["mode"] == "w", disk["format"])
    if guest.devices and not host.daemon_runs():
        raise XenvirtioError(
            "the daemon that serves virtio devices does not run",
            hint="xenvirtio daemon",
        )


def check_running(guest: Guest, domains: list[Domain]) -> None:
    """Raises UsageError if the guest's name or UUID is in use."""
    for domain in domains:
        if domain.dying:
            continue
        if domain.name == guest.name:
            raise UsageError(
                f"guest {guest.name} is running already (domain {domain.domid})",
                hint=f"xenvirtio destroy {guest.name}, or give another name: 'name=\"…\"'",
            )
        if domain.uuid == guest.uuid:
            raise UsageError(
                f"the UUID {guest.uuid} is that of the running guest {domain.name}",
                hint="leave uuid out of the configuration, and one is made",
            )


def check_image(device: VirtioDevice) -> None:
    """Raises UsageError unless a disk's image can be served."""
    check_file(f"disk {device.vdev}", device.settings["path"], device.settings["mode"] == "w")


def check_file(name: str, path: str, writable: bool, form: str = "raw") -> None:
    """Raises UsageError unless a disk's image is there, whole, and in use by nobody who excludes this use."""
    from xenvirtio.device.block.lock import (  # only who has a disk needs the devices' room
        lock_image,
        open_image,
    )

    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise UsageError(
            f"{name}: there is no image {path}", hint=f"make one: truncate -s 1G {path}; or correct target="
        ) from None
    except OSError as error:
        raise UsageError(f"{name}: cannot look at {path}: {error.strerror}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError(f"{name}: {path} is neither a file nor a block device")
    try:
        handle = open_image(path, not writable)
    except OSError as error:
        hint = "give it read-only: access=ro" if writable else None
        raise UsageError(f"{name}: cannot open {path}: {error.strerror}", hint) from None
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", error.hint) from None
    with open(handle, "rb", buffering=0) as image:
        _check_content(name, path, image, form)
        try:
            lock_image(image.fileno(), path, not writable)
        except UsageError as error:
            raise UsageError(f"{name}: {error.message}", error.hint) from None


def image_end(name: str, path: str) -> int:
    """Where an image or a block device ends now, in bytes; `name` is the disk's. Raises UsageError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{name}: cannot open {path}: {error.strerror}", hint=f"ls -l {path}") from None
    try:
        return os.lseek(handle, 0, os.SEEK_END)
    finally:
        os.close(handle)


def _check_content(name: str, path: str, image: FileIO, form: str) -> None:
    size = image.seek(0, os.SEEK_END)
    if size == 0:
        raise UsageError(f"{name}: {path} is empty", hint=f"truncate -s 1G {path}")
    if form == "raw" and size % SECTOR:
        raise UsageError(
            f"{name}: the size of {path} is {size} bytes, which is no multiple of {SECTOR}",
            hint=f"fill it up: truncate -s %{SECTOR} {path}",
        )
    image.seek(0)
    magic = MAGIC.get(form, b"")
    if image.read(len(magic)) != magic:
        raise UsageError(f"{name}: {path} is no image of format {form}", hint=f"qemu-img info {path}")


def check_bridge(device: VirtioDevice, host: Host) -> None:
    """Raises UsageError unless a NIC's bridge is there and its tap's name is free."""
    bridge = device.settings["bridge"]
    if not (host.networks / bridge).exists():
        raise UsageError(
            f"NIC {device.vdev}: there is no bridge {bridge}",
            hint=f"ip link add {bridge} type bridge && ip link set {bridge} up; or name another: bridge=…",
        )
    if not (host.networks / bridge / "bridge").is_dir():
        raise UsageError(
            f"NIC {device.vdev}: {bridge} is a network interface, but no bridge", hint="bridge=…"
        )
    tap = device.settings.get("vifname")
    if tap is not None and (host.networks / tap).exists():
        raise UsageError(
            f"NIC {device.vdev}: there is a network interface {tap} already",
            hint="another vifname=…, or none",
        )
