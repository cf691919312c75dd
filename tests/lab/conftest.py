"""Tests on the real Xen of a lab: one lab a session, its daemon, and guests.

A lab that goes away says nothing about the product: such a test is reported as "lab lost", neither passed nor
failed, the session ends there, and pytest's exit status is 3.

    XENVIRTIO_LAB=name        which lab (default: tests); one that is up already is used as it is and stays up
    --lab-release bookworm    on which Debian and Xen
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.lab_rig import GuestMaker, traces, traces_after
from xenvirtio.errors import LabLost
from xenvirtio.lab import Lab, debian
from xenvirtio.lab.guest import Backend, Guest, debian_image
from xenvirtio.lab.modulecheck import check
from xenvirtio.lab.paths import Cache
from xenvirtio.lab.payload import Sources
from xenvirtio.lab.stages import progress_for
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from xenvirtio.lab.guest.debian_image import DebianImage

LOST_STATUS = 3
#: of the session's guest, which may live beside those of other tests
SESSION_ADDRESS = "10.77.0.9/24"
_LOST = pytest.StashKey[str]()
_MARK = "lab_lost"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab-release", default="trixie", help="Debian release of the lab (trixie, bookworm)")
    parser.addoption("--rounds", default="20", help="attach and detach so often (20)")
    parser.addoption("--root-type", default="pv", help="guest that has its root on a virtio disk (pv, pvh)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limits for an emulated machine, where a test says nothing else; what fixtures wait for has its own."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(420, func_only=True))


class Meanwhile:
    """Jobs on the host that take a minute and no lab: one after the other, beside the first tests."""

    def __init__(self, release: debian.Release, pool: ThreadPoolExecutor, wanted: set[str]) -> None:
        """Begins those whose fixture is among the `wanted`."""
        cache, sources = Cache.of(os.environ), Sources.find(os.environ)
        progress = progress_for(sys.__stderr__ or sys.stderr)
        if "debian_disk" in wanted:
            self.debian_disk = pool.submit(debian_image.ensure, cache, release, sources, progress).result
        if "module_checks" in wanted:
            self.module_checks = {
                name: pool.submit(check, cache, name, sources.root / "guest/linux", progress).result
                for name in debian.RELEASES
            }


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
def lab(lab_up: Lab, meanwhile: Meanwhile) -> Lab:
    """The session's lab, up; what its tests will ask of the host is begun."""
    assert meanwhile
    return lab_up


@pytest.fixture(scope="session")
def lab_up(request: pytest.FixtureRequest) -> Iterator[Lab]:
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
def meanwhile(request: pytest.FixtureRequest, lab_up: Lab) -> Iterator[Meanwhile]:
    """Begins what the session's tests will ask for, on the processor time that the lab leaves."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    with ThreadPoolExecutor(1) as pool:
        yield Meanwhile(lab_up.release, pool, wanted)
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def debian_disk(meanwhile: Meanwhile) -> DebianImage:
    """A disk with Debian on it, for a guest that boots from it."""
    return meanwhile.debian_disk()


@pytest.fixture(scope="session")
def module_checks(meanwhile: Meanwhile) -> Mapping[str, Callable[[], str]]:
    """What the module's static checks say, by release; raises what the check raises."""
    return meanwhile.module_checks


@pytest.fixture(scope="session")
def backend(lab: Lab) -> Backend:
    """The daemon, which serves all tests of the session; one that stops it starts it again."""
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
