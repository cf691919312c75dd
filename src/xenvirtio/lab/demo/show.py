"""One guest's part of the demo: boot, proofs, shutdown, and the data after it was started again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import LabError, TimeLimit
from xenvirtio.lab.demo import proofs
from xenvirtio.lab.demo.results import DiskProof, GuestResult
from xenvirtio.lab.guest.config import TOOLS_DISK, Disk, GuestConfig, Nic
from xenvirtio.lab.guest.guest import Guest
from xenvirtio.lab.paths import lab_command

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest.backend import Backend
    from xenvirtio.lab.stages import Progress, Stage

MIB = 1 << 20
IMAGE_BYTES = 128 * MIB
DISK, NIC = "vda", "eth0"


@dataclass(frozen=True)
class Amounts:
    """How much data goes through a guest's devices, in bytes, and whether fio counts requests."""

    disk: int = 64 * MIB
    tcp: int = 4 * MIB  # each way
    fio: bool = True


#: the same proofs in short form
SHORT = Amounts(disk=8 * MIB, tcp=1 * MIB, fio=False)


@dataclass(frozen=True)
class Show:
    """Shows one guest; `number` tells its address from other guests'."""

    lab: Lab
    backend: Backend
    progress: Progress
    name: str
    type: str
    memory_access: str
    number: int = 0
    amounts: Amounts = Amounts()

    @property
    def image(self) -> str:
        return f"/var/tmp/{self.name}.img"

    def run(self) -> GuestResult:
        """Raises XenvirtioError from the stage that failed."""
        self.lab.run(
            ["sh", "-c", 'rm -f "$1"; truncate -s "$2" "$1"', "sh", self.image, str(IMAGE_BYTES)]
        ).check()
        config = GuestConfig(
            name=self.name,
            type=self.type,
            disks=(Disk(self.image, DISK), TOOLS_DISK),
            nics=(Nic(),),
            address=f"10.77.0.{self.number + 2}/24",
            memory_access=self.memory_access,
        )
        with ExitStack() as stack:
            return self._run(stack, config)

    def _run(self, stack: ExitStack, config: GuestConfig) -> GuestResult:
        stage, count = self._stage, self.amounts.disk
        booting = time.monotonic()
        with stage("boot with a virtio disk and NIC", limit=240):
            guest = stack.enter_context(Guest.create(self.lab, config))
            _wait_for_nic(guest)
        booted = time.monotonic() - booting
        size = proofs.disk_size(guest, DISK)
        kernel = guest.run("uname -r").output.strip()
        transport, access = (_of_disk(guest, name) for name in ("transport", "memory_access"))
        if access != self.memory_access:
            raise LabError(f"{self.name} has memory access {access!r}, and was to have {self.memory_access}")
        with stage(f"write {count // MIB} MiB of random data to {DISK}", limit=240):
            md5 = proofs.write_disk(guest, DISK, count)
        with stage(f"ping and TCP through {NIC}", limit=240):
            nic = proofs.nic(guest, NIC, self.amounts.tcp)
        devices = self._devices()
        with stage("shut down", limit=120):
            guest.shutdown()
        # Side by side: nothing writes to the image until both have read it.
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        comparing = pool.submit(proofs.disk_md5_in_dom0, self.lab, self.image, count)
        with stage("start again: is the data there, and in the image in dom0?", limit=240):
            again = stack.enter_context(Guest.create(self.lab, config))
            # Nothing of it can be in the memory of a guest that has just booted.
            in_guest = proofs.disk_md5_in_guest(again, DISK, count) == md5
            in_dom0 = comparing.result() == md5
        iops = {}
        if self.amounts.fio:
            with stage("random 4 KiB requests by fio", limit=180):
                again.mount_tools()
                iops = proofs.iops(again, DISK)
        disk = DiskProof(
            device=DISK,
            size=size,
            bytes_written=count,
            bytes_verified_in_guest=count if in_guest else 0,
            bytes_verified_in_dom0=count if in_dom0 else 0,
            survived_guest_restart=in_guest,
            iops=iops,
        )
        return GuestResult(
            name=self.name,
            type=str(devices[DISK]["type"]),
            kernel=kernel,
            transport=transport,
            memory_access=access,
            disk=disk,
            nic=nic,
            backend={name: device["memory"] for name, device in devices.items()},
            seconds={"boot": round(booted, 1), "total": round(time.monotonic() - booting, 1)},
        )

    def _stage(self, name: str, limit: float) -> AbstractContextManager[Stage]:
        return self.progress.stage(f"{self.name}: {name}", limit)

    def _devices(self) -> dict[str, dict[str, Any]]:
        """What `xenvirtio list` tells of the guest's disk and NIC; LabError if it does not know both."""
        rows = {row["device"]: row for row in self.backend.devices() if row["guest"] == self.name}
        if missing := [name for name in (DISK, NIC) if name not in rows]:
            raise LabError(f"xenvirtio list does not know {', '.join(missing)} of guest {self.name}")
        return {name: rows[name] for name in (DISK, NIC)}


def _of_disk(guest: Guest, attribute: str) -> str:
    """An attribute of the XenBus device behind the disk, from the guest's sysfs."""
    return guest.run(f"cat /sys/block/{DISK}/device/../{attribute}").output.strip()


def _wait_for_nic(guest: Guest) -> None:
    """Until eth0 has its address, which the guest's init gives it in the background."""
    until = (
        f"until ip -4 address show dev {NIC} | grep -q inet; do n=$((n+1)); [ $n -lt 150 ]; sleep 0.2; done"
    )
    if guest.run(f"set -e; n=0; {until}", timeout=60, check=False).status:
        raise TimeLimit(
            f"the guest's {NIC} has no address after 30 s",
            hint=lab_command(guest.lab.folder, f"console {guest.name}"),
        )
