"""The program xl: the few of its commands that are needed, each with a time limit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from xenvirtio.errors import MissingDependency, TimeLimit, XenError

#: seconds; building an HVM guest in an emulated machine takes more than a minute
CREATE_LIMIT = 300.0
COMMAND_LIMIT = 60.0
#: seconds that an interrupted `xl create` gets to end by itself, so that it leaves nothing half-made
INTERRUPT_LIMIT = 30.0

#: where libxl has QEMU's words: qemu-dm-<guest>.log
DEVICE_MODEL_LOGS = Path("/var/log/xen")
#: of them, shown when a guest's QEMU did not start
DEVICE_MODEL_LINES = 6

#: a line of `xl list -v` (tools/xl/xl_info.c); a name may hold spaces
LINE = re.compile(
    r"(?P<name>.*?) +(?P<domid>\d+) +(?P<memory>\d+) +(?P<vcpus>\d+) +"
    r"(?P<flags>[-r][-b][-p][-s].[-d]) +[\d.]+ (?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) +"
    r"(?P<reason>-|[0-9a-f]+)(?: .*)?"
)

#: xen/include/public/sched.h, SHUTDOWN_*
REASONS = {0: "poweroff", 1: "reboot", 2: "suspend", 3: "crash", 4: "watchdog", 5: "soft-reset"}


@dataclass(frozen=True)
class Domain:
    """A running domain, as xl lists it."""

    name: str
    domid: int
    uuid: str
    memory: int  #: MiB
    vcpus: int
    flags: str  #: like "r-----": running, blocked, paused, shut down, (its reason), dying
    reason: str | None  #: why it shut down: a value of REASONS; None while it has not

    @property
    def dying(self) -> bool:
        return self.flags[5] == "d"


@dataclass(frozen=True)
class Xl:
    """xl, found on PATH."""

    program: str

    @classmethod
    def find(cls) -> Xl:
        """Raises MissingDependency."""
        program = shutil.which("xl")
        if program is None:
            raise MissingDependency(
                "xl is not on this machine: guests are started by Xen's toolstack",
                hint="apt install xen-system-amd64 and boot Xen; without Xen hardware: xenvirtio lab up",
            )
        return cls(program)

    def domains(self) -> list[Domain]:
        """All domains, domain 0 included."""
        domains = []
        for line in self._run("list", "-v").splitlines()[1:]:
            match = LINE.fullmatch(line)
            if match is None:
                raise XenError(f"xl list -v printed what xenvirtio cannot read: {line!r}")
            number = None if match["reason"] == "-" else int(match["reason"], 16)
            reason = None if number is None else REASONS.get(number, f"reason {number}")
            domid, memory, vcpus = (int(match[key]) for key in ("domid", "memory", "vcpus"))
            domains.append(Domain(match["name"], domid, match["uuid"], memory, vcpus, match["flags"], reason))
        return domains

    def find_domain(self, uuid: str) -> Domain | None:
        """The domain with this UUID that is not dying."""
        return next((d for d in self.domains() if d.uuid == uuid and not d.dying), None)

    def create(self, config: str) -> None:
        """Build a guest, paused and unwatched, from the text of a configuration.

        Raises XenError with xl's own words. An interrupt is passed on only when xl has ended, so the guest is
        there as a whole or not at all.
        """
        import tempfile  # heavy, and not every command creates

        with tempfile.TemporaryDirectory(prefix="xenvirtio-") as folder:
            path = Path(folder, "guest.cfg")
            path.touch(mode=0o600)
            path.write_bytes(config.encode("utf-8", "surrogateescape"))
            since = time.time()
            try:
                self._run("create", str(path), "-p", "-e", "-q", limit=CREATE_LIMIT)
            except XenError as error:
                raise XenError(error.message + _device_model_words(error.message, since)) from None

    def pause(self, domid: int) -> None:
        self._run("pause", str(domid))

    def unpause(self, domid: int) -> None:
        self._run("unpause", str(domid))

    def destroy(self, domid: int) -> None:
        self._run("destroy", str(domid))

    def dump_core(self, domid: int, path: Path) -> None:
        self._run("dump-core", str(domid), str(path), limit=CREATE_LIMIT)

    def console(self, domid: int) -> subprocess.Popen[bytes]:
        """Connect this terminal to a guest's console; ends when the guest does, or by the user."""
        return subprocess.Popen([self.program, "console", str(domid)])

    def _run(self, *arguments: str, limit: float = COMMAND_LIMIT) -> str:
        """Output of a command.

        It runs in a session of its own: ctrl-C reaches this process only.
        """
        words = " ".join(("xl", *arguments[:2]))
        process = subprocess.Popen(
            [self.program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        with process:
            try:
                output, errors = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise TimeLimit(f"{words} did not end within {limit:.0f} s", hint="xl dmesg | tail") from None
            except BaseException:
                try:
                    process.communicate(timeout=INTERRUPT_LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        if process.returncode:
            said = "\n".join(f"    {line}" for line in errors.strip().splitlines()[-8:])
            raise XenError(f"{words} failed:\n{said}" if said else f"{words} failed without a word")
        return output


def _device_model_words(said: str, since: float) -> str:
    """What QEMU said last, if xl says that it failed: libxl itself does not tell why."""
    if "device model" not in said:
        return ""
    logs = [log for log in DEVICE_MODEL_LOGS.glob("qemu-dm-*.log") if log.stat().st_mtime >= since - 1]
    if not logs:
        return ""
    log = max(logs, key=lambda log: log.stat().st_mtime)
    lines = log.read_text(errors="replace").strip().splitlines()[-DEVICE_MODEL_LINES:]
    return "\n".join((f"\n{log}:", *(f"    {line}" for line in lines)))
