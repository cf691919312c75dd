"""Guests in the lab: what they are made of, and how to control them.

from xenvirtio.lab.guest import Disk, Guest, GuestConfig, Nic
"""

from xenvirtio.lab.guest.backend import Backend
from xenvirtio.lab.guest.channel import Answer, GuestGone
from xenvirtio.lab.guest.config import TOOLS_DISK, TYPES, Disk, GuestConfig, Nic
from xenvirtio.lab.guest.guest import Guest, start
from xenvirtio.lab.guest.lost import GuestLost

__all__ = [
    "TOOLS_DISK",
    "TYPES",
    "Answer",
    "Backend",
    "Disk",
    "Guest",
    "GuestConfig",
    "GuestGone",
    "GuestLost",
    "Nic",
    "start",
]
