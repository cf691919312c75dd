"""The host's way to a guest's console: one console.py in dom0 that serves many commands.

A Python starts in an emulated dom0 in half a second or more, a guest's command runs in a tenth of that:
so it is started once a guest.
"""

from __future__ import annotations

import binascii
import json
import os
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xenvirtio.errors import LabError, TimeLimit, XenvirtioError
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.guest.config import FOLDER

if TYPE_CHECKING:
    from xenvirtio.lab.lab import Lab

#: seconds that a channel may be open at all
LIFETIME = 3600.0
#: seconds for the console to be opened and the guest to answer the first time; console.py's own limit is 240
READY_LIMIT = 255.0
#: seconds beyond console.py's own limits before it is given up
GRACE = 30.0
#: characters of the console's other text that are kept
TEXT_KEPT = 200_000


class GuestGone(LabError):
    """The guest ended while something was asked of it."""


@dataclass(frozen=True)
class Answer:
    """A command that ran to its end in a guest; stdout and stderr come as one."""

    command: str
    status: int
    output: str
    seconds: float

    def check(self) -> Self:
        """Itself, if the command succeeded; raises LabError otherwise."""
        if self.status != 0:
            said = self.output.strip()[-800:]
            raise LabError(f"in the guest, {self.command!r} ended with status {self.status}: {said}")
        return self


class Channel:
    """An open console of one guest. Not for several threads at once."""

    def __init__(self, lab: Lab, guest: str) -> None:
        """Starts console.py in dom0; `wait_ready` comes next."""
        self._lab, self.guest = lab, guest
        self._messages: queue.SimpleQueue[dict[str, Any] | XenvirtioError] = queue.SimpleQueue()
        self._partial = b""
        self._errors = b""
        self.text = ""
        reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._follow, args=(reading,), daemon=True)
        self._thread.start()

    def wait_ready(self) -> float:
        """Seconds that the guest took to answer; raises GuestGone, TimeLimit, LabLost."""
        return float(self._next(READY_LIMIT, f"guest {self.guest}'s console to answer after boot")["ready"])

    def run(self, command: str, limit: float) -> Answer:
        """Runs a shell command in the guest; `limit` in seconds. Raises GuestGone, TimeLimit, LabLost."""
        start = time.monotonic()
        self.send(command, limit)
        message = self._next(limit + GRACE, f"guest {self.guest}'s answer to {command[:80]!r}")
        seconds = time.monotonic() - start
        status, output = int(message["status"]), binascii.a2b_base64(message["output"])
        # `timeout -s KILL` in the guest's agent
        if status == 137 and seconds >= limit:
            raise TimeLimit(f"in guest {self.guest}, {command[:80]!r} did not end within {limit:.0f} s")
        return Answer(command, status, output.decode(errors="replace"), seconds)

    def send(self, command: str, limit: float) -> None:
        """Sends a command without waiting for its answer: one that ends the guest, or outlives it."""
        request = json.dumps({"command": command, "limit": limit}) + "\n"
        try:
            os.write(self._writing, request.encode())
        except OSError:
            raise self._why_closed() from None

    def close(self) -> None:
        """Ends console.py; the console is free then."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
            self._thread.join(timeout=GRACE)

    def _next(self, limit: float, what: str) -> dict[str, Any]:
        try:
            message = self._messages.get(timeout=limit)
        except queue.Empty:
            raise TimeLimit(f"waited {limit:.0f} s in vain for {what}", hint=self._hint()) from None
        if isinstance(message, XenvirtioError):
            raise message
        if "error" in message:
            kind = GuestGone if message["kind"] == "gone" else TimeLimit
            raise kind(f"guest {self.guest}: {message['error']}", hint=self._hint())
        return message

    def _hint(self) -> str:
        last = self.text.strip().splitlines()[-3:]
        return f"its console said last: {' | '.join(last)}" if last else "its console said nothing"

    def _why_closed(self) -> XenvirtioError:
        return GuestGone(f"guest {self.guest}'s console is closed", hint=self._hint())

    def _follow(self, reading: int) -> None:
        """The thread: runs console.py to its end; every way out leaves a message."""
        command = ["python3", "-I", "-S", f"{FOLDER}/console.py", "--serve", self.guest]
        try:
            done = self._lab.run(command, stdin_from=reading, timeout=LIFETIME, on_output=self._received)
        except XenvirtioError as error:
            self._messages.put(error)
        else:
            said = self._errors.decode(errors="replace").strip()[-400:]
            why = f"guest {self.guest}'s console was closed (status {done.returncode}) {said}".strip()
            self._messages.put(GuestGone(why, hint=self._hint()))
        finally:
            os.close(reading)

    def _received(self, kind: Kind, data: bytes) -> None:
        if kind != Kind.STDOUT:
            self._errors += data
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "text" in message:
                self.text = (self.text + message["text"] + "\n")[-TEXT_KEPT:]
            else:
                self._messages.put(message)
