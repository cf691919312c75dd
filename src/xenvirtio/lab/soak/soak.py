"""The soak's stages: guests side by side, the load, what it left."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab.guest import TOOLS_DISK, Backend, Disk, Guest, GuestConfig, Nic, tcp
from xenvirtio.lab.paths import lab_command
from xenvirtio.lab.soak import load, messages, samples
from xenvirtio.lab.soak.grants import Console, grants
from xenvirtio.lab.soak.growth import SAMPLES_MIN, growth
from xenvirtio.lab.soak.results import GuestResult, SoakResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenvirtio.lab import Lab
    from xenvirtio.lab.soak.grants import Grants
    from xenvirtio.lab.soak.results import Plan
    from xenvirtio.lab.stages import Progress, Stage

FOLDER = "/var/tmp/soak"
#: the first guest's iperf3 server in dom0
PORT = 5201
MEMORY_MIB = 320
#: for each wait of a guest's start, with the others beside it
BOOT_SECONDS = 240.0
#: seconds between two samples; a short run takes them oftener
SAMPLE_SECONDS = 20.0
#: bytes by TCP each way, with digests, a few times under the load
CHECKED_BYTES = 1 << 20
CHECKS = 3
MARK = "xenvirtio: the soak begins"
#: the kernel's messages after the last mark, with their levels; all of them if it is not there any more
AFTER_MARK = (
    f"dmesg -r | awk '/{MARK}/ {{ n = 0; next }} {{ said[n++] = $0 }} "
    "END { for (i = 0; i < n; i++) print said[i] }'"
)


def run(lab: Lab, plan: Plan, progress: Progress) -> SoakResult:
    """Brings the lab up first. Raises XenvirtioError from the stage that failed."""
    begun = time.monotonic()
    lab.up()
    with progress.stage("Start the xenvirtio daemon in dom0", limit=60):
        Backend(lab).start()
    configs = [_config(number, *kind) for number, kind in enumerate(plan.guests)]

    with ExitStack() as stack:
        return Soak(lab, plan, _boot(lab, configs, stack, progress), progress).run(begun)


def _boot(lab: Lab, configs: list[GuestConfig], stack: ExitStack, progress: Progress) -> list[Guest]:
    """All guests, side by side: most of a boot is waiting for devices that are emulated."""
    kinds = ", ".join(f"{config.type.upper()} ({config.memory_access})" for config in configs)
    images = " ".join(config.disks[0].path for config in configs)
    lab.run(f"mkdir -p {FOLDER}; rm -f {images}; truncate -s {load.IMAGE_BYTES} {images}").check()
    with progress.stage(f"Boot guests: {kinds}", limit=900), ThreadPoolExecutor() as pool:
        booting = [pool.submit(Guest.create, lab, config, BOOT_SECONDS) for config in configs]
        errors = [error for each in booting if (error := each.exception()) is not None]
        guests = [stack.enter_context(each.result()) for each in booting if each.exception() is None]
        if errors:
            raise errors[0]
        for guest in guests:
            guest.mount_tools()
    return guests


def _config(number: int, kind: str, access: str) -> GuestConfig:
    name = f"soak-{kind}-{access}"
    return GuestConfig(
        name,
        type=kind,
        disks=(Disk(f"{FOLDER}/{name}.img", load.DEVICE), TOOLS_DISK),
        nics=(Nic(),),
        address=f"10.77.0.{20 + number}/24",
        memory_access=access,
        memory=MEMORY_MIB,
    )


class Soak:
    """One run on guests that are up."""

    def __init__(self, lab: Lab, plan: Plan, guests: list[Guest], progress: Progress) -> None:
        self._lab, self._plan, self._guests, self._progress = lab, plan, guests, progress
        self._checked = {guest.name: 0 for guest in guests}

    def run(self, begun: float) -> SoakResult:
        plan, progress = self._plan, self._progress
        booted = time.monotonic()
        with progress.stage("Count the grants in use before the load", limit=180):
            before = grants(self._lab)
        self._mark()
        console = Console(self._lab)
        limit = 2 * plan.seconds + load.LAST_PASS_LIMIT * (1 + len(self._guests))
        with progress.stage(f"fio and iperf3 for {plan.minutes:g} min in each", limit) as stage:
            self._load(stage)
        loaded = time.monotonic()
        xen_log = console.read()
        with progress.stage("Compare disks with images, read logs, count grants", limit=600):
            after = grants(self._lab)
            results = tuple(self._result(guest, before, after) for guest in self._guests)
            taken = samples.collect(self._lab, self._guests)
            dom0_log = self._lab.run(AFTER_MARK).check().stdout
        xen, kernel = self._lab.run("xl info xen_version; uname -r").check().stdout.split()
        return SoakResult(
            xen=xen,
            dom0_kernel=kernel,
            accelerator=self._lab.status().accelerator or "unknown",
            minutes=plan.minutes,
            seconds={"boot": booted - begun, "load": loaded - booted, "total": time.monotonic() - begun},
            guests=results,
            dom0_messages=messages.kernel_messages(dom0_log),
            xen_messages=messages.xen_messages(xen_log),
            dom0_maptrack=(before[0].maptrack, after[0].maptrack),
            growth={place: growth(each) for place, each in taken.items()},
            samples=taken,
        )

    def _mark(self) -> None:
        """What the kernels say from here on counts."""
        command = f"echo '<5>{MARK}' >/dev/kmsg"
        self._lab.run(command).check()
        for guest in self._guests:
            guest.run(command)

    def _load(self, stage: Stage) -> None:
        seconds, every = self._plan.seconds, min(SAMPLE_SECONDS, self._plan.seconds / SAMPLES_MIN / 2)
        samples.start(self._lab, self._guests, round(seconds / every), every)
        for number in range(len(self._guests)):
            # one client, and gone; it must not hold the command's output open
            self._lab.run(
                f"setsid iperf3 -s -1 -p {PORT + number} </dev/null >{FOLDER}/iperf.{number} 2>&1 &"
            ).check()
        for number, guest in enumerate(self._guests):
            load.start(guest, PORT + number, seconds)
        start = time.monotonic()
        for check in range(1, CHECKS + 1):
            stage.say(f"TCP with digests, {check} of {CHECKS}, {seconds} s in all")
            time.sleep(max(0.0, check * seconds / (CHECKS + 1) - (time.monotonic() - start)))
            self._check_tcp()
            stage.check("a transfer by TCP")
        time.sleep(max(0.0, seconds - (time.monotonic() - start)))
        stage.say("the last pass of each fio")
        for guest in self._guests:
            load.wait(guest)

    def _check_tcp(self) -> None:
        """A transfer each way between dom0 and each guest, compared by MD5, beside all else."""
        for guest in self._guests:
            tcp.to_guest(guest, CHECKED_BYTES)
            tcp.from_guest(guest, CHECKED_BYTES)
            self._checked[guest.name] += CHECKED_BYTES

    def _result(self, guest: Guest, before: Mapping[int, Grants], after: Mapping[int, Grants]) -> GuestResult:
        domid = guest.domid()
        if domid is None:
            raise LabError(
                f"guest {guest.name} is gone after the load",
                hint=lab_command(self._lab.folder, "run -- xl dmesg"),
            )
        said = guest.run(f"uname -r; cd -P /sys/block/{load.DEVICE}/device/..; cat transport memory_access")
        kernel, transport, access = said.output.split()
        return GuestResult(
            name=guest.name,
            type=guest.config.type,
            kernel=kernel,
            transport=transport,
            memory_access=access,
            disk=load.disk_load(guest),
            image_matches=_md5_in_guest(guest) == _md5_in_dom0(self._lab, guest),
            tcp=load.tcp_load(guest),
            tcp_checked=self._checked[guest.name],
            messages=messages.kernel_messages(guest.run(AFTER_MARK, timeout=120).output),
            grants=(before[domid].active, after[domid].active),
            grant_frames=(before[domid].frames, after[domid].frames),
        )


def _md5_in_guest(guest: Guest) -> str:
    command = f"dd if=/dev/{load.DEVICE} bs=1M iflag=direct 2>/dev/null | md5sum"
    return guest.run(command, timeout=180).output.split()[0]


def _md5_in_dom0(lab: Lab, guest: Guest) -> str:
    return lab.run(["md5sum", guest.config.disks[0].path], timeout=180).check().stdout.split()[0]
