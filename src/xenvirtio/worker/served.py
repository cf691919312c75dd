"""One device as the supervisor serves it: its walk, its settings, the order whose answer it waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xenvirtio.transport.xenbus import nodes
from xenvirtio.transport.xenbus.backend import Walk
from xenvirtio.transport.xenbus.nodes import DeviceKey, NodeError, Settings
from xenvirtio.worker import messages

if TYPE_CHECKING:
    from xenvirtio.transport.xenbus.backend import Action, Publish
    from xenvirtio.transport.xenbus.nodes import Snapshot
    from xenvirtio.worker.limits import Limits
    from xenvirtio.worker.loop import Timer
    from xenvirtio.xen.interfaces import Store


class ServedDevice:
    """One order at a time; `settings` are those that the worker has, or is told."""

    def __init__(self, key: DeviceKey) -> None:
        self.key = key
        self.walk = Walk()
        self.settings: Settings | None = None
        self.ticket = 0
        self.order: type[messages.Message] | None = None
        self.deadline: Timer | None = None
        self.published: Publish | None = None
        """the newest; one that failed is written again unless there is a newer one"""
        self.retry: Timer | None = None
        self._tries = 0

    def expect(self, ticket: int, order: type[messages.Message], deadline: Timer) -> None:
        self.settle()
        self.ticket, self.order, self.deadline = ticket, order, deadline

    def settle(self) -> type[messages.Message] | None:
        """No answer is awaited any more; which one was."""
        if self.deadline is not None:
            self.deadline.cancel()
        order, self.order, self.deadline = self.order, None, None
        return order

    def next_try(self, limits: Limits) -> float:
        """Seconds until what failed is tried again: more each time, until it has worked."""
        self._tries += 1
        return min(limits.retry_seconds * (1 << min(self._tries - 1, 16)), limits.retry_seconds_max)

    def follow(
        self, order: type[messages.Message] | None, failed: messages.Failed | None, now: Snapshot
    ) -> list[Action]:
        """What the worker's answer to an order leads to; `failed`: it could not be carried out."""
        if order is messages.Discard:
            return self.walk.discarded(now)
        if order is messages.Detach:
            return self.walk.detached(now)
        if failed is not None and order in (messages.Prepare, messages.Attach):
            return self.walk.failed(failed.words, for_good=failed.for_good)
        if order is messages.Prepare:
            return self.walk.prepared(now)
        if order is messages.Attach:
            self._tries = 0
            return self.walk.attached(now)
        return []

    # --- settings that change while it serves (B/host/update) ---

    def changed(self, store: Store, own: int) -> bool:
        """Whether the toolstack has changed settings that the worker has; `settings` are the new ones then.

        Raises XenError."""
        if self.settings is None or not self.walk.hosted:
            return False
        update = nodes.read_update(store, self.key, own)
        if update == self.settings.update:
            return False
        try:
            self.settings = nodes.read_settings(store, self.key, own)
        except NodeError as error:
            self.settings = replace(self.settings, update=update)
            self.confirm(store, own, error.message)
            return False
        return True

    def confirm(self, store: Store, own: int, error: str | None = None) -> None:
        """Tells the toolstack that the settings hold, or why not. Raises XenError."""
        if self.settings is not None and self.settings.update:
            update = self.settings.update
            store.transact(lambda view: nodes.publish_update(view, self.key, own, update, error))
