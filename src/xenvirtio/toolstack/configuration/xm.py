"""What xm took in a guest's configuration and xl does not: refused by name, where xl says nothing or not why.

xl ignores a setting that it does not know (tools/xl/xl_parse.c asks for those that it knows), and a guest
would start that is not the one described. What concerns disks, NICs, device models and boot is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenvirtio.toolstack.configuration.configuration import GuestConfig
    from xenvirtio.toolstack.configuration.grammar import Atom

_KERNEL_IP = 'extra += " ip=ADDRESS::GATEWAY:NETMASK::eth0:off", or ip=dhcp'
_COMMAND_LINE = "xm made a part of the kernel's command line of it, xl does not"
_DRIVE = "disk = [ '/path/to/it,raw,hdc,cdrom' ]"

#: setting → why it has no effect, and what does
REMOVED = {
    "device_model": ("xl ignores it", 'leave it out; another QEMU is device_model_override = "/path"'),
    "vif2": ("netchannel2 is gone", "vif = [ … ]"),
    "vscsi": ("xl has no SCSI passthrough to PV guests", "disk = [ 'phy:/dev/sdX,vda,w' ]"),
    "cdrom": ("xl ignores it", _DRIVE),
    "hdc": ("xl ignores it", _DRIVE),
    "dhcp": (_COMMAND_LINE, _KERNEL_IP),
    "ip": (_COMMAND_LINE, _KERNEL_IP),
    "netmask": (_COMMAND_LINE, _KERNEL_IP),
    "gateway": (_COMMAND_LINE, _KERNEL_IP),
    "nfs_server": (_COMMAND_LINE, 'extra += " nfsroot=…"'),
    "nfs_root": (_COMMAND_LINE, 'extra += " nfsroot=…"'),
}
#: keys of a vfb=[…] entry that xl knows; others it passes over in silence
_VNC = ("vnc", "vnclisten", "vncpasswd", "vncdisplay", "vncunused")
VFB_KEYS = (*_VNC, "keymap", "sdl", "opengl", "display", "xauthority")
ARGUMENT_LISTS = ("device_model_args", "device_model_args_pv", "device_model_args_hvm")


def refuse(config: GuestConfig) -> None:
    """Raises ConfigError for the first setting that xl would ignore or refuse without saying why."""
    for name, (why, instead) in REMOVED.items():
        setting = config.last(name)
        if setting is not None:
            setting.fail(f"{name} is of xm: {why}", instead)
    for name in ARGUMENT_LISTS:
        config.entries(name)
    for entry in config.entries("vfb"):
        _refuse_vfb(entry)


def _refuse_vfb(entry: Atom) -> None:
    at = 0
    for part in entry.text.split(","):
        key = part.strip().partition("=")[0].strip()
        if key and key not in VFB_KEYS:
            hint = f"vnc=1 or sdl=1; known: {', '.join(VFB_KEYS)}"
            entry.fail(f"'{key}' in vfb is of xm: xl ignores it", hint, at=at)
        at += len(part) + 1
