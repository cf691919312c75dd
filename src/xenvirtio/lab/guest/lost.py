"""HVM guests that the emulator lost, and not xenvirtio: told from failures, and started again.

Under emulated SVM an HVM guest now and then takes a triple fault, or stops while it boots, with QEMU's own
devices, too. Two signs tell it: Xen's log has a triple fault, or the guest's driver never came while the
backend was ready and waiting for it. PV and PVH guests do not show it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, TypeVar

from xenvirtio.errors import LabError, LabLost, TimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.lab.guest.config import GuestConfig
    from xenvirtio.lab.results import Completed

T = TypeVar("T")

#: how often a guest that was lost is started again
AGAIN = 2
_FAULT = re.compile(r"\bd(\d+)v\d+ Triple fault")
#: of xenvirtio create's message about a guest that did not connect: it never left its first state
_SILENT = re.compile(r"frontend \S+/state is Initialising .*backend +\S+/state is InitWait ", re.DOTALL)


class GuestLost(LabError):
    """The emulator lost the guest as often as it was started."""


class Xen(Protocol):
    """What is asked of the lab."""

    def run(self, command: str, /) -> Completed: ...

    def note(self, text: str) -> None: ...


def triple_faults(lab: Xen) -> frozenset[int]:
    """Numbers of the domains whose triple fault is in Xen's log."""
    return frozenset(int(found) for found in _FAULT.findall(lab.run("xl dmesg").check().stdout))


def start_again(lab: Xen, config: GuestConfig, action: Callable[[], T]) -> T:
    """What `action`, which starts the guest, returns; done again if the emulator loses an HVM guest in it.

    Errors of `action` go through if nothing says that the guest was lost. The third loss is GuestLost.
    """
    if config.type != "hvm":
        return action()
    for again in range(AGAIN + 1):
        before = triple_faults(lab)
        try:
            return action()
        except (LabLost, GuestLost):
            raise
        except (LabError, TimeLimit) as error:
            why = _why(lab, before, error)
            if why is None:
                raise
            if again == AGAIN:
                raise GuestLost(
                    f"the emulator lost HVM guest {config.name} {again + 1} times, last by {why}",
                    hint="try again; PV and PVH guests do not have this",
                ) from error
            lab.note(f"The emulator lost HVM guest {config.name} ({why}): it is started again")
    raise AssertionError


def _why(lab: Xen, before: frozenset[int], error: LabError | TimeLimit) -> str | None:
    new = triple_faults(lab) - before
    if new:
        return f"a triple fault of domain {max(new)}"
    return "no sign of life" if _SILENT.search(error.message) else None
