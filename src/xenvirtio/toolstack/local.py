"""The toolstack of this machine: its xl, its XenStore, its daemon.

Each function imports what it needs: `xenvirtio list` starts without what starts guests.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

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
    from xenvirtio.xen.store import XenStore

    host = Host(daemon_runs=daemon_runs)
    check_user(host)
    xl = Xl.find()
    with XenStore() as store:
        yield Toolstack(xl, store, host, say=say)


def local_rows() -> list[DeviceRow]:
    """All virtio devices that this machine serves, with the daemon's counters if it runs."""
    from xenvirtio.toolstack.listing import rows
    from xenvirtio.xen.store import XenStore

    check_user(Host())
    with XenStore() as store:
        return rows(store, counters())
