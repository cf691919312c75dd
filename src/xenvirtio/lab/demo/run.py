"""The demo's stages, from nothing to the proofs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import TimeLimit
from xenvirtio.lab.demo import proofs
from xenvirtio.lab.demo.results import DemoResult, DiskProof, GuestResult
from xenvirtio.lab.guest.backend import Backend
from xenvirtio.lab.guest.config import TOOLS_DISK, Disk, GuestConfig, Nic
from xenvirtio.lab.guest.guest import Guest

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.stages import Progress

IMAGE = "/var/tmp/demo.img"
IMAGE_BYTES = 128 << 20
NAME = "demo"
DISK, NIC = "vda", "eth0"


def run(lab: Lab, memory_access: str, progress: Progress) -> DemoResult:
    """Shows one PV guest; brings the lab up first. Raises XenvirtioError from the stage that failed."""
    start = time.monotonic()
    lab.up()
    ready = time.monotonic()
    with progress.stage("Start the xenvirtio daemon in dom0", limit=30):
        backend = Backend(lab)
        backend.start()
    with progress.stage("Make an empty disk image of 128 MiB", limit=20):
        lab.run(["truncate", "-s", str(IMAGE_BYTES), IMAGE]).check()
    facts = _facts(lab)
    guest, booted = _show_guest(lab, backend, memory_access, progress)
    total = time.monotonic() - start
    return DemoResult(
        xen=facts["xen"],
        dom0_kernel=facts["kernel"],
        accelerator=lab.status().accelerator or "unknown",
        seconds={"setup": ready - start, "boot": booted, "total": total},
        guests=(guest,),
    )


def _facts(lab: Lab) -> dict[str, str]:
    script = "xl info xen_version; uname -r"
    xen, kernel = lab.run(script).check().stdout.split()
    return {"xen": xen, "kernel": kernel}


def _show_guest(
    lab: Lab, backend: Backend, memory_access: str, progress: Progress
) -> tuple[GuestResult, float]:
    config = GuestConfig(
        name=NAME,
        disks=(Disk(IMAGE, DISK), TOOLS_DISK),
        nics=(Nic(),),
        address="10.77.0.2/24",
        memory_access=memory_access,
    )
    with ExitStack() as stack:
        booting = time.monotonic()
        with progress.stage("Boot a PV guest with a virtio disk and NIC", limit=150):
            guest = stack.enter_context(Guest.create(lab, config))
            _wait_for_nic(guest)
        booted = time.monotonic() - booting
        size = proofs.disk_size(guest, DISK)
        kernel = guest.run("uname -r").output.strip()
        transport, access = (_of_disk(guest, name) for name in ("transport", "memory_access"))
        written_mib = proofs.DISK_BYTES >> 20
        with progress.stage(
            f"Write {written_mib} MiB of random data to {DISK} and read them back", limit=180
        ):
            md5 = proofs.write_disk(guest, DISK)
            in_guest = proofs.disk_md5_in_guest(guest, DISK) == md5
        with progress.stage(f"Ping and TCP through {NIC}", limit=180):
            nic = proofs.nic(guest, NIC)
        devices = _devices(backend)
        with progress.stage("Shut the guest down", limit=120):
            guest.shutdown()
        # Side by side: nothing writes to the image until both have read it.
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        comparing = pool.submit(proofs.disk_md5_in_dom0, lab, IMAGE)
        with progress.stage("Start it again: is the data there, and in the image in dom0?", limit=240):
            again = stack.enter_context(Guest.create(lab, config))
            survived = proofs.disk_md5_in_guest(again, DISK) == md5
            in_dom0 = comparing.result() == md5
        with progress.stage("Count random 4 KiB requests with fio", limit=120):
            again.mount_tools()
            iops = proofs.iops(again, DISK)
    disk = DiskProof(
        device=DISK,
        size=size,
        bytes_written=proofs.DISK_BYTES,
        bytes_verified_in_guest=proofs.DISK_BYTES if in_guest else 0,
        bytes_verified_in_dom0=proofs.DISK_BYTES if in_dom0 else 0,
        survived_guest_restart=survived,
        iops=iops,
    )
    counters = {name: device["memory"] for name, device in devices.items()}
    return GuestResult(
        NAME, str(devices[DISK]["type"]), kernel, transport, access, disk, nic, counters
    ), booted


def _of_disk(guest: Guest, attribute: str) -> str:
    """An attribute of the XenBus device behind the disk, from the guest's sysfs."""
    return guest.run(f"cat /sys/block/{DISK}/device/../{attribute}").output.strip()


def _wait_for_nic(guest: Guest) -> None:
    """Until eth0 has its address, which the guest's init gives it in the background."""
    until = (
        f"until ip -4 address show dev {NIC} | grep -q inet; do n=$((n+1)); [ $n -lt 150 ]; sleep 0.2; done"
    )
    if guest.run(f"set -e; n=0; {until}", timeout=60, check=False).status:
        raise TimeLimit(f"the guest's {NIC} has no address after 30 s", hint=f"xenvirtio lab console {NAME}")


def _devices(backend: Backend) -> dict[str, dict[str, Any]]:
    """What `xenvirtio list` tells of the guest's devices, by name; the tools disk is left out."""
    return {
        row["device"]: row
        for row in backend.devices()
        if row["guest"] == NAME and row["device"] in (DISK, NIC)
    }
