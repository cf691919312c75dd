"""What a dom0 has of Xen, by its files' names, and what brings it: Debian's packages, Linux's modules."""

#: soname → Debian package (the same for Xen 4.17 and 4.20)
LIBRARIES = {
    "libxenstore.so.4": "libxenstore4",
    "libxenevtchn.so.1": "libxenevtchn1",
    "libxengnttab.so.1": "libxengnttab1",
    "libxenforeignmemory.so.1": "libxenforeignmemory1",
    "libxendevicemodel.so.1": "libxendevicemodel1",
}

#: device node → kernel module (Linux drivers/xen/)
NODES = {
    "/dev/xen/evtchn": "xen-evtchn",
    "/dev/xen/gntdev": "xen-gntdev",
    "/dev/xen/privcmd": "xen-privcmd",
    "/dev/xen/xenbus": "xenfs",
}

#: brings xl and pygrub
XL_PACKAGE = "xen-system-amd64"
