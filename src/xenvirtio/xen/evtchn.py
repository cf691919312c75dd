"""Event channels by libxenevtchn (xen/tools/include/xenevtchn.h; Linux drivers/xen/evtchn.c)."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Self

from xenvirtio.errors import XenError
from xenvirtio.xen.library import load

DECLARATIONS = """
typedef struct xenevtchn_handle xenevtchn_handle;
xenevtchn_handle *xenevtchn_open(void *logger, unsigned int flags);
int xenevtchn_close(xenevtchn_handle *xce);
int xenevtchn_fd(xenevtchn_handle *xce);
int xenevtchn_notify(xenevtchn_handle *xce, uint32_t port);
int xenevtchn_bind_unbound_port(xenevtchn_handle *xce, uint32_t domid);
int xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, uint32_t remote_port);
int xenevtchn_unbind(xenevtchn_handle *xce, uint32_t port);
int xenevtchn_pending(xenevtchn_handle *xce);
int xenevtchn_unmask(xenevtchn_handle *xce, uint32_t port);
"""


class XenEventChannels:
    """One handle on /dev/xen/evtchn, an `EventChannels` and a context manager; closing unbinds all."""

    def __init__(self) -> None:
        self._library = load("libxenevtchn.so.1", DECLARATIONS)
        self._handle = self._library.calls.xenevtchn_open(self._library.ffi.NULL, 0)
        if self._handle == self._library.ffi.NULL:
            raise self._library.open_error("event channels", "/dev/xen/evtchn")
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, flags | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _checked(self, result: int, what: str, hint: str | None = None) -> int:
        if result < 0:
            raise self._library.error(f"event channel: {what}", hint)
        return result

    def bind(self, domid: int, remote_port: int) -> int:
        """Raises XenError: EINVAL if the port is not unbound for this domain, ESRCH if that domain is not."""
        port = self._library.calls.xenevtchn_bind_interdomain(self._handle, domid, remote_port)
        return self._checked(port, f"cannot bind port {remote_port} of domain {domid}")

    def offer(self, domid: int) -> int:
        """A new port of ours which `domid` may bind: what a frontend does."""
        port = self._library.calls.xenevtchn_bind_unbound_port(self._handle, domid)
        return self._checked(port, f"cannot make a port for domain {domid}")

    def notify(self, port: int) -> None:
        self._checked(self._library.calls.xenevtchn_notify(self._handle, port), f"cannot notify port {port}")

    def pending(self) -> int | None:
        port: int = self._library.calls.xenevtchn_pending(self._handle)
        if port < 0:
            if self._library.ffi.errno in (errno.EAGAIN, errno.EINTR):
                return None
            raise XenError("event channel: too many events were lost", self._library.ffi.errno)
        return port

    def unmask(self, port: int) -> None:
        self._checked(self._library.calls.xenevtchn_unmask(self._handle, port), f"cannot unmask port {port}")

    def unbind(self, port: int) -> None:
        self._checked(self._library.calls.xenevtchn_unbind(self._handle, port), f"cannot unbind port {port}")

    def fileno(self) -> int:
        return int(self._library.calls.xenevtchn_fd(self._handle))

    def close(self) -> None:
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xenevtchn_close(self._handle)
            self._handle = self._library.ffi.NULL
