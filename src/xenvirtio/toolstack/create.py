"""Start a guest, with its virtio devices there before its first instruction; undo everything if that fails.

    check the host → kernel from its disk, if so asked → xl create -p -e → nodes, one transaction
                   → backends ready → unpause → devices connected

xl leaves the guest paused and unwatched: its own monitor would restart a rebooting guest without our devices
(lifecycle.py does that instead).
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError, XenError, XenvirtioError
from xenvirtio.toolstack.boot.files import BootFiles
from xenvirtio.toolstack.checks import Host, check_guest, check_running, check_user, image_end
from xenvirtio.toolstack.configuration.bootloader import WAYS
from xenvirtio.toolstack.connect import LOOK, wait_for_backends, wait_for_guest, watching
from xenvirtio.toolstack.nodes import guest_backends, plug, unplug_all
from xenvirtio.toolstack.records import Records
from xenvirtio.toolstack.running import find_guest
from xenvirtio.toolstack.sharing import check_path

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from xenvirtio.toolstack.configuration.guest import Guest, VirtioDevice
    from xenvirtio.toolstack.records import Record
    from xenvirtio.toolstack.xl import Domain, Xl
    from xenvirtio.xen.interfaces import DomainControl, Store, View

DEFAULT_LIMIT = 60.0
#: seconds that the daemon gets to let go of a guest that is gone, before its nodes are removed for it
UNPLUG_LIMIT = 10.0
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _silent(_: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Toolstack:
    """All that starting and stopping guests needs; `say` gets one line a stage."""

    xl: Xl
    store: Store
    control: Callable[[], DomainControl]
    host: Host = field(default_factory=Host)
    records: Records = field(default_factory=Records)
    say: Callable[[str], None] = _silent
    boot_files: BootFiles = field(default_factory=BootFiles)


@dataclass(frozen=True)
class StartOptions:
    """How to start a guest."""

    limit: float = DEFAULT_LIMIT  #: seconds, for each wait
    paused: bool = False  #: leave it paused, with its devices plugged
    wait: bool = True  #: until the guest's devices are connected
    console: bool = False  #: connect this terminal to its console before it runs


@dataclass(frozen=True)
class Started:
    """A guest that runs."""

    domain: Domain
    console: subprocess.Popen[bytes] | None = None


@dataclass(frozen=True)
class Destroyed:
    """A guest that is gone, and the domain that it was last."""

    name: str
    domid: int


def _nothing(_: Domain) -> None:
    """Nothing more to do."""


def start(
    guest: Guest,
    toolstack: Toolstack,
    options: StartOptions,
    then: Callable[[Domain], None] = _nothing,
) -> Started:
    """Start a guest, and call `then` when it runs; if that fails, the guest is undone as well.

    Raises UsageError before anything is made; XenError, TimeLimit, XenvirtioError and whatever interrupts it
    after all that was made is gone again.
    """
    xl, store, say = toolstack.xl, toolstack.store, toolstack.say
    check_user(toolstack.host)
    before = xl.domains()
    check_running(guest, before)
    for vdev, path, writable in guest.images():
        check_path(store, vdev, path, writable)
    check_guest(guest, toolstack.host)
    console = None
    with ExitStack() as undo:
        undo.callback(_undo, guest, toolstack, {domain.domid for domain in before})
        _build(guest, toolstack)
        look = partial(xl.find_domain, guest.uuid)
        domain = look()
        if domain is None:
            raise XenError(f"xl built guest {guest.name}, but does not list it", hint="xl dmesg | tail")
        if guest.devices:
            names = ", ".join(device.vdev for device in guest.devices)
            say(f"plugging {names} into domain {domain.domid}; the backend gets ready")
            store.transact(lambda view: _plug_all(view, guest, domain.domid))
            wait_for_backends(store, domain, guest.devices, options.limit, look)
        if options.console:
            console = xl.console(domain.domid)
            undo.callback(_end_console, console)
        if not options.paused:
            xl.unpause(domain.domid)
            if options.wait and guest.devices:
                say("the guest boots and connects its devices")
                wait_for_guest(store, domain, guest.devices, options.limit, look)
        then(domain)
        undo.pop_all()
    return Started(domain, console)


def destroy(name: str, toolstack: Toolstack) -> Destroyed:
    """Destroy a guest at once, as pulling the plug, and see to it that nothing of its devices stays.

    One that is between two domains, as it reboots, is not started again. `name` is its domain number, name
    or UUID. Raises UsageError if there is no such guest.
    """
    check_user(toolstack.host)
    try:
        domain = find_guest(name, toolstack.xl)
    except UsageError:
        record = toolstack.records.find(name)
        if record is None:
            raise
        return _destroy_between(record, toolstack)
    if domain.domid == 0:
        raise UsageError("domain 0 is this machine: it is not destroyed")
    record = None
    try:  # first: its watcher may be about to start it again
        record = toolstack.records.drop(domain.uuid)
    except XenvirtioError as error:
        toolstack.say(f"if guest {domain.name} reboots at this moment it comes back: {error.message}")
    try:
        toolstack.xl.destroy(domain.domid)
    except BaseException:
        if record is not None:
            toolstack.records.save(record)
        raise
    clean_up(domain.domid, toolstack)
    return Destroyed(domain.name, domain.domid)


def _destroy_between(record: Record, toolstack: Toolstack) -> Destroyed:
    """A guest that is between two domains, as it reboots."""
    domains = [domain for domain in toolstack.xl.domains() if not domain.dying]
    for domain in domains:
        if domain.uuid == record.guest.uuid:
            words = f"guest {record.guest.name} is called {domain.name} now"
            raise UsageError(words, hint=f"xenvirtio destroy {domain.domid}")
    toolstack.records.drop(record.guest.uuid)
    if record.domid not in [domain.domid for domain in domains]:
        clean_up(record.domid, toolstack)
    return Destroyed(record.guest.name, record.domid)


def clean_up(domid: int, toolstack: Toolstack) -> None:
    """After a guest is gone: let the daemon remove its nodes; remove what is left after UNPLUG_LIMIT."""
    store, path = toolstack.store, guest_backends(domid)
    end = time.monotonic() + UNPLUG_LIMIT
    if store.names(path) is not None and toolstack.host.daemon_runs():
        with watching(store, path) as wait:
            while store.names(path) is not None and (left := end - time.monotonic()) > 0:
                wait(min(left, LOOK))
    store.transact(lambda view: unplug_all(view, domid))


def _build(guest: Guest, toolstack: Toolstack) -> None:
    """By xl; with the kernel that pygrub finds at this moment, if it is on one of the guest's disks."""
    settings: AbstractContextManager[str] = nullcontext("")
    if guest.bootloader is not None:
        toolstack.say(f"pygrub takes the kernel from {guest.bootloader.vdev}, {guest.bootloader.image}")
        settings = toolstack.boot_files.settings(guest.bootloader, guest.uuid)
    with settings as found:
        toolstack.say(f"xl builds the {guest.type} guest {guest.name}")
        try:
            toolstack.xl.create(guest.xl_config + found)
        except XenError as error:
            unbootable = guest.type != "hvm" and not guest.files and guest.bootloader is None
            raise XenError(error.message, error.errno, error.hint or (WAYS if unbootable else None)) from None


