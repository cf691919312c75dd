"""A device goes from a guest that runs (XB-22): the guest lets go, then the backend; the nodes are removed.

online 0, Closing ──► guest Closed, backend Closed ──► nodes removed
     │ the guest says that it uses it, or does not follow in time
     ├──► taken back: the guest keeps the device, and the user is told why; one that had begun is followed
     └──► by force: backend's nodes, then guest's
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit, UsageError, XenvirtioError
from xenvirtio.toolstack.checks import check_user
from xenvirtio.toolstack.connect import LOOK, watching
from xenvirtio.toolstack.create import uninterrupted
from xenvirtio.toolstack.nodes import (
    ask_to_close,
    error_folder,
    in_use,
    state,
    take_back,
    unplug,
    words,
)
from xenvirtio.toolstack.running import (
    check_daemon,
    find_device,
    find_running,
    lost,
    need_record,
    refuse_qemu_disk,
)
from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
#: seconds in which a guest shows that it had begun to remove a device when the request was taken back, and
#: again as many for it to finish
TAKE_BACK_LIMIT = 2.0
#: how often a guest is asked that uses the device, and the seconds between: udev looks at a disk for a moment
TRIES = 3
PAUSE = 1.0


class Answer(Enum):
    """What the guest did when it was asked."""

    CLOSED = auto()
    IN_USE = auto()
    NONE = auto()


class Outcome(Enum):
    """What came of a request that was taken back."""

    KEPT = auto()
    GOING = auto()
    GONE = auto()


@dataclass(frozen=True)
class DetachOptions:
    """How to detach a device."""

    limit: float = DEFAULT_LIMIT  #: seconds, for the guest to let go
    force: bool = False  #: take it from a guest that uses it or does not answer
    persist: bool = False  #: it does not come back when the guest reboots


def detach(name: str, vdev: str, toolstack: Toolstack, options: DetachOptions) -> None:
    """Detach the device `vdev` from the guest `name`; one that is not there is no error, only a word.

    Raises UsageError if there is no such guest, no device can be called so, or the guest uses it;
    TimeLimit if the guest does not let go. It keeps the device then.
    """
    store = toolstack.store
    check_user(toolstack.host)
    domain = find_running(name, toolstack.xl)
    if options.persist:
        need_record(toolstack, domain)
    device = find_device(store, domain, vdev)
    if device is None:
        refuse_qemu_disk(toolstack, domain, vdev)
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
        kept = _ask(domain, device, toolstack, options)
    except BaseException:  # ctrl-C, above all
        with uninterrupted():
            outcome = _withdraw(store, device)
        if outcome is not Outcome.KEPT:
            is_so = "is gone" if outcome is Outcome.GONE else "goes"
            say(f"{device.vdev} {is_so} all the same: guest {domain.name} had begun to remove it")
        raise
    if kept is not None:
        raise kept


def _ask(
    domain: Domain, device: Plugged, toolstack: Toolstack, options: DetachOptions
) -> XenvirtioError | None:
    """None when the device is gone, or why the guest keeps it."""
    store = toolstack.store
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE)
        answer = _close(store, device, options.limit, insist=options.force)
        if answer is Answer.CLOSED:
            store.transact(lambda view: unplug(view, device))
            return None
        if answer is Answer.NONE:
            return _overdue(domain, device, toolstack, options)
        why = in_use(store, device)
        store.transact(lambda view: take_back(view, device))
    return UsageError(
        f"guest {domain.name} keeps {device.vdev}: {why}; nothing was changed",
        hint=f"unmount it in the guest; or: xenvirtio detach {domain.name} {device.vdev} --force",
    )


def _overdue(
    domain: Domain, device: Plugged, toolstack: Toolstack, options: DetachOptions
) -> TimeLimit | None:
    """What follows when the guest has not answered in time; None if the device is gone by that."""
    store, say = toolstack.store, toolstack.say
    if options.force:
        say(f"it did not within {options.limit:.0f} s: removing {device.vdev} by force")
        _remove_by_force(store, device)
        return None
    seen = state(store, device.front), state(store, device.back)
    outcome = _withdraw(store, device)
    if outcome is Outcome.GONE:
        say(f"it was late: {device.vdev} is gone")
        return None
    return _stuck(domain, device, options.limit, seen, outcome)


def pull(store: Store, device: Plugged, limit: float) -> None:
    """Detach a device, by force after `limit` seconds."""
    if _close(store, device, limit, insist=True) is Answer.CLOSED:
        store.transact(lambda view: unplug(view, device))
    else:
        _remove_by_force(store, device)


def _close(store: Store, device: Plugged, limit: float, *, insist: bool) -> Answer:
    """What has come of it within `limit` seconds; CLOSED when both sides have let go."""
    store.transact(lambda view: ask_to_close(view, device, insist=insist))
    paths = (f"{device.back}/state", error_folder(device.domid, device.number))

    def answered() -> bool:
        return _closed(store, device) or (not insist and in_use(store, device) is not None)

    if not _wait(store, paths, answered, limit):
        return Answer.NONE
    return Answer.CLOSED if _closed(store, device) else Answer.IN_USE


def _withdraw(store: Store, device: Plugged) -> Outcome:
    """Take the request back, if that is not done, and see what the guest makes of it.

    A frontend says Connected until it has removed the device: one that leaves that state now had begun, and
    is followed to its end.
    """
    store.transact(lambda view: take_back(view, device))
    gone = (XenbusState.CLOSING, XenbusState.CLOSED, XenbusState.UNKNOWN)

    def leaves() -> bool:
        return state(store, device.front) in gone

    taken_back = store.read(f"{device.back}/online") == "1"
    if taken_back and not _wait(store, (f"{device.front}/state",), leaves, TAKE_BACK_LIMIT):
        return Outcome.KEPT
    if _close(store, device, TAKE_BACK_LIMIT, insist=True) is not Answer.CLOSED:
        return Outcome.GOING
    store.transact(lambda view: unplug(view, device))
    return Outcome.GONE


def _closed(store: Store, device: Plugged) -> bool:
    """Closed is what the backend says last; Unknown: the guest is gone, and the daemon has cleaned up."""
    return state(store, device.back) in (XenbusState.CLOSED, XenbusState.UNKNOWN)


def _remove_by_force(store: Store, device: Plugged) -> None:
    """The backend lets go when its nodes are gone; a guest that lives fails its requests then (XB-25)."""
    store.transact(lambda view: view.remove(device.back))
    done = (XenbusState.CLOSED, XenbusState.UNKNOWN, XenbusState.INITIALISING)
    _wait(store, (f"{device.front}/state",), lambda: state(store, device.front) in done, FORCE_LIMIT)
    store.transact(lambda view: unplug(view, device))


def _wait(store: Store, paths: Sequence[str], done: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    with watching(store, *paths) as wait:
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            wait(min(left, LOOK))
    return True


def _stuck(
    domain: Domain,
    device: Plugged,
    limit: float,
    seen: tuple[XenbusState, XenbusState],
    outcome: Outcome,
) -> TimeLimit:
    """Why the guest has the device still; the states are the frontend's and the backend's after `limit`."""
    front, back = seen
    paused = domain.flags[2] == "p"
    cause = (
        "it is paused" if paused else "its driver does not answer, or waits for requests that are under way"
    )
    left = (
        "nothing was changed"
        if outcome is Outcome.KEPT
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
