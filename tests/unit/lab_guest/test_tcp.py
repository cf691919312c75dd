"""TCP transfers: dom0's program and the host's half, with this machine's own sockets as the guest."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from importlib import resources

import pytest

from xenvirtio.lab.guest.tcp import Transfer


def start(*arguments: str) -> tuple[subprocess.Popen[str], socket.socket]:
    program = str(resources.files("xenvirtio.lab.guest").joinpath("traffic.py"))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["listening"]
    return process, socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_source_sends_what_its_digest_says() -> None:
    process, connection = start("source", "0", "200001")
    with connection, connection.makefile("rb") as stream:
        data = stream.read()
    result = json.loads(process.communicate(timeout=10)[0])
    assert len(data) == result["bytes"] == 200001
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() == result["md5"]
    assert process.returncode == 0


def test_a_source_never_sends_the_same_piece_twice() -> None:
    process, connection = start("source", "0", str(65536 * 3))
    with connection, connection.makefile("rb") as stream:
        data = stream.read()
    process.communicate(timeout=10)
    assert len({data[start : start + 65536] for start in range(0, len(data), 65536)}) == 3


def test_a_sink_says_what_it_got() -> None:
    process, connection = start("sink", "0")
    with connection:
        connection.sendall(b"hello" * 1000)
    result = json.loads(process.communicate(timeout=10)[0])
    assert result["bytes"] == 5000
    assert result["md5"] == hashlib.md5(b"hello" * 1000, usedforsecurity=False).hexdigest()


def test_megabits_are_a_million_bits() -> None:
    assert Transfer(bytes=1_000_000, seconds=2.0).mbit == pytest.approx(4.0)