def _plug_all(view: View, guest: Guest, domid: int) -> None:
    for device in guest.devices:
        plug_measured(view, domid, device)


def plug_measured(view: View, domid: int, device: VirtioDevice) -> None:
    """`plug`; a disk gets the size that its image has now, and keeps it until `resize` unless the image gets
    shorter. Raises UsageError if the image cannot be opened."""
    if device.is_disk:
        end = image_end(f"disk {device.vdev}", device.settings["path"])
        device = replace(device, settings={**device.settings, "size": str(end)})
    plug(view, domid, device)


def _undo(guest: Guest, toolstack: Toolstack, before: Collection[int]) -> None:
    """Remove the guest if it is there and was not before; an error here is only said, not raised."""
    with uninterrupted():
        try:
            domain = toolstack.xl.find_domain(guest.uuid)
            if domain is None or domain.domid in before:
                return
            toolstack.say(f"undoing: destroying guest {guest.name}")
            toolstack.xl.destroy(domain.domid)
            clean_up(domain.domid, toolstack)
            toolstack.records.forget(guest.uuid, domain.domid)
        except XenvirtioError as error:
            toolstack.say(f"could not undo all: {error.message}; run: xl destroy {guest.name}")


def _end_console(console: subprocess.Popen[bytes]) -> None:
    console.terminate()
    console.wait()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second ctrl-C does not stop what the first one started."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
