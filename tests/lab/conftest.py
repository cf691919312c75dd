"""Tests on the real Xen of a lab: one lab a session, its daemon, and guests.

A lab that goes away says nothing about the product: such a test is reported as "lab lost", neither passed nor
failed, the session ends there, and pytest's exit status is 3.

    XENVIRTIO_LAB=name        which lab (default: tests); one that is up already is used as it is and stays up
    --lab-release bookworm    on which Debian and Xen
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.lab_rig import GuestMaker, traces, traces_after
from xenvirtio.errors import LabLost
from xenvirtio.lab import Lab
from xenvirtio.lab.guest import Backend, Guest
from xenvirtio.lab.stages import progress_for
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LOST_STATUS = 3
#: of the session's guest, which may live beside those of other tests
SESSION_ADDRESS = "10.77.0.9/24"
_LOST = pytest.StashKey[str]()
_MARK = "lab_lost"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab-release", default="trixie", help="Debian release of the lab (trixie, bookworm)")
    parser.addoption("--rounds", default="20", help="attach and detach so often (20)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limits for an emulated machine, where a test says nothing else."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(420))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(LabLost):
        reason = f"lab lost: {call.excinfo.value}"
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.reportinfo()[1] or 0, reason)
        setattr(report, _MARK, True)
        item.session.shouldstop = reason
        item.config.stash[_LOST] = reason
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    return ("lab lost", "L", "LAB LOST") if getattr(report, _MARK, False) else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _LOST in session.config.stash:
        session.exitstatus = LOST_STATUS


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reason = config.stash.get(_LOST, None)
    if reason is not None:
        terminalreporter.section("lab lost", red=True)
        terminalreporter.line(f"{reason}\nThe tests after this point did not run. See: xenvirtio lab log")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    release = request.config.getoption("--lab-release")
    made = Lab(
        os.environ.get("XENVIRTIO_LAB", "tests"), release, progress=progress_for(sys.__stderr__ or sys.stderr)
    )
    was_up = made.status().running
    made.up()
    yield made
    if not was_up:
        made.down()


@pytest.fixture(scope="session")
def backend(lab: Lab) -> Backend:
    """The daemon, which serves all tests of the session: none may break it for the next."""
    made = Backend(lab)
    made.start()
    return made


@pytest.fixture
def guests(lab: Lab, backend: Backend) -> Iterator[GuestMaker]:
    """Makes guests that are gone after the test, and sees to it that nothing of them stays."""
    before = traces(lab)
    with ExitStack() as stack:
        yield GuestMaker(lab, backend, stack)
    assert traces_after(lab, before) == before


@pytest.fixture(scope="session", params=[MemoryAccess.GRANT, MemoryAccess.FOREIGN])
def guest(request: pytest.FixtureRequest, lab: Lab, backend: Backend) -> Iterator[Guest]:
    """A guest in each mode, for all tests that leave it as it was: vda (512 MiB), the tools, eth0."""
    mode = request.param
    before = traces(lab)
    with ExitStack() as stack:
        yield GuestMaker(lab, backend, stack).usual(f"t-{mode}", mode, SESSION_ADDRESS)
    assert traces_after(lab, before) == before
