"""The end of a guest: what xl's own monitor would do, done with virtio devices in mind.

One small process a guest, left behind by `xenvirtio create`. It wakes when xenstored reports that some domain
shut down or is gone, does what on_poweroff, on_reboot, on_crash, on_watchdog and on_soft_reset say
(xl.cfg(5)), and ends with its guest. What fails is tried again: nobody else would attend the guest.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError, XenvirtioError
from xenvirtio.toolstack.configuration.guest import SOFT_RESET
from xenvirtio.toolstack.connect import RELEASE, watching
from xenvirtio.toolstack.create import StartOptions, clean_up, start
from xenvirtio.toolstack.softreset import soft_reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.records import Record
    from xenvirtio.toolstack.xl import Domain

LOGS = Path("/var/log/xenvirtio")
DUMPS = Path("/var/lib/xen/dump")
#: seconds between looks if xenstored reports nothing
LOOK = 60.0
#: seconds before what failed is tried again; the last one holds for every further failure
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
#: tries to start a guest that reboots, each after the next of PAUSES
RESTARTS = 5
#: seconds: a guest that ends sooner, and again, is started again after a pause, lest it loops at full speed
SOON = 60.0
#: seconds between two looks for the daemon
DAEMON_LOOK = 1.0


def leave_watcher(record: Record, logs: Path = LOGS) -> None:
    """Start the process that watches a guest, in a session of its own; its words go to <logs>/<guest>.log.

    Raises XenvirtioError if there can be no log.
    """
    path = logs / (record.guest.name.replace("/", "_") + ".log")
    try:
        logs.mkdir(mode=0o755, parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        words = f"the guest's log {path} cannot be written: {error.strerror}"
        raise XenvirtioError(words, f"ls -ld {logs} {path}; df {logs.parent}") from error
    # -P: root takes no module from the folder that it happens to be in
    command = [
        sys.executable,
        "-P",
        "-m",
        "xenvirtio.cli.main",
        "lifecycle",
        record.guest.uuid,
        str(record.domid),
    ]
    with open(log, "ab"):
        os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
        )


def attend(record: Record, toolstack: Toolstack) -> None:
    """Watch a guest until it is gone for good; returns then.

    Raises XenvirtioError or OSError if the guest reboots and cannot be started again; nothing is left then.
    """
    soon = 0
    with watching(toolstack.store, RELEASE) as wait:
        while True:
            since = time.monotonic()
            again = _until_end(record, toolstack, wait)
            _clean_up(record.domid, toolstack)
            if not again:
                break
            soon = soon + 1 if time.monotonic() - since < SOON else 0
            if soon > 1:
                toolstack.say(
                    f"it ended within {SOON:.0f} s for the {soon}. time: waiting before its restart"
                )
                _pause(soon - 2)
            try:
                restarted = _restart(record, toolstack)
            except (XenvirtioError, OSError):
                toolstack.records.forget(record.guest.uuid, record.domid)
                raise
            if restarted is None:
                break
            record = restarted
    toolstack.records.forget(record.guest.uuid, record.domid)


def _until_end(record: Record, toolstack: Toolstack, wait: Callable[[float], object]) -> bool:
    """Until the domain is gone, by its own or by our doing; true if it is to be started again."""
    again = preserved = dumped = False
    failures = 0
    while True:
        try:
            domain = toolstack.xl.find_domain(record.guest.uuid)
            if domain is None or domain.domid != record.domid:
                toolstack.say(f"domain {record.domid} is gone")
                return again
            if domain.reason in (None, "suspend") or preserved:
                wait(LOOK)
                failures = 0
                continue
            action = record.guest.actions.get(domain.reason or "", "destroy")
            toolstack.say(f"domain {domain.domid} ended: {domain.reason}; action: {action}")
            if action == SOFT_RESET:
                if _next_kernel(record, toolstack):
                    continue
                action = record.guest.actions.get("reboot", "destroy")
                toolstack.say(f"as after a reboot: {action}")
            if action.startswith("coredump-") and not dumped:
                dumped = True  # one try: a full disk does not keep a crashed guest
                _dump(domain, toolstack)
            preserved = action == "preserve"
            if preserved:
                continue
            again = action.endswith("restart")
            toolstack.xl.destroy(domain.domid)
            return again
        except (XenvirtioError, OSError) as error:
            toolstack.say(f"trying again: {error}")
            _pause(failures)
            failures += 1


def _next_kernel(record: Record, toolstack: Toolstack) -> bool:
    """Let the guest go on with its next kernel; false if that cannot run."""
    try:
        soft_reset(record.domid, toolstack)
    except (XenvirtioError, OSError) as error:
        toolstack.say(f"its next kernel cannot run: {error}")
        return False
    toolstack.say("its next kernel runs")
    return True


def _clean_up(domid: int, toolstack: Toolstack) -> None:
    """`clean_up`, tried a few times; what it leaves then, the daemon removes when it starts."""
    for number in range(len(PAUSES)):
        try:
            return clean_up(domid, toolstack)
        except (XenvirtioError, OSError) as error:
            toolstack.say(f"domain {domid} is not cleaned up: {error}")
            _pause(number)
    return None


def _restart(record: Record, toolstack: Toolstack) -> Record | None:
    """The same guest as a new domain, devices plugged; None if somebody else has started or destroyed it
    meanwhile: then its record says so, or is gone.

    Whether it takes its devices is its own affair, as at xl. The daemon may be down for a moment, an image
    not let go of, memory tight: it is tried RESTARTS times, and the last failure is raised.
    """

    started: list[Record] = []

    def remember(domain: Domain) -> None:
        # what `attach --persist` changed while it started stays in it
        new = toolstack.records.update(
            record.guest.uuid, record.domid, lambda kept: replace(kept, domid=domain.domid)
        )
        if new is None:
            raise XenError(f"guest {record.guest.name} was destroyed while it was started")
        started.append(new)

    options = StartOptions(limit=record.limit, wait=False)
    for number in range(RESTARTS):
        kept = toolstack.records.load(record.guest.uuid)
        if kept is None:
            toolstack.say(f"guest {record.guest.name} was destroyed: it is not started again")
            return None
        if kept.domid != record.domid:
            toolstack.say(f"guest {record.guest.name} is domain {kept.domid} by now")
            return None
        record = kept  # devices that were attached or detached with --persist
        if record.guest.devices:
            _wait_for_daemon(record.limit, toolstack)
        try:
            start(record.guest, toolstack, options, remember)
        except (XenvirtioError, OSError) as error:
            if number == RESTARTS - 1:
                raise
            toolstack.say(f"the restart failed, trying again: {error}")
            _pause(number)
        else:
            toolstack.say(f"restarted as domain {started[0].domid}")
            return started[0]
    return None


def _wait_for_daemon(limit: float, toolstack: Toolstack) -> None:
    """At most `limit` seconds; a daemon that stays away is for `start` to tell."""
    end = time.monotonic() + limit
    while not toolstack.host.daemon_runs() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, DAEMON_LOOK))


def _pause(number: int) -> None:
    time.sleep(PAUSES[min(number, len(PAUSES) - 1)])


def _dump(domain: Domain, toolstack: Toolstack) -> None:
    DUMPS.mkdir(parents=True, exist_ok=True)
    name = domain.name.replace("/", "_")
    toolstack.xl.dump_core(domain.domid, DUMPS / f"{time.strftime('%Y-%m%d-%H%M')}-{name}.core")
