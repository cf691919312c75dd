"""A small synchronous client for QEMU's machine protocol (docs/interop/qmp-spec.rst).

The lab asks QEMU for two things in its life (save a snapshot, how are you); the asyncio package
`qemu.qmp` would bring an event loop into code that has none.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self

from xenvirtio.errors import LabError, LabLost, TimeLimit
from xenvirtio.lab.paths import lab_command
from xenvirtio.lab.sockets import connect

if TYPE_CHECKING:
    from pathlib import Path


class Monitor:
    """A connection to QEMU's monitor socket; a context manager."""

    def __init__(self, folder: Path, name: str = "qmp", limit: float = 10.0) -> None:
        """Connects and negotiates; raises LabLost if QEMU is not there, TimeLimit after `limit` seconds."""
        self._deadline = time.monotonic() + limit
        self._hint = lab_command(folder, "log")
        self._socket = connect(folder, name)
        self._rest = b""
        try:
            self._read()  # the greeting
            self.execute("qmp_capabilities", limit=limit)
        except BaseException:
            self._socket.close()
            raise

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, limit: float) -> Any:
        """Runs one command and returns what it returned; raises LabError if QEMU refuses."""
        self._deadline = time.monotonic() + limit
        request = json.dumps({"execute": command, "arguments": arguments or {}}) + "\n"
        try:
            self._socket.sendall(request.encode())
        except OSError as error:
            raise LabLost(f"QEMU went away before {command}: {error}") from error
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise LabError(f"QEMU refuses {command}: {answer['error'].get('desc')}")

    def human(self, line: str, *, limit: float) -> str:
        """Runs a command of the human monitor; raises LabError if it prints an error."""
        text = str(self.execute("human-monitor-command", {"command-line": line}, limit=limit)).strip()
        if text.lower().startswith("error"):
            raise LabError(f"QEMU: {line}: {text}")
        return text

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeLimit("QEMU's monitor did not answer in time", self._hint)
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                raise LabLost(f"QEMU's monitor: {error}") from error
            if not data:
                raise LabLost("QEMU ended while its monitor was asked", self._hint)
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise LabError(f"QEMU's monitor said {line[:80]!r}")
        return answer

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
