"""What can be said of the bindings without Xen: what is missing is named, with the next command."""

from __future__ import annotations

import ctypes.util
import errno
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import MissingDependency, XenError
from xenvirtio.spec.host import NODES
from xenvirtio.xen import devicemodel, evtchn, foreign, gnttab, store
from xenvirtio.xen.library import Library

if TYPE_CHECKING:
    from collections.abc import Callable

OPENERS: dict[str, Callable[[], object]] = {
    "libxenstore4": store.XenStore,
    "libxenevtchn1": evtchn.XenEventChannels,
    "libxengnttab1": gnttab.XenGrantTable,
    "libxenforeignmemory1": foreign.XenForeignMemory,
    "libxendevicemodel1": devicemodel.XenDeviceModel,
}


def libc(declarations: str = "int close(int fd);") -> Library:
    """Any library will do to look at errno."""
    return Library("libc.so.6", declarations)


@pytest.mark.parametrize("package", OPENERS)
def test_a_missing_library_names_its_debian_package(package: str) -> None:
    if ctypes.util.find_library(package.removeprefix("lib").rstrip("14")):
        pytest.skip("this machine has Xen's libraries")
    with pytest.raises(MissingDependency) as caught:
        OPENERS[package]()
    assert caught.value.hint == f"apt-get install {package}"


def test_a_failed_call_carries_errno_and_its_words() -> None:
    library = libc()
    assert library.calls.close(-1) == -1
    error = library.error("cannot close -1")
    assert (error.message, error.errno) == ("cannot close -1: Bad file descriptor", errno.EBADF)


@pytest.mark.parametrize("node", NODES)
def test_a_missing_device_node_names_the_module(node: str) -> None:
    library = libc("int open(const char *path, int flags, ...);")
    assert library.calls.open(b"/dev/xen/none", 0) == -1
    error = library.open_error("event channels", node)
    assert isinstance(error, MissingDependency)
    assert error.hint == f"modprobe {NODES[node]}"


def test_a_device_node_that_may_not_be_opened_is_a_matter_of_root() -> None:
    library = libc()
    library.ffi.errno = errno.EACCES
    error = library.open_error("event channels", "/dev/xen/evtchn")
    assert isinstance(error, XenError)
    assert (error.errno, error.hint) == (errno.EACCES, "run it as root")


def test_every_declaration_can_be_parsed() -> None:
    for module in (store, evtchn, gnttab, foreign, devicemodel):
        libc(module.DECLARATIONS)
    libc(devicemodel.RESOURCE_DECLARATIONS)


def test_the_grant_copy_ioctl_is_the_kernel_s_number() -> None:
    assert gnttab.IOCTL_GNTDEV_GRANT_COPY == 0x104708  # _IOC(_IOC_NONE, 'G', 8, 16)
