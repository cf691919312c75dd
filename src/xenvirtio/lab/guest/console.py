r"""Runs commands in a lab guest over its Xen console; this is dom0's end.

    console.py GUEST -- COMMAND…     one command; its output, and its exit status as ours
    console.py --serve GUEST         many: JSON lines on stdin and stdout (below)

GUEST is a name or a domain's number. On the console, which kernel messages may cut through:

    to the guest     xv? ID LIMIT BASE64            a shell command; it is killed after LIMIT seconds
    from the guest   xv! ID NUMBER BASE64           the output's lines, from 1
                     xv! ID end STATUS LINES MD5

The same ID again is not a new command: the guest gives the answer once more. That is how a damaged answer is
mended, and how the wait for a guest that still boots works. On stdin and stdout:

    {"command": "…", "limit": 30}    →  {"status": 0, "output": "<base64>"}
                                        or {"error": "…", "kind": "limit" or "gone"}
    (when the guest answers first)   →  {"ready": seconds}
    (all other text of the console)  →  {"text": "…"}

Standard library only, and little of it: it also runs as a plain file (`python3 -I -S`), which starts in half
the time in an emulated dom0.
"""

from __future__ import annotations

import binascii
import fcntl
import hashlib
import json
import os
import select
import sys
import termios
import time
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: seconds for the guest's first answer after it was started
READY_LIMIT = 240.0
#: seconds that an answer may take beyond its command's own limit
ANSWER_GRACE = 15.0
#: seconds after which the wait for a booting guest asks again
ASK_AGAIN = 1.0
#: exit statuses of ours, beside the command's
STATUS_LIMIT = 124
STATUS_GONE = 125
_MARK = "xv! "
_ENDED = "the guest's console is gone: the guest has ended"


class ConsoleGone(Exception):
    """The guest ended, or its console is taken."""


class ConsoleLimit(Exception):
    """The guest did not answer in time."""


class Console:
    """A guest's console, held alone; a context manager."""

    def __init__(self, terminal: str, on_text: Callable[[str], None]) -> None:
        """Opens the pty that xenconsoled serves; raises ConsoleGone if that cannot be or another has it."""
        try:
            self._fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise ConsoleGone(f"cannot open the guest's console {terminal}: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise ConsoleGone("the guest's console is in use by another command") from None
        tty.setraw(self._fd, termios.TCSANOW)  # what the guest has said already stays
        self._on_text = on_text
        self._rest = b""
        # IDs are of this process, so that answers to one that was killed are not taken for ours.
        self._prefix = f"{os.getpid():x}.{int(time.time() * 1000):x}"
        self._count = 0

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, limit: float = READY_LIMIT) -> float:
        """Seconds until the guest answered; raises ConsoleLimit, ConsoleGone."""
        start = time.monotonic()
        self._ask(":", 5, start + limit, "the guest's console to answer after boot", ASK_AGAIN)
        return time.monotonic() - start

    def run(self, command: str, limit: float) -> tuple[int, bytes]:
        """Exit status (137: killed after `limit` seconds) and output; raises ConsoleLimit, ConsoleGone."""
        shown = command if len(command) < 60 else f"{command[:57]}…"
        deadline = time.monotonic() + limit + ANSWER_GRACE
        return self._ask(command, limit, deadline, f"the guest's answer to {shown!r}", None)

    def drain(self) -> None:
        """Takes what the guest prints by itself."""
        for line in self._lines(0):
            self._on_text(line)

    def _ask(
        self, command: str, limit: float, deadline: float, what: str, again: float | None
    ) -> tuple[int, bytes]:
        self._count += 1
        name = f"{self._prefix}.{self._count}"
        code = binascii.b2a_base64(command.encode(), newline=False).decode()
        request = f"\nxv? {name} {max(1, round(limit))} {code}\n".encode()
        lines: dict[int, str] = {}
        start = time.monotonic()
        self._send(request, deadline, what)
        asked = start
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise ConsoleLimit(f"waited {now - start:.0f} s in vain for {what}")
            if again is not None and now - asked >= again:
                self._send(request, deadline, what)
                asked = now
            for line in self._lines(min(deadline - now, again or 5.0)):
                fields = line[len(_MARK) :].split(" ") if line.startswith(_MARK) else []
                if not fields or fields[0] != name:
                    if not fields:
                        self._on_text(line)
                elif len(fields) == 3 and fields[1].isdigit():
                    lines[int(fields[1])] = fields[2]
                elif len(fields) == 5 and fields[1] == "end":
                    output = _assemble(lines, fields[3], fields[4])
                    if output is not None and fields[2].isdigit():
                        return int(fields[2]), output
                    lines.clear()
                    self._send(request, deadline, what)

    def _send(self, data: bytes, deadline: float, what: str) -> None:
        while data:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self._fd], [], left)[1]:
                raise ConsoleLimit(f"the guest takes no input: waited for {what}")
            # small pieces: a pty's buffer is one page, and a write to a full one would block
            try:
                data = data[os.write(self._fd, data[:512]) :]
            except OSError:
                raise ConsoleGone(_ENDED) from None

    def _lines(self, wait: float) -> list[str]:
        """Complete lines that came within `wait` seconds; raises ConsoleGone."""
        if not select.select([self._fd], [], [], wait)[0]:
            return []
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            data = b""
        if not data:
            raise ConsoleGone(_ENDED)
        *complete, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace").strip("\r") for line in complete]


