"""What a driver's command does, and with which Result it ends (docs/virtio-xenbus.md §4).

A command that is wrong has its Result and no effect: it never stops the device.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from xenvirtio.errors import GuestViolation, MemoryViolation, XenError
from xenvirtio.spec import virtio
from xenvirtio.spec.xenbus import DRV_DATA_MAX, Command, MemoryAccess, Result
from xenvirtio.transport.xenbus.saved import Saved, SavedQueue

if TYPE_CHECKING:
    from xenvirtio.device.base import Device
    from xenvirtio.transport.xenbus.page import Request

logger = logging.getLogger(__name__)

#: bits that the transport offers for every device
REQUIRED_FEATURES = virtio.F_VERSION_1 | virtio.F_ACCESS_PLATFORM
TRANSPORT_FEATURES = REQUIRED_FEATURES | virtio.F_INDIRECT_DESC | virtio.F_EVENT_IDX
#: status bits that a driver may set
SETTABLE = (
    virtio.STATUS_ACKNOWLEDGE
    | virtio.STATUS_DRIVER
    | virtio.STATUS_DRIVER_OK
    | virtio.STATUS_FEATURES_OK
    | virtio.STATUS_FAILED
)
#: status bits after which only a reset helps
STOPPED = virtio.STATUS_DEVICE_NEEDS_RESET | virtio.STATUS_FAILED

#: why a frame may not be the guest's (XB-77)
PSEUDO_PHYSICAL = (
    "; if it is a PV guest, its addresses are pseudo-physical: add iommu=soft to its kernel's command line, "
    "so that they are machine addresses (XB-77)"
)


class Commanded(Protocol):
    """The device that commands are about."""

    label: str
    device: Device
    saved: Saved
    """status, features and queues as they are now"""
    faults: int
    """commands refused because memory could not be reached"""

    @property
    def offered(self) -> int:
        """Features, the transport's among them."""
        ...

    @property
    def enabled_queues(self) -> list[int]: ...

    def config(self) -> bytes: ...

    def show_config(self) -> None:
        """The configuration space reaches the page, under the next generation."""

    def open_queue(self, saved: SavedQueue, *, resume: bool) -> None:
        """Raises GuestViolation or XenError; nothing stays then."""

    def close_queue(self, index: int) -> None:
        """Lets go of a queue and of its port; does nothing if it is not open."""

    def activate(self) -> None:
        """DRIVER_OK: a device that cannot start needs a reset."""

    def stop(self) -> None:
        """Stops the device, lets go of all queues."""


def execute(target: Commanded, request: Request) -> tuple[Result, int]:
    """Carries a command out; its result and value."""
    try:
        match request.command:
            case Command.SET_STATUS:
                return _set_status(target, request), 0
            case Command.QUEUE_QUERY:
                there = request.queue < target.device.queue_count
                return Result.OK, target.device.queue_size_max if there else 0
            case Command.QUEUE_ENABLE:
                return _queue_enable(target, request), 0
            case Command.QUEUE_RESET:
                return _queue_reset(target, request), 0
            case Command.CONFIG_WRITE:
                return _config_write(target, request), 0
    except MemoryViolation as violation:
        _tell_fault(target, request, violation)
        return Result.FAULT, 0
    except GuestViolation as violation:
        logger.info("%s: command %d: %s", target.label, request.command, violation.rule)
        return Result.INVALID, 0
    return Result.UNKNOWN, 0


def _tell_fault(target: Commanded, request: Request, violation: MemoryViolation) -> None:
    """The first of a connection is for the administrator: honest guests have none unless misconfigured."""
    target.faults += 1
    level = logging.WARNING if target.faults == 1 else logging.INFO
    cause = PSEUDO_PHYSICAL if target.saved.access == MemoryAccess.FOREIGN else ""
    text = "%s queue %d: refused: %s%s"
    logger.log(level, text, target.label, request.queue, violation.rule, cause)


def _set_status(target: Commanded, request: Request) -> Result:
    """virtio 1.3 §2.1.1, §3.1.1."""
    old, new = target.saved.status, request.value
    if new == 0:
        target.stop()
        target.saved = replace(target.saved, status=0, features=0)
        target.show_config()  # as at the start
        return Result.OK
    if old & STOPPED:
        return Result.STATE
    if new & ~SETTABLE or old & ~new:
        return Result.INVALID  # bits are never cleared but by a reset; NEEDS_RESET is the device's
    added = new & ~old
    if added & virtio.STATUS_FAILED:
        target.stop()
        target.saved = replace(target.saved, status=new)
        return Result.OK
    if added & virtio.STATUS_FEATURES_OK:
        if not _acceptable(target, request.features):
            # the driver sees FEATURES_OK missing (virtio 1.3 §3.1.1, step 6)
            new &= ~(virtio.STATUS_FEATURES_OK | virtio.STATUS_DRIVER_OK)
            target.saved = replace(target.saved, status=new)
            return Result.OK
        target.saved = replace(target.saved, features=request.features)
    if added & virtio.STATUS_DRIVER_OK and not new & virtio.STATUS_FEATURES_OK:
        return Result.STATE
    target.saved = replace(target.saved, status=new)
    if added & virtio.STATUS_DRIVER_OK:
        target.activate()
    return Result.OK


def _acceptable(target: Commanded, features: int) -> bool:
    return not features & ~target.offered and features & REQUIRED_FEATURES == REQUIRED_FEATURES


def _queue_enable(target: Commanded, request: Request) -> Result:
    status = target.saved.status
    if not status & virtio.STATUS_FEATURES_OK or status & (virtio.STATUS_DRIVER_OK | STOPPED):
        return Result.STATE
    if request.queue >= target.device.queue_count:
        return Result.INVALID
    if request.queue in target.enabled_queues:
        return Result.STATE
    if not 1 <= request.value <= target.device.queue_size_max:
        return Result.INVALID
    queue = SavedQueue(
        request.queue, request.value, request.desc, request.driver, request.device, request.port
    )
    try:
        target.open_queue(queue, resume=False)
    except XenError as error:
        logger.info("%s queue %d: %s", target.label, request.queue, error.message)
        return Result.FAULT
    target.saved = replace(target.saved, queues=(*target.saved.queues, queue))
    return Result.OK


def _queue_reset(target: Commanded, request: Request) -> Result:
    """Only while the queue is not in use: VIRTIO_F_RING_RESET is not offered."""
    if request.queue >= target.device.queue_count:
        return Result.INVALID
    if target.saved.status & virtio.STATUS_DRIVER_OK:
        return Result.STATE
    target.close_queue(request.queue)
    return Result.OK


def _config_write(target: Commanded, request: Request) -> Result:
    length = request.value
    if length > DRV_DATA_MAX or request.offset + length > len(target.config()):
        return Result.INVALID
    if not target.device.write_config(request.offset, request.data[:length]):
        return Result.INVALID
    target.show_config()
    return Result.OK
