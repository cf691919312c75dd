"""A NIC's link, while its guest uses it: as pulling the cable, and plugging it in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.toolstack.checks import check_user
from xenvirtio.toolstack.hotplug.update import DEFAULT_LIMIT, change_settings
from xenvirtio.toolstack.running import check_daemon, find_running, lost, need_device, need_record

if TYPE_CHECKING:
    from xenvirtio.toolstack.configuration.guest import VirtioDevice
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.nodes import Plugged
    from xenvirtio.toolstack.records import Record


def set_link(
    name: str,
    vdev: str,
    link: str,
    toolstack: Toolstack,
    limit: float = DEFAULT_LIMIT,
    *,
    persist: bool = False,
) -> None:
    """Put the link of the NIC `vdev` of the guest `name` `up` or `down`; with `persist` after a reboot, too.

    Raises UsageError before anything is changed; XenvirtioError or TimeLimit after all is as it was.
    """
    check_user(toolstack.host)
    domain = find_running(name, toolstack.xl)
    device = need_device(toolstack.store, domain, vdev)
    if device.is_disk:
        raise UsageError(f"{vdev} is a disk: it has no link", hint="xenvirtio list")
    if persist and not any(_is(each, device) for each in need_record(toolstack, domain).guest.devices):
        raise UsageError(
            f"--persist: guest {domain.name} does not have this {vdev} after its reboot",
            hint="leave --persist out; or detach the NIC, and attach it with --persist",
        )
    check_daemon(toolstack.host)
    change_settings(toolstack.store, device, {"link": link}, limit)

    def remember(record: Record) -> Record:
        devices = tuple(
            replace(each, settings={**each.settings, "link": link}) if _is(each, device) else each
            for each in record.guest.devices
        )
        return replace(record, guest=replace(record.guest, devices=devices))

    if persist and toolstack.records.update(domain.uuid, domain.domid, remember) is None:
        raise lost(domain)


def _is(remembered: VirtioDevice, device: Plugged) -> bool:
    """Another NIC may have come under the name of one that was detached without --persist."""
    return remembered.vdev == device.vdev and remembered.settings.get("mac") == device.settings.get("mac")
