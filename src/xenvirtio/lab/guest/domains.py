"""The domain behind a guest's name, from the host: its number, its end, and the next one after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit
from xenvirtio.lab.paths import lab_command

if TYPE_CHECKING:
    from xenvirtio.lab.lab import Lab

#: seconds for an `xl` or `xenvirtio` command that only looks or ends something
SHORT = 60.0
#: waits in dom0; $1: guest, $2: seconds
_GONE = """
end=$(($(date +%s) + $2))
while xl domid "$1" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || exit 1
    sleep 0.3
done
"""
#: likewise; $3: its domain's number until now. Prints the next one's
_NEXT = """
end=$(($(date +%s) + $2))
until next=$(xl domid "$1" 2>/dev/null) && [ "$next" != "$3" ]; do
    [ "$(date +%s)" -lt "$end" ] || exit 1
    sleep 0.3
done
echo "$next"
"""


def domid(lab: Lab, guest: str) -> int | None:
    """The number of its domain, None when it is gone."""
    found = lab.run(["xl", "domid", guest], timeout=SHORT)
    return int(found.stdout) if found.returncode == 0 else None


def wait_gone(lab: Lab, guest: str, limit: float) -> None:
    """Until Xen has the guest no more; raises TimeLimit after `limit` seconds."""
    _wait(lab, _GONE, guest, limit, "is still there")


def wait_restarted(lab: Lab, guest: str, before: int | None, limit: float) -> int:
    """The number of the domain that follows `before`; raises TimeLimit after `limit` seconds."""
    return int(_wait(lab, _NEXT, guest, limit, "was not started again", str(before)))


def _wait(lab: Lab, script: str, guest: str, limit: float, what: str, *more: str) -> str:
    done = lab.run(["sh", "-c", script, "sh", guest, f"{limit:.0f}", *more], timeout=limit + SHORT)
    if done.returncode:
        raise TimeLimit(
            f"guest {guest} {what} after {limit:.0f} s",
            hint=lab_command(lab.folder, "run -- xl list"),
        )
    return done.stdout