def _assemble(lines: dict[int, str], count: str, md5: str) -> bytes | None:
    """The output, or None if it was damaged on the way."""
    try:
        output = b"".join(binascii.a2b_base64(lines[number + 1]) for number in range(int(count)))
    except (KeyError, ValueError):
        return None
    return output if hashlib.md5(output, usedforsecurity=False).hexdigest() == md5 else None


def terminal_of(guest: str) -> str:
    """The console's pty of a guest, by name or domain number; raises ConsoleGone."""
    import subprocess

    domid = guest
    if not guest.isdigit():
        found = subprocess.run(
            ["xl", "domid", guest], capture_output=True, text=True, check=False, timeout=20
        )
        if found.returncode:
            raise ConsoleGone(f"there is no guest {guest}")
        domid = found.stdout.strip()
    path = f"/local/domain/{domid}/console/tty"
    done = subprocess.run(["xenstore-read", path], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise ConsoleGone(f"guest {guest} has no console: nothing at {path}")
    return done.stdout.strip()


def serve(guest: str, limit: float) -> int:
    """Answers requests on stdin until its end."""

    def say(**message: object) -> None:
        print(json.dumps(message), flush=True)

    try:
        with Console(terminal_of(guest), lambda text: say(text=text)) as console:
            say(ready=console.wait_ready(limit))
            pending = b""
            while True:
                ready = select.select([0, console.fileno()], [], [])[0]
                if console.fileno() in ready:
                    console.drain()
                if 0 not in ready:
                    continue
                data = os.read(0, 65536)
                if not data:
                    return 0
                *requests, pending = (pending + data).split(b"\n")
                for request in requests:
                    wanted = json.loads(request)
                    try:
                        status, output = console.run(wanted["command"], wanted["limit"])
                    except ConsoleLimit as error:
                        say(error=str(error), kind="limit")
                    else:
                        say(status=status, output=binascii.b2a_base64(output, newline=False).decode())
    except ConsoleGone as error:
        say(error=str(error), kind="gone")
        return STATUS_GONE
    except ConsoleLimit as error:
        say(error=str(error), kind="limit")
        return STATUS_LIMIT


def once(guest: str, command: str, limit: float) -> int:
    """Runs one command; its output goes to stdout, the console's other text to stderr."""
    try:
        with Console(terminal_of(guest), lambda text: print(text, file=sys.stderr)) as console:
            console.wait_ready()
            status, output = console.run(command, limit)
    except (ConsoleGone, ConsoleLimit) as error:
        print(f"error: {error}", file=sys.stderr)
        return STATUS_LIMIT if isinstance(error, ConsoleLimit) else STATUS_GONE
    sys.stdout.buffer.write(output)
    sys.stdout.flush()
    return status


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    if len(arguments) == 2 and arguments[0] == "--serve":
        return serve(arguments[1], READY_LIMIT)
    if len(arguments) >= 3 and arguments[1] == "--":
        return once(arguments[0], " ".join(arguments[2:]), 60.0)
    print("usage: console.py GUEST -- COMMAND… | console.py --serve GUEST", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
