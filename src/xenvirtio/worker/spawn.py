"""Worker processes: forked from the supervisor, whose imports they share, and cleaned before they do
anything.

A worker keeps stdin, stdout, stderr and its end of the control socket; every other descriptor is closed,
signals are the default ones, and the XenStore handle is forgotten without a word to xenstored. Its name,
in ps and pkill, is xenvirtio-DOMID.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from xenvirtio.errors import XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.worker.connection import Guest

logger = logging.getLogger(__name__)


#: asm-generic/socket.h; Python has no name for it
SO_SNDBUFFORCE = 32
#: bytes of orders on their way: those for all devices of a guest, with the longest paths, go at once
CONTROL_BYTES = 4 << 20


class WorkerProcess(Protocol):
    """A worker, as the supervisor sees it."""

    pid: int
    control: socket.socket

    def fileno(self) -> int:
        """Readable when the worker has ended."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...

    def reap(self) -> str:
        """How it ended, in words; after `fileno` became readable. Closes everything."""
        ...


class ForkedWorker:
    """A `WorkerProcess` that is a process."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid, self.control = pid, control
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._pidfd

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reap(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self.control.close()
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


def fork_worker(
    guest: Guest, life: Callable[[Guest, socket.socket], None], before: Callable[[], None]
) -> ForkedWorker:
    """Forks a worker that runs `life(guest, control)`; `before` runs first in the child. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        with contextlib.suppress(PermissionError):  # only root may have more than net.core.wmem_max
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, CONTROL_BYTES)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _child(guest, theirs, life, before)
    theirs.close()
    return ForkedWorker(pid, ours)


def _child(
    guest: Guest,
    control: socket.socket,
    life: Callable[[Guest, socket.socket], None],
    before: Callable[[], None],
) -> None:
    """Never returns: whatever happens, the supervisor's code must not run twice."""
    status = 1
    try:
        before()
        _clean(control.fileno())
        Path("/proc/self/comm").write_text(f"xenvirtio-{guest.domid}")  # at most 15 bytes: proc(5)
        life(guest, control)
        status = 0
    except XenvirtioError as error:
        logger.critical("worker of %s (%d): %s", guest.name, guest.domid, error.message)
    except BaseException:
        logger.critical("worker of %s (%d): %s", guest.name, guest.domid, traceback.format_exc())
    finally:
        os._exit(status)


def _clean(keep: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C on the supervisor's terminal: it tells us itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != keep:
            with contextlib.suppress(OSError):
                os.close(fd)
