"""dom0's end of a TCP transfer with a lab guest, of random data and with a digest.

    traffic.py source PORT BYTES     sends to the first that connects
    traffic.py sink PORT             receives from the first that connects

Prints {"listening": port} and then {"bytes": …, "md5": …, "seconds": …}. The time is from the connection
until both sides have closed. Standard library only: it runs as a plain file.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: seconds that anything here may take
LIMIT = 60.0
_PIECE = 65536


def source(connection: socket.socket, data: bytes) -> None:
    """Sends `data` and waits until the peer has taken them."""
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(_PIECE):
        pass


def sink(connection: socket.socket) -> tuple[int, str]:
    """Receives until the peer closes; returns how many bytes, and their MD5."""
    digest, count = hashlib.md5(usedforsecurity=False), 0
    while data := connection.recv(_PIECE):
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    # drawn before the clock runs: under emulation the random generator is slower than the network
    data = os.urandom(int(arguments[2])) if arguments[0] == "source" else b""
    count, md5 = len(data), hashlib.md5(data, usedforsecurity=False).hexdigest()
    with socket.create_server(("", int(arguments[1]))) as server:
        server.settimeout(LIMIT)
        print(json.dumps({"listening": server.getsockname()[1]}), flush=True)
        connection, _ = server.accept()
    with connection:
        connection.settimeout(LIMIT)
        start = time.monotonic()
        if arguments[0] == "source":
            source(connection, data)
        else:
            count, md5 = sink(connection)
    seconds = time.monotonic() - start
    print(json.dumps({"bytes": count, "md5": md5, "seconds": round(seconds, 4)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
