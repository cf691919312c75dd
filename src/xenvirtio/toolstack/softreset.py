"""Another kernel in the same domain (kexec, kdump): for PVH guests what libxl does for HVM guests only.

Linux ends a kernel that gives way to another with SHUTDOWN_soft_reset, in the middle of its jump there. The
guest's memory stays; Xen forgets its event channels, its vCPUs' areas and its shared info page, and lets it
run on. XenStore and console need new ports, which the next kernel finds in its HVM parameters. The virtio
devices' nodes stay: the next kernel and their backends begin anew by themselves (XB-24, XB-28).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.xen.interfaces import Store

# xen/include/public/hvm/params.h, HVM_PARAM_*
STORE_PFN = 1
STORE_EVTCHN = 2
CONSOLE_EVTCHN = 18


def soft_reset(domid: int, toolstack: Toolstack) -> None:
    """Let the next kernel of a PVH guest run, which has shut down with the reason soft-reset.

    Raises MissingDependency before anything is changed; after a XenError the guest is of no use any more.
    """
    store, path = toolstack.store, f"/local/domain/{domid}"
    with toolstack.control() as control:
        toolstack.xl.pause(domid)  # the reset would let it run on before it has its ports
        control.soft_reset(domid)
        store_port = control.offer(domid, _daemon(store, "xenstored"))
        console_port = control.offer(domid, _daemon(store, "xenconsoled"))
        control.set_parameter(domid, STORE_EVTCHN, store_port)
        control.set_parameter(domid, CONSOLE_EVTCHN, console_port)
        store.introduce(domid, control.parameter(domid, STORE_PFN), store_port)
    store.write(f"{path}/store/port", str(store_port))
    store.write(f"{path}/console/port", str(console_port))
    toolstack.xl.unpause(domid)


def _daemon(store: Store, name: str) -> int:
    """The domain in which one of Xen's daemons runs."""
    return int(store.read(f"/tool/{name}/domid") or 0)
