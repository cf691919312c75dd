"""xenvirtio's daemon in the lab's dom0, from the host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import LabError

if TYPE_CHECKING:
    from xenvirtio.lab.lab import Lab

LOG = "/var/log/xenvirtio.log"
_PID = "/run/xenvirtio-lab/daemon.pid"
_SOCKET = "/run/xenvirtio/daemon.sock"
#: `pid`, and whether it runs: what has ended and was not waited for has a /proc entry, but no program
_FIND = f"""
pid=$(cat {_PID} 2>/dev/null)
runs() {{ [ -e "/proc/$pid/exe" ]; }}
"""
#: starts the daemon unless it runs, and waits until it listens; its time limit is $1 seconds. A script's
#: background job leads no process group, so setsid does not fork, and $! is the daemon. A killed daemon
#: leaves its socket.
_START = f"""{_FIND}
if ! runs; then
    mkdir -p "$(dirname {_PID})"
    rm -f {_SOCKET}
    setsid xenvirtio daemon </dev/null >>{LOG} 2>&1 &
    pid=$!
    echo $pid >{_PID}
fi
end=$(($(date +%s) + $1))
until [ -S {_SOCKET} ]; do
    runs || {{ echo "it ended:"; tail -n 20 {LOG}; exit 1; }}
    [ "$(date +%s)" -lt "$end" ] || {{ echo "no answer within $1 s:"; tail -n 20 {LOG}; exit 1; }}
    sleep 0.1
done
"""
_STOP = f"""{_FIND}
! runs || kill "$pid"
end=$(($(date +%s) + $1))
while runs; do
    [ "$(date +%s)" -lt "$end" ] || {{ echo "it still runs $1 s after SIGTERM"; exit 1; }}
    sleep 0.1
done
rm -f {_PID}
"""


class Backend:
    """The daemon that serves the lab's guests."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def start(self, limit: int = 60) -> None:
        """Starts the daemon unless it runs, and waits until it answers; LabError has the log's end."""
        self._script(_START, limit, "start")

    def stop(self, limit: int = 30) -> None:
        """Ends the daemon as an administrator does; raises LabError."""
        self._script(_STOP, limit, "stop")

    def pid(self) -> int:
        """The daemon's process; raises LabError if it was never started."""
        return int(self._lab.run(["cat", _PID]).check().stdout)

    def log(self, lines: int = 40) -> str:
        """The end of its log."""
        return self._lab.run(["tail", "-n", str(lines), LOG]).stdout

    def devices(self) -> list[dict[str, Any]]:
        """`xenvirtio list --json`; raises LabError."""
        listed = json.loads(self._lab.run(["xenvirtio", "list", "--json"]).check().stdout)
        if not isinstance(listed, list):
            raise LabError(f"xenvirtio list --json is no list: {listed!r}")
        return listed

    def _script(self, script: str, limit: int, what: str) -> None:
        done = self._lab.run(["sh", "-c", script, "sh", str(limit)], timeout=limit + 30)
        if done.returncode:
            raise LabError(f"the daemon did not {what}: {(done.stdout + done.stderr).strip()[-1500:]}")
