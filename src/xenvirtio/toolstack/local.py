"""The toolstack of this machine: its xl, its XenStore, its daemon.

Each function imports what it needs: `xenvirtio list` starts without what starts guests.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.toolstack.checks import Host, check_user
from xenvirtio.worker.status import counters, daemon_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.listing import DeviceRow


@contextmanager
def local_toolstack(say: Callable[[str], None]) -> Iterator[Toolstack]:
    """Connect to all of it; `say` gets one line a stage.

    Raises UsageError for anyone but root, MissingDependency for what is not there.
    """
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.xl import Xl
    from xenvirtio.xen.control import XenControl
    from xenvirtio.xen.store import XenStore

    host = Host(daemon_runs=daemon_runs)
    check_user(host)
    xl = Xl.find()
    with XenStore() as store:
        yield Toolstack(xl, store, XenControl, host, say=say)


def local_rows(guest: str | None = None, seconds: float = 0) -> list[DeviceRow]:
    """All virtio devices that this machine serves, or one guest's, with the daemon's counters if it runs.

    `guest` is a name or a domain number. Rates are those of the next `seconds`, which pass here; without,
    those of the workers' last seconds. Raises UsageError if there is no such guest with virtio devices.
    """
    from xenvirtio.toolstack.listing import rows
    from xenvirtio.xen.store import XenStore

    check_user(Host())
    with XenStore() as store:
        earlier = None
        if seconds:
            earlier = counters()
            time.sleep(seconds)
        found = rows(store, counters(), earlier, guest)
    if guest is not None and not found:
        raise UsageError(f"no guest {guest!r} has virtio devices", hint="xenvirtio list, or xl list")
    return found
