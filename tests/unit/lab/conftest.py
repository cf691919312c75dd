"""An agent on this host instead of dom0's: the same code, served on the sockets that QEMU would make."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVER = """
import os, select, signal, socket, sys
from xenvirtio.lab.dom0.agent import Port
from xenvirtio.lab.dom0.loop import Loop
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as init starts it, whatever this process inherited
loop = Loop()
ports = []
def serve(listener):
    def accepted(_events):
        connection, _ = listener.accept()
        connection.setblocking(False)
        ports.append(Port(loop, connection.detach()))
    loop.add(listener.fileno(), select.EPOLLIN, accepted)
for number in range(4):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"agent.{number}")
    listener.listen()
    ports.append(listener)
    serve(listener)
open("ready", "w").close()
loop.run()
"""


@pytest.fixture
def agent_folder(tmp_path: Path) -> Iterator[Path]:
    """A lab's folder in which an agent answers on its first four ports."""
    source = Path(__file__).parents[3] / "src"
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(source)}
    )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists():
            assert process.poll() is None, "the agent ended"
            assert time.monotonic() < deadline, "the agent did not start"
            time.sleep(0.02)
        yield tmp_path
    finally:
        process.kill()
        process.wait(10)
