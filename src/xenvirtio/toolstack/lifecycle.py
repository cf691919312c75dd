"""The end of a guest: what xl's own monitor would do, done with virtio devices in mind.

One small process a guest, left behind by `xenvirtio create`. It wakes when xenstored reports that some domain
shut down or is gone, does what on_poweroff, on_reboot, on_crash and on_watchdog say (xl.cfg(5)), and ends
with its guest.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.toolstack.connect import RELEASE, watching
from xenvirtio.toolstack.create import StartOptions, clean_up, start

if TYPE_CHECKING:
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.records import Record
    from xenvirtio.toolstack.xl import Domain

LOGS = Path("/var/log/xenvirtio")
DUMPS = Path("/var/lib/xen/dump")
#: seconds between looks if xenstored reports nothing
LOOK = 60.0


def leave_watcher(record: Record, logs: Path = LOGS) -> None:
    """Start the process that watches a guest, in a session of its own; its words go to <logs>/<guest>.log."""
    logs.mkdir(mode=0o755, parents=True, exist_ok=True)
    log = logs / (record.guest.name.replace("/", "_") + ".log")
    command = [sys.executable, "-m", "xenvirtio.cli.main", "lifecycle", record.guest.uuid, str(record.domid)]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def attend(record: Record, toolstack: Toolstack) -> None:
    """Watch a guest until it is gone for good; returns then."""
    preserved = False
    with watching(toolstack.store, RELEASE) as wait:
        while True:
            domain = toolstack.xl.find_domain(record.guest.uuid)
            if domain is None or domain.domid != record.domid:
                toolstack.say(f"domain {record.domid} is gone")
                break
            if domain.reason in (None, "suspend") or preserved:
                wait(LOOK)
                continue
            action = record.guest.actions.get(domain.reason or "", "destroy")
            toolstack.say(f"domain {domain.domid} ended: {domain.reason}; action: {action}")
            if action.startswith("coredump-"):
                _dump(domain, toolstack)
                action = action.removeprefix("coredump-")
            if action == "preserve":
                preserved = True
                continue
            toolstack.xl.destroy(domain.domid)
            if action != "restart":
                break
            clean_up(record.domid, toolstack)
            record = _restart(record, toolstack)
    clean_up(record.domid, toolstack)
    toolstack.records.forget(record.guest.uuid, record.domid)


def _restart(record: Record, toolstack: Toolstack) -> Record:
    """The same guest as a new domain, devices plugged. Whether it takes them is its own affair, as at xl."""
    toolstack.records.forget(record.guest.uuid, record.domid)

    def remember(domain: Domain) -> None:
        toolstack.records.save(replace(record, domid=domain.domid))

    options = StartOptions(limit=record.limit, wait=False)
    domain = start(record.guest, toolstack, options, remember).domain
    toolstack.say(f"restarted as domain {domain.domid}")
    return replace(record, domid=domain.domid)


def _dump(domain: Domain, toolstack: Toolstack) -> None:
    DUMPS.mkdir(parents=True, exist_ok=True)
    name = domain.name.replace("/", "_")
    toolstack.xl.dump_core(domain.domid, DUMPS / f"{time.strftime('%Y-%m%d-%H%M')}-{name}.core")
