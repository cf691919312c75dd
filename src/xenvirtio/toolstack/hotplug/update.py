"""Settings of a device that a guest uses: they change in B/host, the daemon carries them out and says so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit, XenvirtioError
from xenvirtio.toolstack.connect import LOOK, watching
from xenvirtio.toolstack.nodes import backend_error, change, changed, state, words
from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenvirtio.toolstack.nodes import Plugged
    from xenvirtio.xen.interfaces import Store, View

DEFAULT_LIMIT = 30.0


def change_settings(
    store: Store, device: Plugged, settings: Mapping[str, str | None], limit: float = DEFAULT_LIMIT
) -> None:
    """Change settings of a device and wait until they hold; None removes one.

    Raises XenvirtioError if they cannot, TimeLimit after `limit` seconds; the settings are as before then.
    """
    before = {key: device.settings.get(key) for key in settings}
    try:
        _change(store, device, settings, limit)
    except BaseException:
        store.transact(lambda view: _restore(view, device, before))
        raise


def check_served(view: View, device: Plugged) -> XenbusState:
    """The backend's state. Raises XenvirtioError if it is one in which nobody serves the device."""
    now = state(view, device.back)
    if now in (XenbusState.CLOSED, XenbusState.UNKNOWN):
        why = backend_error(view, device.back) or "it is being detached, or its guest has ended"
        raise XenvirtioError(f"{device.vdev} is not served: {why}", hint="xenvirtio list")
    return now


def _restore(view: View, device: Plugged, settings: Mapping[str, str | None]) -> None:
    if view.read(f"{device.back}/state") is not None:
        change(view, device, settings)


def _change(store: Store, device: Plugged, settings: Mapping[str, str | None], limit: float) -> None:
    def make(view: View) -> str:
        check_served(view, device)
        return change(view, device, settings)

    update = store.transact(make)
    end = time.monotonic() + limit
    with watching(store, device.back) as wait:
        while (answer := changed(store, device, update)) is None:
            now = check_served(store, device)
            left = end - time.monotonic()
            if left <= 0:
                raise TimeLimit(
                    f"the daemon did not change {device.vdev} within {limit:.0f} s; backend {words(now)}",
                    hint="the daemon's log says more",
                )
            wait(min(left, LOOK))
    if answer:
        raise XenvirtioError(f"{device.vdev} cannot be changed: {answer}")
