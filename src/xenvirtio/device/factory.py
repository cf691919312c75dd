"""One place that knows every kind of device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.device.block.config import BlockConfig
from xenvirtio.device.block.state import BlockDevice
from xenvirtio.device.entropy.state import EntropyDevice
from xenvirtio.device.net.config import NetConfig
from xenvirtio.device.net.state import NetDevice
from xenvirtio.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenvirtio.device.base import Device

NET, BLOCK, ENTROPY = 1, 2, 4  # virtio 1.3 §5


def make_device(device_id: int, settings: Mapping[str, str], name: str = "", vifname: str = "") -> Device:
    """Make a device and open what it serves.

    `settings` are the keys of B/host (docs/virtio-xenbus.md); `name` is what people call the device ("vda",
    "eth0"), its `vdev` unless given; `vifname` is the tap's name unless the settings have one.
    Raises UsageError, MissingDependency.
    """
    name = name or settings.get("vdev", "")
    if device_id == BLOCK:
        return BlockDevice(BlockConfig.from_settings(settings, name))
    if device_id == NET:
        return NetDevice(NetConfig.from_settings(settings, name, vifname))
    if device_id == ENTROPY:
        return EntropyDevice()
    raise UsageError(
        f"{name}: there is no virtio device of type {device_id} here",
        f"known types: {NET} (network), {BLOCK} (block), {ENTROPY} (entropy)",
    )
