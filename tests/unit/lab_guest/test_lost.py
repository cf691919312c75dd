"""An HVM guest that the emulator lost is started again, and said so; a failure of ours is not excused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import LabError, LabLost
from xenvirtio.lab.guest import GuestConfig, GuestLost
from xenvirtio.lab.guest.lost import start_again
from xenvirtio.lab.results import Completed
from xenvirtio.toolstack.nodes import words
from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from collections.abc import Callable

HVM = GuestConfig("one", type="hvm")
FAULT = "(XEN) d{}v0 Triple fault - invoking HVM shutdown action 1\n"
#: as the command line prints toolstack.connect's time limit
NEVER_CAME = (
    "guest one was not started:\nerror: vda of guest one was not connected within 150 s: …\n"
    f"    frontend /local/domain/3/device/virtio/0/state is {words(XenbusState.INITIALISING)}\n"
    f"    backend  /local/domain/0/backend/virtio/3/0/state is {words(XenbusState.INIT_WAIT)}"
)


class FakeXen:
    """A lab whose `xl dmesg` is `log`."""

    def __init__(self) -> None:
        self.log = FAULT.format(1)  # of a guest before ours
        self.notes: list[str] = []

    def run(self, command: str, /) -> Completed:
        assert command == "xl dmesg"
        return Completed((command,), 0, self.log, "")

    def note(self, text: str) -> None:
        self.notes.append(text)


def failing(times: int, fail: Callable[[], None]) -> Callable[[], int]:
    """An action that fails so often, and then returns how often it was called."""
    calls: list[None] = []

    def action() -> int:
        calls.append(None)
        if len(calls) <= times:
            fail()
        return len(calls)

    return action


def test_a_triple_fault_starts_the_guest_again_and_is_told() -> None:
    xen = FakeXen()

    def fault() -> None:
        xen.log += FAULT.format(7)
        raise LabError("its console is gone")

    assert start_again(xen, HVM, failing(1, fault)) == 2
    assert xen.notes == ["The emulator lost HVM guest one (a triple fault of domain 7): it is started again"]


def test_the_third_loss_is_an_error() -> None:
    xen = FakeXen()

    def fault() -> None:
        xen.log += FAULT.format(7 + len(xen.notes))
        raise LabError("its console is gone")

    with pytest.raises(GuestLost, match="3 times"):
        start_again(xen, HVM, failing(9, fault))
    assert len(xen.notes) == 2


@pytest.mark.parametrize("message", ["md5 differs", NEVER_CAME])
def test_a_failure_without_a_sign_of_loss_is_one(message: str) -> None:
    def fail() -> None:
        raise LabError(message)

    xen = FakeXen()
    with pytest.raises(LabError, match=message.partition("\n")[0]):
        start_again(xen, HVM, failing(1, fail))
    assert xen.notes == []


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_other_guests_are_not_started_again(kind: str) -> None:
    xen = FakeXen()

    def fault() -> None:
        xen.log += FAULT.format(7)
        raise LabError("its console is gone")

    with pytest.raises(LabError, match="console is gone"):
        start_again(xen, GuestConfig("one", type=kind), failing(1, fault))


def test_a_lab_that_went_away_is_not_asked() -> None:
    def gone() -> None:
        raise LabLost("gone")

    with pytest.raises(LabLost):
        start_again(FakeXen(), HVM, failing(1, gone))
