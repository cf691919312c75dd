"""Waiting for a guest's devices: first for every backend, then for both sides; and why one did not come."""

from __future__ import annotations

import itertools
import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit, XenError, XenvirtioError
from xenvirtio.toolstack.nodes import BACKEND, backend_error, frontend_error, state, words
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xenvirtio.toolstack.configuration.guest import VirtioDevice
    from xenvirtio.toolstack.xl import Domain
    from xenvirtio.xen.interfaces import Store

#: seconds between looks when nothing was reported: a watch that is lost costs no more than this
LOOK = 1.0
#: seconds between looks at the domain itself, which start xl; its end is reported by xenstored anyway
LOOK_AT_DOMAIN = 15.0
#: raised by xenstored when a domain shuts down or is destroyed (docs/misc/xenstore.txt)
RELEASE = "@releaseDomain"
_NUMBERS = itertools.count()


@contextmanager
def watching(store: Store, *paths: str) -> Iterator[Callable[[float], Sequence[str]]]:
    """Watch paths; the function given waits at most so many seconds, and tells where something happened.

    As xenstored has it, each path is told once at first. Where two are nested the inner one gets all events:
    who waits in the outer one looks before that.
    """
    watched: dict[str, str] = {}  # token → path

    def wait(seconds: float) -> Sequence[str]:
        select.select([store.fileno()], [], [], seconds)
        return [watched[token] for _, token in store.events() if token in watched]

    try:
        for path in paths:
            token = f"watch {next(_NUMBERS)}"  # a connection cannot have the same watch twice
            store.watch(path, token)
            watched[token] = path
        yield wait
    finally:
        for token, path in watched.items():
            store.unwatch(path, token)


def wait_for_backends(
    store: Store,
    domain: Domain,
    devices: Sequence[VirtioDevice],
    limit: float,
    look: Callable[[], Domain | None],
) -> None:
    """Until the backend of every device waits for its guest (InitWait); `look` shows how the domain is.

    Raises XenvirtioError with the backend's own words if it cannot serve one, TimeLimit after `limit`
    seconds, XenError if the guest went.
    """
    ready = (XenbusState.INIT_WAIT, XenbusState.INITIALISED, XenbusState.CONNECTED)

    def waits(device: VirtioDevice) -> bool:
        return state(store, DeviceKey(domain.domid, device.number).backend(BACKEND)) in ready

    late = _wait(store, domain.domid, devices, limit, waits, lambda: _check_domain(domain, look))
    if late is not None:
        path = DeviceKey(domain.domid, late.number).backend(BACKEND)
        raise TimeLimit(
            f"{late.vdev}: the backend did not get ready within {limit:.0f} s: {path}/state is "
            f"{words(state(store, path))}; the daemon has not taken the device up",
            hint="xenvirtio daemon must be running; its log says more",
        )


def wait_for_guest(
    store: Store,
    domain: Domain,
    devices: Sequence[VirtioDevice],
    limit: float,
    look: Callable[[], Domain | None],
) -> None:
    """Until both sides of every device are Connected; `look` shows how the domain is.

    Raises TimeLimit after `limit` seconds with both states and the likely cause, XenError if the guest went.
    """

    def connected(device: VirtioDevice) -> bool:
        paths = DeviceKey(domain.domid, device.number)
        return all(state(store, p) is XenbusState.CONNECTED for p in (paths.backend(BACKEND), paths.frontend))

    late = _wait(store, domain.domid, devices, limit, connected, lambda: _check_domain(domain, look))
    if late is not None:
        raise _not_connected(store, domain, late, limit)


def _check_domain(domain: Domain, look: Callable[[], Domain | None]) -> None:
    now = look()
    if now is None or now.domid != domain.domid:
        words = f"guest {domain.name} was destroyed before its virtio devices were connected"
        raise XenError(words, hint="xl list")
    if now.reason is not None:
        raise XenError(
            f"guest {domain.name} ended ({now.reason}) before its virtio devices were connected",
            hint="`xenvirtio create --console …` shows what it prints",
        )


def _wait(
    store: Store,
    domid: int,
    devices: Sequence[VirtioDevice],
    limit: float,
    done: Callable[[VirtioDevice], bool],
    check: Callable[[], None],
) -> VirtioDevice | None:
    """None when all devices are done; the first that is not when the time is over.

    `check` looks at the domain, whenever one has ended, and before it is told that the time is over.
    """
    end = time.monotonic() + limit
    next_check = time.monotonic() + LOOK_AT_DOMAIN
    paths = [DeviceKey(domid, device.number) for device in devices]
    nodes = [f"{side}/state" for path in paths for side in (path.backend(BACKEND), path.frontend)]
    first = True
    with watching(store, *nodes, RELEASE) as wait:
        while True:
            late = next((device for device in devices if not done(device)), None)
            if late is None:
                return None
            _refuse_failed(store, domid, devices)
            left = end - time.monotonic()
            if left <= 0:
                check()
                return late
            released = RELEASE in wait(min(left, LOOK))
            ended = released and not first
            first = first and not released
            if ended or time.monotonic() >= next_check:
                check()
                next_check = time.monotonic() + LOOK_AT_DOMAIN


def _refuse_failed(store: Store, domid: int, devices: Sequence[VirtioDevice]) -> None:
    for device in devices:
        path = DeviceKey(domid, device.number).backend(BACKEND)
        reason = backend_error(store, path)
        if reason is not None and state(store, path) in (XenbusState.CLOSING, XenbusState.CLOSED):
            raise XenvirtioError(f"{device.vdev}: the backend cannot serve it: {reason}")
        refusal = frontend_error(store, domid, device.number)
        if refusal is not None:
            raise XenvirtioError(f"{device.vdev}: the guest's driver does not take it: {refusal}")


def _not_connected(store: Store, domain: Domain, device: VirtioDevice, limit: float) -> TimeLimit:
    paths = DeviceKey(domain.domid, device.number)
    back, front = state(store, paths.backend(BACKEND)), state(store, paths.frontend)
    if front is XenbusState.INITIALISING:
        cause = (
            "the guest's kernel has no virtio_xenbus module, or has not loaded it (or has not booted so far)"
        )
        hint = (
            "modprobe virtio_xenbus in the guest, or put it into its initramfs (guest/linux); slow: --timeout"
        )
    elif front is XenbusState.INITIALISED and back is XenbusState.INIT_WAIT:
        cause = "the guest offered its device page, and the backend did not take it: the daemon does not run"
        hint = "xenvirtio daemon; its log says more"
    elif front is XenbusState.INITIALISED and back is XenbusState.CONNECTED:
        cause = (
            "the guest's driver did not accept the device page: versions differ, or it found a wrong value"
        )
        hint = f"xl console {domain.name}, and look for virtio_xenbus in dmesg"
    elif front in (XenbusState.CLOSING, XenbusState.CLOSED):
        cause = "the guest's driver gave the device up"
        hint = f"xl console {domain.name}, and look for virtio_xenbus in dmesg"
    else:
        cause = "the two sides did not agree"
        hint = "the daemon's log and the guest's dmesg say more"
    return TimeLimit(
        f"{device.vdev} of guest {domain.name} was not connected within {limit:.0f} s: {cause}\n"
        f"    frontend {paths.frontend}/state is {words(front)}\n"
        f"    backend  {paths.backend(BACKEND)}/state is {words(back)}",
        hint=hint,
    )
