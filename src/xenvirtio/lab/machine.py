"""The QEMU process of one lab: started in its folder, found again by later commands, ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError, LabLost, TimeLimit
from xenvirtio.lab import qemu
from xenvirtio.lab.qmp import Monitor
from xenvirtio.lab.session import Session

if TYPE_CHECKING:
    from xenvirtio.lab.emulator import Emulator
    from xenvirtio.lab.image import Image

#: boots whose logs are kept
BOOTS_KEPT = 10
STATE = "machine.json"
#: what QEMU says that is no reason for its end
_NOISE = re.compile(r"terminating on signal|warning: TCG doesn't support requested feature")


@dataclass(frozen=True)
class Machine:
    """A started machine, as the folder remembers it."""

    pid: int
    started: (
        int  # of the process, clock ticks since the host's boot: tells it from a later one with the same pid
    )
    accelerator: str
    boot: str  # log folder, relative
    image: str
    payload: str

    @property
    def alive(self) -> bool:
        """Whether the process is still there; one that ended before we looked never was (started: 0)."""
        return self.started != 0 and _start_time(self.pid) == self.started


def prepare(folder: Path, image: Image, payload: Path) -> None:
    """Gives the folder the names that the command line uses; the disk is the caller's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (
        (qemu.XEN, image.hypervisor),
        (qemu.VMLINUZ, image.vmlinuz),
        (qemu.INITRD, image.initrd),
        (qemu.PAYLOAD, payload),
    ):
        link = folder / f".{name}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.replace(folder / name)


def start(
    folder: Path,
    name: str,
    emulator: Emulator,
    accelerator: str,
    shape: qemu.Shape,
    *,
    image: str,
    payload: str,
    restore: bool,
) -> Machine:
    """Starts QEMU in a prepared folder; it outlives us."""
    for socket in qemu.sockets():
        (folder / socket).unlink(missing_ok=True)
    boot = _new_boot(folder)
    argv = emulator.system() + qemu.arguments(name, accelerator, shape, boot, restore)
    (folder / boot / "command").write_text(f"cd {shlex.quote(str(folder))} && {shlex.join(argv)}\n")
    facts = {"qemu": emulator.version, "accelerator": accelerator, "image": image, "payload": payload}
    (folder / boot / "versions.json").write_text(json.dumps({**facts, **asdict(shape)}, indent=1))
    pid = _launch(argv, folder, folder / boot / "qemu.log")
    machine = Machine(pid, _start_time(pid), accelerator, boot, image, payload)
    (folder / STATE).write_text(json.dumps(asdict(machine)))
    return machine


def _launch(argv: list[str], folder: Path, log: Path) -> int:
    """Starts a program that outlives us and is nobody's child to wait for; returns its process id."""
    with log.open("wb") as file:
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *argv],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
            timeout=20,
            check=True,
        )
    return int(shell.stdout)


def find(folder: Path) -> Machine | None:
    """The folder's machine if it runs."""
    try:
        machine = Machine(**json.loads((folder / STATE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return machine if machine.alive else None


def qemu_of(folder: Path, machine: Machine) -> str:
    """The version of the QEMU that it runs on; "unknown" if its boot's folder is gone."""
    try:
        return str(json.loads((folder / machine.boot / "versions.json").read_text())["qemu"])
    except (FileNotFoundError, ValueError, KeyError):
        return "unknown"


def wait_for_agent(folder: Path, machine: Machine, limit: float) -> None:
    """Waits until dom0's agent answers; raises LabLost if the machine ends, TimeLimit after `limit` s."""
    boot = folder / machine.boot
    deadline = time.monotonic() + limit
    while (left := deadline - time.monotonic()) > 0:
        if not machine.alive:
            raise LabLost(
                f"QEMU ended: {why_ended(folder / machine.boot)}", hint=f"see {folder / machine.boot}"
            )
        if not (folder / qemu.port(0)).exists():
            time.sleep(0.02)
            continue
        try:
            Session(folder, limit=min(left, 2.0)).close()
            return
        except TimeLimit:
            _check_runs(folder, machine, left)
        except LabLost:
            time.sleep(0.05)
    raise TimeLimit(
        f"dom0's agent did not answer in {limit:.0f} s; the console ends with: {last_line(boot)}",
        hint=f"see {boot}",
    )


def _check_runs(folder: Path, machine: Machine, limit: float) -> None:
    """Raises LabLost if QEMU has stopped the machine for good, as it does where KVM cannot go on."""
    try:
        with Monitor(folder, limit=limit) as monitor:
            state = str(monitor.execute("query-status", limit=limit)["status"])
    except LabLost:
        return  # it ended: the caller sees
    if state in ("internal-error", "guest-panicked", "io-error", "shutdown"):
        raise LabLost(f"QEMU stopped the machine ({state}): {why_ended(folder / machine.boot)}")


def stop(machine: Machine, limit: float = 10.0) -> None:
    """Ends the machine, at first politely; nothing in it is worth a shutdown. Raises TimeLimit."""
    deadline = time.monotonic() + limit
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not machine.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(machine.pid, number)
        part = min(time.monotonic() + limit / 2, deadline)
        while machine.alive and time.monotonic() < part:
            time.sleep(0.02)
    if machine.alive:
        raise TimeLimit(f"QEMU (process {machine.pid}) did not end within {limit:.0f} s")


def why_ended(boot: Path) -> str:
    """The first words of QEMU that are no noise, or else the last ones of the console."""
    words = [
        line for line in _text(boot / "qemu.log").splitlines() if line.strip() and not _NOISE.search(line)
    ]
    if words:
        return words[0].strip()
    return f"QEMU ended without a message (killed?); the console ends with: {last_line(boot)}"


def last_line(boot: Path) -> str:
    """The last line on the console, or "nothing"."""
    lines = [line.strip() for line in _text(boot / "console.log").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _new_boot(folder: Path) -> str:
    """Makes a log folder named by the time; drops the oldest ones."""
    boots = folder / "boots"
    boots.mkdir(exist_ok=True)
    for old in sorted(boots.iterdir())[: -BOOTS_KEPT + 1]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        boot = boots / (f"{stamp}-{number}" if number else stamp)
        with contextlib.suppress(FileExistsError):
            boot.mkdir()
            return str(boot.relative_to(folder))
        number += 1
        if number > 99:
            raise LabError(f"cannot make a log folder in {boots}")


def _start_time(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat (proc(5)); 0 if there is no such process, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
