"""XenStore by libxenstore (xen/tools/include/xenstore.h; docs/misc/xenstore.txt).

Calls wait for xenstored's answer: a xenstored that hangs hangs its clients, this one too.
libxenstore starts a thread of its own with the first watch; a forked child calls `forget()` and nothing else.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Self, TypeVar

from xenvirtio.errors import MissingDependency, XenError
from xenvirtio.xen.interfaces import PAYLOAD_MAX
from xenvirtio.xen.library import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenvirtio.xen.interfaces import View
    from xenvirtio.xen.library import Library

T = TypeVar("T")

DECLARATIONS = """
struct xs_permissions { unsigned int id; unsigned int perms; };
struct xs_handle *xs_open(unsigned long flags);
void xs_close(struct xs_handle *h);
void xs_daemon_destroy_postfork(struct xs_handle *h);
void *xs_read(struct xs_handle *h, uint32_t t, const char *path, unsigned int *len);
bool xs_write(struct xs_handle *h, uint32_t t, const char *path, const void *data, unsigned int len);
char **xs_directory(struct xs_handle *h, uint32_t t, const char *path, unsigned int *num);
bool xs_mkdir(struct xs_handle *h, uint32_t t, const char *path);
bool xs_rm(struct xs_handle *h, uint32_t t, const char *path);
struct xs_permissions *xs_get_permissions(struct xs_handle *h, uint32_t t, const char *path,
                                          unsigned int *num);
bool xs_set_permissions(struct xs_handle *h, uint32_t t, const char *path,
                        struct xs_permissions *perms, unsigned int num_perms);
