"""Xen's shared libraries, opened when first used (cffi, ABI mode: no compiler, no Xen headers needed).

A library or device node that is missing is a MissingDependency which names the package or the command.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import Any

import cffi

from xenvirtio.errors import MissingDependency, XenError
from xenvirtio.spec.host import LIBRARIES, NODES


class Library:
    """One of Xen's libraries with the declarations that are used of it."""

    def __init__(self, soname: str, declarations: str, package: str | None = None) -> None:
        self.ffi = cffi.FFI()
        self.ffi.cdef(declarations)
        try:
            self.calls: Any = self.ffi.dlopen(soname)
        except OSError as error:
            hint = f"apt-get install {package or LIBRARIES[soname]}"
            raise MissingDependency(f"{soname} cannot be loaded: {error}", hint) from error

    def text(self, pointer: Any) -> str:
        """The C string at `pointer`."""
        found = self.ffi.string(pointer)
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else found

    def error(self, what: str, hint: str | None = None) -> XenError:
        """The XenError for a call that has just failed, from errno."""
        number = self.ffi.errno
        return XenError(f"{what}: {os.strerror(number)}", number, hint)

    def open_error(self, what: str, node: str) -> XenError | MissingDependency:
        """The error for a handle that could not be opened on the device `node`."""
        number = self.ffi.errno
        if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            return MissingDependency(f"{what}: {node} is not there", f"modprobe {NODES[node]}")
        hint = "run it as root" if number in (errno.EACCES, errno.EPERM) else None
        return XenError(f"{what}: {node}: {os.strerror(number)}", number, hint)


@cache
def load(soname: str, declarations: str, package: str | None = None) -> Library:
    """The library, parsed and opened once a process: forked workers have what their supervisor has loaded.

    `package` is Debian's, where spec/host.py does not name it.
    """
    return Library(soname, declarations, package)
