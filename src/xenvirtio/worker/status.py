"""What the daemon tells about itself: a UNIX socket that answers every connection with one JSON object.

    {"pid": 812, "domid": 0, "watch_events": 40, "guests": [{"domid": 5, "name": "web", "worker": 830,
     "restarts": 0, "events": {…}, "devices": [{"devid": 51712, "phase": "connected",
     "memory_access": "grant", "status": 15, "counters": {…}, "memory": {"grants_copied": 64, …}, …,
     "at": 5021.3, "age": 812.0, "recent": {"seconds": 7.3, "counters": {"reads": 12, …}, …}}]}]}

`at` is when the worker counted (seconds, time.monotonic() of this machine), `age` for how long it has;
`recent` is what it counted in its last seconds. Nothing can be changed through it. Only root can connect.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import TimeLimit, UsageError, XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenvirtio.worker.loop import Loop

RUN_DIRECTORY = Path("/run/xenvirtio")
SOCKET = "daemon.sock"

#: connections that wait for the workers' reports
CLIENTS_MAX = 16
#: seconds that a slow reader may hold the supervisor up
SEND_SECONDS = 0.2
#: seconds and bytes that `query` takes
QUERY_SECONDS = 5.0
QUERY_BYTES = 64 * 1024 * 1024


class StatusServer:
    """Listens on `daemon.sock` in the run directory until `close`."""

    def __init__(
        self,
        loop: Loop,
        directory: Path,
        collect: Callable[[Callable[[dict[str, Any]], None]], None],
    ) -> None:
        """Raises UsageError if the socket cannot be made."""
        self._loop, self._collect = loop, collect
        self._path = directory / SOCKET
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
        except OSError as error:
            self._listener.close()
            words = f"{self._path} cannot be listened at: {error.strerror or error}"
            raise UsageError(words, "--run-dir names another folder") from error
        finally:
            os.umask(mask)
        self._listener.listen(CLIENTS_MAX)
        self._listener.setblocking(False)
        self._clients = 0
        loop.add(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        if self._clients >= CLIENTS_MAX:
            client.close()
            return
        self._clients += 1

        def answer(report: dict[str, Any]) -> None:
            self._clients -= 1
            with client, contextlib.suppress(OSError):
                client.settimeout(SEND_SECONDS)
                client.sendall(json.dumps({"pid": os.getpid(), **report}).encode())

        self._collect(answer)

    def close(self) -> None:
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)


def query(directory: Path = RUN_DIRECTORY) -> dict[str, Any]:
    """The daemon's answer. Raises XenvirtioError if it does not run, TimeLimit if it does not answer."""
    path = directory / SOCKET
    end = time.monotonic() + QUERY_SECONDS
    data = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(QUERY_SECONDS)
            connection.connect(str(path))
            while len(data) < QUERY_BYTES:
                connection.settimeout(max(0.01, end - time.monotonic()))
                part = connection.recv(1 << 16)
                if not part:
                    break
                data += part
        except TimeoutError:
            raise TimeLimit(f"the daemon did not answer on {path} within {QUERY_SECONDS:.0f} s") from None
        except OSError as error:
            raise XenvirtioError(
                f"the daemon cannot be asked: {path}: {error.strerror}", "xenvirtio daemon"
            ) from error
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise XenvirtioError(f"the daemon broke off its answer on {path}", "xenvirtio list") from error
    return answer


def daemon_runs(directory: Path = RUN_DIRECTORY) -> bool:
    """True if a daemon listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(QUERY_SECONDS)
        try:
            connection.connect(str(directory / SOCKET))
        except OSError:
            return False
    return True


def counters(directory: Path = RUN_DIRECTORY) -> Mapping[tuple[int, int], Mapping[str, Any]]:
    """What the daemon tells about each device, by (domid, devid); nothing if it does not run."""
    try:
        report = query(directory)
    except XenvirtioError:
        return {}
    return {
        (guest["domid"], device["devid"]): device for guest in report["guests"] for device in guest["devices"]
    }
