"""Unix sockets in folders of any depth.

A socket's path is limited to 107 bytes (unix(7)), a cache folder's is not: the way goes through an open
descriptor of the folder. QEMU, on its side, is started in the folder and given relative names.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from xenvirtio.errors import LabLost
from xenvirtio.lab.paths import lab_command

if TYPE_CHECKING:
    from pathlib import Path


def connect(folder: Path, name: str) -> socket.socket:
    """Connects to folder/name; raises LabLost if nobody listens there."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            end.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.close(fd)
    except OSError as error:
        end.close()
        raise LabLost(
            f"the lab's machine is not there ({name}: {error.strerror})", lab_command(folder, "up")
        ) from error
    return end