uint32_t xs_transaction_start(struct xs_handle *h);
bool xs_transaction_end(struct xs_handle *h, uint32_t t, bool abort);
bool xs_watch(struct xs_handle *h, const char *path, const char *token);
bool xs_unwatch(struct xs_handle *h, const char *path, const char *token);
char **xs_check_watch(struct xs_handle *h);
int xs_fileno(struct xs_handle *h);
bool xs_introduce_domain(struct xs_handle *h, unsigned int domid, unsigned long mfn, unsigned int eventchn);
bool xs_is_domain_introduced(struct xs_handle *h, unsigned int domid);
void free(void *p);
"""

#: xs_open: events of a watch that was removed are not delivered any more
XS_UNWATCH_FILTER = 1 << 2

#: letters of SET_PERMS ↔ XS_PERM_* (xenstore_lib.h)
LETTERS = {"n": 0, "r": 1, "w": 2, "b": 3}


class Nodes:
    """XenStore outside (transaction 0) or inside a transaction; a `View`."""

    def __init__(self, library: Library, handle: Any, transaction: int = 0) -> None:
        self._library, self._handle, self._transaction = library, handle, transaction

    def _failed(self, what: str, path: str) -> XenError:
        hint = None
        if self._library.ffi.errno == errno.ENOSPC:
            hint = f"{path}: the domain's XenStore quota is used up; remove nodes that nobody needs"
        return self._library.error(f"XenStore: {what} {path}", hint)

    def read(self, path: str) -> str | None:
        length = self._library.ffi.new("unsigned int *")
        value = self._library.calls.xs_read(self._handle, self._transaction, path.encode(), length)
        if value == self._library.ffi.NULL:
            if self._library.ffi.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise self._failed("cannot read", path)
        try:
            data: bytes = self._library.ffi.buffer(value, min(length[0], PAYLOAD_MAX))[:]
        finally:
            self._library.calls.free(value)
        return data.decode("utf-8", "replace")

    def write(self, path: str, value: str) -> None:
        data = value.encode()
        if not self._library.calls.xs_write(self._handle, self._transaction, path.encode(), data, len(data)):
            raise self._failed("cannot write", path)

    def names(self, path: str) -> list[str] | None:
        count = self._library.ffi.new("unsigned int *")
        names = self._library.calls.xs_directory(self._handle, self._transaction, path.encode(), count)
        if names == self._library.ffi.NULL:
            if self._library.ffi.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise self._failed("cannot list", path)
        try:
            return [self._library.text(names[i]) for i in range(count[0])]
        finally:
            self._library.calls.free(names)

    def mkdir(self, path: str) -> None:
        if not self._library.calls.xs_mkdir(self._handle, self._transaction, path.encode()):
            raise self._failed("cannot make", path)

    def remove(self, path: str) -> bool:
        if self._library.calls.xs_rm(self._handle, self._transaction, path.encode()):
            return True
        if self._library.ffi.errno == errno.ENOENT:
            return False
        raise self._failed("cannot remove", path)

    def permissions(self, path: str) -> list[str] | None:
        count = self._library.ffi.new("unsigned int *")
        found = self._library.calls.xs_get_permissions(self._handle, self._transaction, path.encode(), count)
        if found == self._library.ffi.NULL:
            if self._library.ffi.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise self._failed("cannot read the permissions of", path)
        try:
            letters = {number: letter for letter, number in LETTERS.items()}
            return [f"{letters[found[i].perms & 3]}{found[i].id}" for i in range(count[0])]
        finally:
            self._library.calls.free(found)

    def set_permissions(self, path: str, permissions: Sequence[str]) -> None:
        entries = self._library.ffi.new("struct xs_permissions[]", len(permissions))
        for entry, text in zip(entries, permissions, strict=True):
            entry.perms, entry.id = LETTERS[text[0]], int(text[1:])
        if not self._library.calls.xs_set_permissions(
            self._handle, self._transaction, path.encode(), entries, len(permissions)
        ):
            raise self._failed("cannot set the permissions of", path)


class XenStore(Nodes):
    """One connection to XenStore, a `Store`. A context manager."""

    def __init__(self) -> None:
        library = load("libxenstore.so.4", DECLARATIONS)
        handle = library.calls.xs_open(XS_UNWATCH_FILTER)
        if handle == library.ffi.NULL:
            number = library.ffi.errno
            if number == errno.EACCES:
                raise XenError("XenStore cannot be reached: permission denied", number, "run it as root")
            raise MissingDependency(
                f"XenStore cannot be reached: {os.strerror(number)}",
                "is this dom0 or a driver domain, and is xenstored running? xl list tells",
            )
        super().__init__(library, handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def transact(self, body: Callable[[View], T], attempts: int = 16) -> T:
        for _ in range(attempts):
            number = self._library.calls.xs_transaction_start(self._handle)
            if not number:
                raise self._library.error("XenStore: cannot start a transaction")
            try:
                result = body(Nodes(self._library, self._handle, number))
            except BaseException:
                self._library.calls.xs_transaction_end(self._handle, number, True)
                raise
            if self._library.calls.xs_transaction_end(self._handle, number, False):
                return result
            if self._library.ffi.errno != errno.EAGAIN:
                raise self._library.error("XenStore: cannot end a transaction")
        raise XenError(
            f"XenStore: a transaction met others {attempts} times", errno.EAGAIN, "try it again in a moment"
        )

    def watch(self, path: str, token: str) -> None:
        if not self._library.calls.xs_watch(self._handle, path.encode(), token.encode()):
            raise self._failed("cannot watch", path)

    def unwatch(self, path: str, token: str) -> None:
        if (
            not self._library.calls.xs_unwatch(self._handle, path.encode(), token.encode())
            and self._library.ffi.errno != errno.ENOENT
        ):
            raise self._failed("cannot unwatch", path)

    def events(self, limit: int = 64) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while len(found) < limit:
            vector = self._library.calls.xs_check_watch(self._handle)
            if vector == self._library.ffi.NULL:
                if self._library.ffi.errno in (errno.EAGAIN, errno.EINTR, 0):
                    break
                raise self._library.error("XenStore: cannot read watch events")
            try:
                found.append((self._library.text(vector[0]), self._library.text(vector[1])))
            finally:
                self._library.calls.free(vector)
        return found

    def fileno(self) -> int:
        return int(self._library.calls.xs_fileno(self._handle))

    def domain_exists(self, domid: int) -> bool:
        self._library.ffi.errno = 0  # the call answers false for "no" as for "cannot say"
        there = bool(self._library.calls.xs_is_domain_introduced(self._handle, domid))
        if not there and self._library.ffi.errno:
            raise self._library.error(f"XenStore: cannot say whether domain {domid} is there")
        return there

    def introduce(self, domid: int, frame: int, port: int) -> None:
        if not self._library.calls.xs_introduce_domain(self._handle, domid, frame, port):
            raise self._library.error(f"XenStore: domain {domid} cannot be introduced")

    def forget(self) -> None:
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xs_daemon_destroy_postfork(self._handle)
            self._handle = self._library.ffi.NULL

    def close(self) -> None:
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xs_close(self._handle)
            self._handle = self._library.ffi.NULL
