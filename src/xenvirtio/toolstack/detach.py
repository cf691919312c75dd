"""A device goes from a guest that runs (XB-22): the guest lets go, then the backend; the nodes are removed.

online 0, Closing ──► guest Closed, backend Closed ──► nodes removed
     │ the guest does not follow in time
     ├──► taken back: the guest keeps the device, and the user is told why
     └──► by force: backend's nodes, then guest's
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit
from xenvirtio.toolstack.checks import check_user
from xenvirtio.toolstack.connect import LOOK, watching
from xenvirtio.toolstack.nodes import ask_to_close, state, take_back, unplug, words
from xenvirtio.toolstack.running import check_daemon, find_device, find_running, lost, need_record
from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.nodes import Plugged
    from xenvirtio.toolstack.records import Record
    from xenvirtio.toolstack.xl import Domain
    from xenvirtio.xen.interfaces import Store

DEFAULT_LIMIT = 30.0
#: seconds that a guest gets to let go of a device whose attaching failed
UNDO_LIMIT = 10.0
#: seconds that a guest gets to see that its backend is gone by force, before its own nodes go
FORCE_LIMIT = 5.0


@dataclass(frozen=True)
class DetachOptions:
    """How to detach a device."""

    limit: float = DEFAULT_LIMIT  #: seconds, for the guest to let go
    force: bool = False  #: take it away from a guest that does not
    persist: bool = False  #: it does not come back when the guest reboots


def detach(name: str, vdev: str, toolstack: Toolstack, options: DetachOptions) -> None:
    """Detach the device `vdev` from the guest `name`; one that is not there is no error, only a word.

    Raises UsageError if there is no such guest or no device can be called so, TimeLimit if the guest does not
    let go: it keeps the device then.
    """
    store = toolstack.store
    check_user(toolstack.host)
    domain = find_running(name, toolstack.xl)
    if options.persist:
        need_record(toolstack, domain)
    device = find_device(store, domain, vdev)
    if device is None:
        toolstack.say(f"guest {domain.name} has no device {vdev}: nothing to detach")
    else:
        if not options.force:
            check_daemon(toolstack.host, f"xenvirtio detach {domain.name} {vdev} --force")
        _detach(domain, device, toolstack, options)
    if options.persist:
        _forget(toolstack, domain, vdev)


def _detach(domain: Domain, device: Plugged, toolstack: Toolstack, options: DetachOptions) -> None:
    store, say = toolstack.store, toolstack.say
    if options.force and not toolstack.host.daemon_runs():
        say("the daemon does not run: nobody can ask the guest")
        _remove_by_force(store, device)
        return
    say(f"asking guest {domain.name} to let {device.vdev} go")
    try:
        closed = _close(store, device, options.limit)
    except BaseException:  # ctrl-C, above all
        store.transact(lambda view: take_back(view, device))
        raise
    if closed:
        store.transact(lambda view: unplug(view, device))
        return
    if options.force:
        say(f"it did not within {options.limit:.0f} s: removing {device.vdev} by force")
        _remove_by_force(store, device)
        return
    raise _stuck(domain, device, toolstack, options.limit)


def pull(store: Store, device: Plugged, limit: float) -> None:
    """Detach a device, by force after `limit` seconds."""
    if _close(store, device, limit):
        store.transact(lambda view: unplug(view, device))
    else:
        _remove_by_force(store, device)


def _close(store: Store, device: Plugged, limit: float) -> bool:
    """Whether both sides have let go within `limit` seconds."""
    store.transact(lambda view: ask_to_close(view, device))
    # Closed is what the backend says last; Unknown: the guest is gone, and the daemon has cleaned up
    done = (XenbusState.CLOSED, XenbusState.UNKNOWN)
    return _wait(store, f"{device.back}/state", lambda: state(store, device.back) in done, limit)


def _remove_by_force(store: Store, device: Plugged) -> None:
    """The backend lets go when its nodes are gone; a guest that lives fails its requests then (XB-25)."""
    store.transact(lambda view: view.remove(device.back))
    done = (XenbusState.CLOSED, XenbusState.UNKNOWN, XenbusState.INITIALISING)
    _wait(store, f"{device.front}/state", lambda: state(store, device.front) in done, FORCE_LIMIT)
    store.transact(lambda view: unplug(view, device))


def _wait(store: Store, path: str, done: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    with watching(store, path) as wait:
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            wait(min(left, LOOK))
    return True


def _stuck(domain: Domain, device: Plugged, toolstack: Toolstack, limit: float) -> TimeLimit:
    """Takes the request back, and says why."""
    store = toolstack.store
    front, back = state(store, device.front), state(store, device.back)
    kept = store.transact(lambda view: take_back(view, device))
    paused = domain.flags[2] == "p"
    cause = "it is paused" if paused else "its driver still uses it, or does not answer"
    left = (
        "nothing was changed"
        if kept
        else "it goes as soon as both sides let go: run the same command again then"
    )
    return TimeLimit(
        f"guest {domain.name} did not let {device.vdev} go within {limit:.0f} s: {cause}; {left}\n"
        f"    frontend {device.front}/state is {words(front)}\n"
        f"    backend  {device.back}/state is {words(back)}",
        hint=f"xl unpause {domain.name}"
        if paused
        else f"xenvirtio detach {domain.name} {device.vdev} --force, which loses what was not written",
    )


def _forget(toolstack: Toolstack, domain: Domain, vdev: str) -> None:
    def drop(record: Record) -> Record:
        devices = tuple(each for each in record.guest.devices if each.vdev != vdev)
        return replace(record, guest=replace(record.guest, devices=devices))

    if toolstack.records.update(domain.uuid, domain.domid, drop) is None:
        raise lost(domain)
