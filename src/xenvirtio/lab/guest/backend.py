"""xenvirtio's daemon in the lab's dom0, from the host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import LabError

if TYPE_CHECKING:
    from xenvirtio.lab.lab import Lab

LOG = "/var/log/xenvirtio.log"
_PID = "/run/xenvirtio-lab/daemon.pid"
#: starts the daemon unless it runs, and waits until it answers; its time limit is $1 seconds
_START = f"""
mkdir -p /run/xenvirtio-lab
if ! {{ [ -e {_PID} ] && kill -0 "$(cat {_PID})" 2>/dev/null; }}; then
    setsid sh -c 'echo $$ >{_PID}; exec xenvirtio daemon' </dev/null >>{LOG} 2>&1 &
    sleep 0.5
fi
end=$(($(date +%s) + $1))
until [ -S /run/xenvirtio/daemon.sock ] && kill -0 "$(cat {_PID})"; do
    kill -0 "$(cat {_PID})" 2>/dev/null || {{ echo "it ended:"; tail -n 20 {LOG}; exit 1; }}
    [ "$(date +%s)" -lt "$end" ] || {{ echo "no answer within $1 s:"; tail -n 20 {LOG}; exit 1; }}
    sleep 0.3
done
"""
_STOP = f"""
[ -e {_PID} ] || exit 0
kill "$(cat {_PID})" 2>/dev/null || {{ rm -f {_PID}; exit 0; }}
end=$(($(date +%s) + $1))
while kill -0 "$(cat {_PID})" 2>/dev/null; do
    [ "$(date +%s)" -lt "$end" ] || {{ echo "it still runs $1 s after SIGTERM"; exit 1; }}
    sleep 0.3
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
