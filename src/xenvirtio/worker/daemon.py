"""The daemon: one supervisor a XenStore domain, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from xenvirtio.device.factory import make_device
from xenvirtio.errors import UsageError
from xenvirtio.worker.log import start_logging
from xenvirtio.worker.loop import Loop
from xenvirtio.worker.main import serve
from xenvirtio.worker.spawn import fork_worker
from xenvirtio.worker.status import RUN_DIRECTORY, StatusServer
from xenvirtio.worker.supervisor import Supervisor
from xenvirtio.xen.evtchn import XenEventChannels
from xenvirtio.xen.gnttab import XenGrantTable
from xenvirtio.xen.store import XenStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


logger = logging.getLogger(__name__)


def run_daemon(directory: Path = RUN_DIRECTORY, level: str = "info") -> None:
    """Serves until it is told to stop.

    Raises UsageError if another daemon runs, MissingDependency or XenError if Xen cannot be reached.
    """
    start_logging(level)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_daemon(directory))
        _check_xen()
        store = stack.enter_context(XenStore())
        loop = stack.enter_context(Loop())
        life = functools.partial(serve, make_device=make_device)
        supervisor = Supervisor(store, loop, lambda guest: fork_worker(guest, life, store.forget), directory)
        stack.enter_context(stopped_by_signals(loop, supervisor.stop))
        status = StatusServer(loop, directory, supervisor.collect)
        stack.callback(status.close)
        supervisor.start()
        tell_systemd("READY=1")
        logger.info("serving the virtio devices of domain %d", supervisor.own)
        loop.run()
        tell_systemd("STOPPING=1")
        logger.info("stopped; guests that are connected wait for the next daemon")


def _check_xen() -> None:
    """What a worker will need is there: better said now than to the first guest."""
    with XenGrantTable(), XenEventChannels():
        pass


@contextlib.contextmanager
def only_daemon(directory: Path) -> Iterator[None]:
    """Holds the lock `daemon.lock`; makes the run directory. Raises UsageError if that cannot be, or another
    daemon holds it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise UsageError(f"{error.filename}: permission denied", "run it as root") from error
    except OSError as error:
        words = f"{directory} cannot be the run directory: {error.strerror}"
        raise UsageError(words, "--run-dir names another") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(lock, 16, 0).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"a daemon runs already (process {other}, {directory}/daemon.lock)",
                f"xenvirtio list, or stop it: kill {other}",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def stopped_by_signals(loop: Loop, stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop` from the loop."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def woken() -> None:
        reader.recv(64)
        stop()

    before = {number: signal.signal(number, _nothing) for number in (signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    loop.add(reader.fileno(), woken)
    try:
        yield
    finally:
        loop.remove(reader.fileno())
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _nothing(*_: object) -> None:
    """The byte in the wake-up socket is what counts."""


def tell_systemd(message: str) -> None:
    """sd_notify(3), if there is anybody to tell."""
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        try:
            end.sendto(message.encode(), address)
        except OSError as error:
            logger.warning("systemd cannot be told %s: %s", message, error)
