"""HVM guests that the emulator lost while they booted, and not xenvirtio: told from failures, started again.

Under emulated SVM an HVM guest now and then takes a triple fault, with QEMU's own devices, too; Xen's log has
it. Since each type of guest has an emulated processor of its own (config.PROCESSORS) it was not seen again.
Only a boot is excused: a guest that is lost later fails what it was for.
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
            new = triple_faults(lab) - before
            if not new:
                raise
            why = f"a triple fault of domain {max(new)}"
            if again == AGAIN:
                raise GuestLost(
                    f"the emulator lost HVM guest {config.name} {again + 1} times, last by {why}",
                    hint="try again; PV and PVH guests do not have this",
                ) from error
            lab.note(f"The emulator lost HVM guest {config.name} ({why}): it is started again")
    raise AssertionError
