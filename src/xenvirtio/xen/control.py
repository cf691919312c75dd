"""Domains' low-level control by libxenctrl (xen/tools/include/xenctrl.h).

The library is of one Xen version, and so is its soname; the few calls here are the same in all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from xenvirtio.errors import MissingDependency
from xenvirtio.xen.library import load

DECLARATIONS = """
typedef struct xc_interface_core xc_interface;
xc_interface *xc_interface_open(void *logger, void *dombuild_logger, unsigned open_flags);
int xc_interface_close(xc_interface *xch);
int xc_domain_soft_reset(xc_interface *xch, uint32_t domid);
int xc_evtchn_alloc_unbound(xc_interface *xch, uint32_t dom, uint32_t remote_dom);
int xc_hvm_param_get(xc_interface *handle, uint32_t dom, uint32_t param, uint64_t *value);
int xc_hvm_param_set(xc_interface *handle, uint32_t dom, uint32_t param, uint64_t value);
"""

VERSION = Path("/sys/hypervisor/version")


class XenControl:
    """One handle on /dev/xen/privcmd, a `DomainControl` and a context manager."""

    def __init__(self, version: Path = VERSION) -> None:
        """Raises MissingDependency."""
        try:
            number = ".".join((version / part).read_text().strip() for part in ("major", "minor"))
        except OSError as error:
            raise MissingDependency(f"no Xen here: {version}: {error.strerror}", "xl info") from error
        # Debian's package of the tools' own libraries, which xen-utils depends on
        self._library = load(f"libxenctrl.so.{number}", DECLARATIONS, f"libxenmisc{number}")
        null = self._library.ffi.NULL
        self._handle = self._library.calls.xc_interface_open(null, null, 0)
        if self._handle == null:
            raise self._library.open_error("domain control", "/dev/xen/privcmd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, what: str, function: Any, *arguments: object) -> int:
        result = int(function(self._handle, *arguments))
        if result < 0:
            raise self._library.error(f"Xen: {what}")
        return result

    def soft_reset(self, domid: int) -> None:
        """Raises XenError: EINVAL for a PV guest, or one that has not shut down."""
        self._call(f"domain {domid} cannot be reset", self._library.calls.xc_domain_soft_reset, domid)

    def offer(self, domid: int, remote: int) -> int:
        what = f"no port of domain {domid} for domain {remote}"
        return self._call(what, self._library.calls.xc_evtchn_alloc_unbound, domid, remote)

    def parameter(self, domid: int, index: int) -> int:
        value = self._library.ffi.new("uint64_t *")
        what = f"HVM parameter {index} of domain {domid}"
        self._call(what, self._library.calls.xc_hvm_param_get, domid, index, value)
        return int(value[0])

    def set_parameter(self, domid: int, index: int, value: int) -> None:
        what = f"HVM parameter {index} of domain {domid} = {value}"
        self._call(what, self._library.calls.xc_hvm_param_set, domid, index, value)

    def close(self) -> None:
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xc_interface_close(self._handle)
            self._handle = self._library.ffi.NULL
