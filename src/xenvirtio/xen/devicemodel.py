"""IOREQ servers by libxendevicemodel (xen/tools/include/xendevicemodel.h), their page by libxenforeignmemory.

HVM and PVH guests have them; for a PV guest every call is EINVAL (xen/arch/x86/hvm/dm.c). At most eight a
guest. A server outlives the process that made it: whoever knows its number goes on with it.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Self

from xenvirtio.errors import XenError
from xenvirtio.xen.library import load

DECLARATIONS = """
typedef struct xendevicemodel_handle xendevicemodel_handle;
xendevicemodel_handle *xendevicemodel_open(void *logger, unsigned int open_flags);
int xendevicemodel_close(xendevicemodel_handle *dmod);
int xendevicemodel_create_ioreq_server(xendevicemodel_handle *dmod, uint16_t domid, int handle_bufioreq,
                                       uint16_t *id);
int xendevicemodel_set_ioreq_server_state(xendevicemodel_handle *dmod, uint16_t domid, uint16_t id,
                                          int enabled);
int xendevicemodel_destroy_ioreq_server(xendevicemodel_handle *dmod, uint16_t domid, uint16_t id);
"""

RESOURCE_DECLARATIONS = """
typedef struct xenforeignmemory_handle xenforeignmemory_handle;
typedef struct xenforeignmemory_resource_handle xenforeignmemory_resource_handle;
xenforeignmemory_handle *xenforeignmemory_open(void *logger, unsigned open_flags);
int xenforeignmemory_close(xenforeignmemory_handle *fmem);
xenforeignmemory_resource_handle *xenforeignmemory_map_resource(
    xenforeignmemory_handle *fmem, uint16_t domid, unsigned int type, unsigned int id, unsigned long frame,
    unsigned long nr_frames, void **paddr, int prot, int flags);
int xenforeignmemory_unmap_resource(xenforeignmemory_handle *fmem, xenforeignmemory_resource_handle *fres);
"""

BUFIOREQ_OFF = 0  # xen/include/public/hvm/dm_op.h, HVM_IOREQSRV_BUFIOREQ_OFF
RESOURCE_IOREQ_SERVER = 0  # xen/include/public/memory.h, XENMEM_resource_ioreq_server
FRAME_IOREQ = 1  # XENMEM_resource_ioreq_server_frame_ioreq(0); frame 0 is the buffered ring


class XenDeviceModel:
    """One handle on /dev/xen/privcmd for each library, a `DeviceModel` and a context manager; closing leaves
    the servers as they are."""

    def __init__(self) -> None:
        self._library = load("libxendevicemodel.so.1", DECLARATIONS)
        self._resources = load("libxenforeignmemory.so.1", RESOURCE_DECLARATIONS)
        self._pages: dict[int, object] = {}
        self._memory = self._resources.ffi.NULL
        self._handle = self._library.calls.xendevicemodel_open(self._library.ffi.NULL, 0)
        if self._handle == self._library.ffi.NULL:
            raise self._library.open_error("device model", "/dev/xen/privcmd")
        self._memory = self._resources.calls.xenforeignmemory_open(self._resources.ffi.NULL, 0)
        if self._memory == self._resources.ffi.NULL:
            error = self._resources.open_error("device model", "/dev/xen/privcmd")
            self.close()
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def create(self, domid: int) -> int:
        """Raises XenError: EINVAL for a PV guest, ENOSPC if the guest has eight."""
        number = self._library.ffi.new("uint16_t *")
        made = self._library.calls.xendevicemodel_create_ioreq_server(
            self._handle, domid, BUFIOREQ_OFF, number
        )
        if made < 0:
            raise self._library.error(f"no IOREQ server for domain {domid}")
        return int(number[0])

    def map_page(self, domid: int, server: int) -> int:
        """Raises XenError: ENOENT if there is no such server (any more)."""
        place = self._resources.ffi.new("void **")
        resource = self._resources.calls.xenforeignmemory_map_resource(
            self._memory,
            domid,
            RESOURCE_IOREQ_SERVER,
            server,
            FRAME_IOREQ,
            1,
            place,
            mmap.PROT_READ | mmap.PROT_WRITE,
            0,
        )
        if resource == self._resources.ffi.NULL:
            raise self._resources.error(f"no page of IOREQ server {server} of domain {domid}")
        address = int(self._resources.ffi.cast("uintptr_t", place[0]))
        self._pages[address] = resource
        return address

    def unmap_page(self, address: int) -> None:
        resource = self._pages.pop(address)
        if self._resources.calls.xenforeignmemory_unmap_resource(self._memory, resource) < 0:
            raise self._resources.error("cannot unmap the page of an IOREQ server")

    def enable(self, domid: int, server: int, on: bool) -> None:
        done = self._library.calls.xendevicemodel_set_ioreq_server_state(self._handle, domid, server, int(on))
        if done < 0:
            raise self._library.error(f"IOREQ server {server} of domain {domid}: state {int(on)}")

    def destroy(self, domid: int, server: int) -> None:
        if self._library.calls.xendevicemodel_destroy_ioreq_server(self._handle, domid, server) < 0:
            raise self._library.error(f"cannot destroy IOREQ server {server} of domain {domid}")

    def close(self) -> None:
        for address in list(self._pages):
            with contextlib.suppress(XenError):
                self.unmap_page(address)
        if self._memory != self._resources.ffi.NULL:
            self._resources.calls.xenforeignmemory_close(self._memory)
            self._memory = self._resources.ffi.NULL
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xendevicemodel_close(self._handle)
            self._handle = self._library.ffi.NULL
