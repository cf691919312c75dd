"""What happens when a guest ends (on_poweroff, on_reboot … on_soft_reset of xl.cfg(5))."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.errors import XenError, XenvirtioError
from xenvirtio.toolstack import lifecycle
from xenvirtio.toolstack.create import StartOptions, destroy, start
from xenvirtio.toolstack.lifecycle import attend, leave_watcher
from xenvirtio.toolstack.records import Record, Records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POWEROFF, REBOOT, SUSPEND, CRASH, WATCHDOG, KEXEC = 0, 1, 2, 3, 4, 5


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(lifecycle, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(lifecycle, "DAEMON_LOOK", 0.01)
    return World(tmp_path)


def started(world: World, more: str = "") -> Record:
    guest = world.usual_guest(more)
    record = Record(guest, start(guest, world.toolstack, StartOptions(0.3)).domain.domid, 0.3)
    world.toolstack.records.save(record)
    return record


def running(world: World) -> list[int]:
    return [domain["domid"] for domain in world.domains if domain["domid"]]


def replace_sleep(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """The watcher's own sleep only: subprocess sleeps too."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep, strftime=time.strftime)
    monkeypatch.setattr(lifecycle, "time", clock)


@pytest.mark.parametrize("reason", [POWEROFF, CRASH, WATCHDOG, 6])
def test_by_default_a_guest_that_ends_is_destroyed_and_leaves_nothing(world: World, reason: int) -> None:
    record = started(world)
    world.store.steps = [lambda: None, lambda: world.ends(reason)]
    attend(record, world.toolstack)
    assert world.nothing_left()


@pytest.mark.parametrize("reason", [REBOOT, KEXEC])  # a PV guest has no kexec; what an HVM guest gets
def test_a_reboot_brings_the_guest_back_with_its_devices(world: World, reason: int) -> None:
    record = started(world, "uuid='11111111-2222-3333-4444-555555555555'")
    settings = world.store.read("/local/domain/0/backend/virtio/1/256/host/mac")
    seen: list[object] = []

    def look() -> None:
        kept = world.toolstack.records.load(record.guest.uuid)
        mac = world.store.read("/local/domain/0/backend/virtio/2/256/host/mac")
        old = world.store.names("/local/domain/0/backend/virtio/1")
        seen.extend([running(world), kept and kept.domid, mac, old])
        world.ends(POWEROFF)

    def watch_second() -> None:
        world.store.steps = [look]

    world.store.steps = [lambda: world.ends(reason)]
    world.at_unpause = watch_second
    attend(record, world.toolstack)
    assert seen == [[2], 2, settings, None]
    assert world.nothing_left()


def test_a_reboot_brings_what_the_record_says_by_then(world: World) -> None:
    """`attach --persist` and `detach --persist` change it while the watcher waits."""
    record = started(world)
    other = replace(
        record.guest.devices[0],
        number=1,
        vdev="vdb",
        settings={"path": str(world.image("b.img")), "mode": "r"},
    )
    seen: list[object] = []

    def change() -> None:
        world.toolstack.records.update(
            record.guest.uuid, 1, lambda kept: replace(kept, guest=replace(kept.guest, devices=(other,)))
        )
        world.ends(REBOOT)

    def look() -> None:
        kept = world.toolstack.records.load(record.guest.uuid)
        assert kept is not None
        seen.extend([[each.vdev for each in kept.guest.devices], kept.domid])
        seen.append(world.store.names("/local/domain/0/backend/virtio/2"))
        world.ends(POWEROFF)

    def watch_second() -> None:
        world.store.steps = [look]

    world.store.steps = [change]
    world.at_unpause = watch_second
    attend(record, world.toolstack)
    assert seen == [["vdb"], 2, ["1"]]
    assert world.nothing_left()


def test_a_reboot_that_fails_leaves_nothing_and_says_why(world: World) -> None:
    record = started(world)
    (world.folder / "trouble").write_text("libxl: no memory")
    world.store.steps = [lambda: world.ends(REBOOT)]
    with pytest.raises(XenError, match="no memory"):
        attend(record, world.toolstack)
    assert world.xl_log.count("create") == 1 + lifecycle.RESTARTS
    assert world.nothing_left()


def test_a_restart_that_fails_once_is_tried_again_and_the_record_is_kept(world: World) -> None:
    record = started(world)
    kept: list[Record | None] = []

    def reboots() -> None:
        world.ends(REBOOT)
        (world.folder / "no-create").write_text("libxl: no memory")
        kept.append(world.toolstack.records.load(record.guest.uuid))

    def ends() -> None:
        world.store.steps = [lambda: world.ends(POWEROFF)]

    world.store.steps = [reboots]
    world.at_unpause = ends
    attend(record, world.toolstack)
    assert kept == [record]
    assert world.xl_log.count("create") == 3
    assert any("restarted as domain 3" in line for line in world.said)
    assert world.nothing_left()


def test_a_restart_waits_for_a_daemon_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    record = started(world)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        world.daemon = len(looks) >= 3

    def reboots() -> None:
        world.ends(REBOOT)
        world.daemon = False
        replace_sleep(monkeypatch, sleep)

    def ends() -> None:
        world.store.steps = [lambda: world.ends(POWEROFF)]

    world.store.steps = [reboots]
    world.at_unpause = ends
    attend(record, world.toolstack)
    assert looks == [0.01] * 3
    assert world.xl_log.count("create") == 2
    assert world.nothing_left()


def test_a_guest_that_somebody_else_started_meanwhile_is_left_to_them(world: World) -> None:
    record = started(world, "uuid='11111111-2222-3333-4444-555555555555'")

    def reboots() -> None:
        world.ends(REBOOT)
        world.toolstack.records.save(Record(record.guest, 77, 0.3))

    world.store.steps = [reboots]
    attend(record, world.toolstack)
    assert world.xl_log.count("create") == 1
    kept = world.toolstack.records.load(record.guest.uuid)
    assert kept is not None
    assert kept.domid == 77


@pytest.mark.parametrize("name", ["g", "1", "11111111-2222-3333-4444-555555555555"])
def test_a_guest_that_is_destroyed_while_it_reboots_does_not_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    record = started(world, "uuid='11111111-2222-3333-4444-555555555555'")
    gone: list[int] = []

    def reboots() -> None:
        world.ends(REBOOT)
        (world.folder / "no-create").write_text("libxl: no memory")
        # between two tries to start it, there is no domain
        replace_sleep(monkeypatch, lambda _: gone.append(destroy(name, world.toolstack).domid))

    world.store.steps = [reboots]
    attend(record, world.toolstack)
    assert gone == [1]
    assert world.xl_log.count("create") == 2
    assert "was destroyed: it is not started again" in world.said[-1]
    assert world.nothing_left()


def test_a_guest_that_is_destroyed_while_it_is_started_again_does_not_stay(world: World) -> None:
    record = started(world)
    world.store.steps = [lambda: world.ends(REBOOT)]
    world.at_unpause = lambda: world.toolstack.records.drop(record.guest.uuid)
    attend(record, world.toolstack)
    assert world.xl_log.count("create") == 2
    assert world.nothing_left()


def test_a_guest_that_reboots_as_it_is_destroyed_does_not_come_back(world: World) -> None:
    """The watcher may see the reboot first: it must not find the record when the domain is gone."""
    record = started(world)
    seen: list[Record | None] = []
    answers = world.store.after_transaction

    def look() -> None:
        seen.append(world.toolstack.records.load(record.guest.uuid))
        answers()

    world.store.after_transaction = look  # libxl's, when the domain goes
    destroy("g", world.toolstack)
    assert seen[0] is None


def test_a_guest_that_reboots_soon_again_and_again_is_slowed_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "PAUSES", (0.1, 0.2))
    record = started(world)
    pauses: list[float] = []
    replace_sleep(monkeypatch, pauses.append)

    def again() -> None:
        left = 5 - world.xl_log.count("create")
        world.store.steps = [lambda: world.ends(REBOOT if left else POWEROFF)]

    world.store.steps = [lambda: world.ends(REBOOT)]
    world.at_unpause = again
    attend(record, world.toolstack)
    assert pauses == [0.1, 0.2, 0.2]
    assert world.nothing_left()


@pytest.mark.parametrize("command", ["list", "destroy"])
def test_an_xl_that_fails_once_does_not_end_the_watch(world: World, command: str) -> None:
    record = started(world)

    def ends() -> None:
        world.ends(POWEROFF)
        (world.folder / f"no-{command}").write_text("libxl: try again")

    world.store.steps = [ends]
    attend(record, world.toolstack)
    assert any("try again" in line for line in world.said)
    assert world.nothing_left()


def test_a_core_that_cannot_be_written_does_not_keep_the_guest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "DUMPS", world.folder / "dumps")
    record = started(world, "on_crash='coredump-destroy'")
    (world.folder / "no-dump-core").write_text("no space left")
    world.store.steps = [lambda: world.ends(CRASH)]
    attend(record, world.toolstack)
    assert world.xl_log.count("dump-core") == 1
    assert world.nothing_left()


def test_on_reboot_destroy_is_honoured(world: World) -> None:
    record = started(world, "on_reboot='destroy'")
    world.store.steps = [lambda: world.ends(REBOOT)]
    attend(record, world.toolstack)
    assert world.nothing_left()


def test_preserve_keeps_the_guest_until_somebody_destroys_it(world: World) -> None:
    record = started(world, "on_crash='preserve'")
    seen: list[list[int]] = []
    world.store.steps = [
        lambda: world.ends(CRASH),
        lambda: seen.append(running(world)),
        lambda: world.toolstack.xl.destroy(1),
    ]
    attend(record, world.toolstack)
    assert seen == [[1]]
    assert world.nothing_left()


def test_coredump_writes_a_core_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "DUMPS", world.folder / "dumps")
    record = started(world, "on_crash='coredump-destroy'")
    world.store.steps = [lambda: world.ends(CRASH)]
    attend(record, world.toolstack)
    assert [word for word in world.xl_log if word != "list"][-2:] == ["dump-core", "destroy"]
    assert world.nothing_left()


def test_a_suspended_guest_is_left_alone(world: World) -> None:
    record = started(world)
    seen: list[list[int]] = []
    world.store.steps = [
        lambda: world.ends(SUSPEND),
        lambda: seen.append(running(world)),
        lambda: world.toolstack.xl.destroy(1),
    ]
    attend(record, world.toolstack)
    assert seen == [[1]]


def test_a_guest_that_xl_destroyed_is_cleaned_up_after(world: World) -> None:
    record = started(world)
    world.daemon = False
    world.store.after_transaction = lambda: None
    world.store.steps = [lambda: world.toolstack.xl.destroy(1)]
    attend(record, world.toolstack)
    assert world.nothing_left()


def test_the_watcher_of_an_old_domain_leaves_the_new_one_alone(world: World) -> None:
    old = started(world, "uuid='11111111-2222-3333-4444-555555555555'")
    world.toolstack.xl.destroy(1)
    new_guest = world.usual_guest("uuid='11111111-2222-3333-4444-555555555555'")
    domid = start(new_guest, world.toolstack, StartOptions(0.3)).domain.domid
    world.toolstack.records.save(Record(new_guest, domid, 0.3))
    attend(old, world.toolstack)
    assert running(world) == [domid] == [2]
    assert world.store.names("/local/domain/0/backend/virtio/2")
    assert world.toolstack.records.load(new_guest.uuid) is not None


def test_a_record_comes_back_as_it_was_saved(world: World) -> None:
    records = Records(world.folder / "guests")
    record = Record(world.usual_guest("extra='b\u00f6se \udcff'"), 7, 12.5)
    records.save(record)
    assert records.load(record.guest.uuid) == record
    (path,) = (world.folder / "guests").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    with pytest.raises(XenvirtioError, match="cannot be read"):
        records.load(record.guest.uuid)


def test_the_watcher_lives_in_a_session_of_its_own_and_logs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = world.folder / "python"
    program.write_text('#!/bin/sh\necho "$*"; cut -d" " -f6 /proc/$$/stat; echo $$\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    record = Record(world.guest("name='a/b'"), 3, 1.0)
    leave_watcher(record, world.folder / "logs")
    log = world.folder / "logs" / "a_b.log"
    end = time.monotonic() + 10
    while time.monotonic() < end and log.read_text().count("\n") < 3:
        time.sleep(0.05)
    command, session, process = log.read_text().splitlines()
    assert command == f"-P -m xenvirtio.cli.main lifecycle {record.guest.uuid} 3"
    assert session == process
    os.waitpid(int(process), 0)


def test_a_log_that_cannot_be_written_is_named(world: World) -> None:
    (world.folder / "logs/g.log").mkdir(parents=True)
    with pytest.raises(XenvirtioError, match=r"logs/g\.log cannot be written: Is a directory") as caught:
        leave_watcher(Record(world.guest("name='g'"), 3, 1.0), world.folder / "logs")
    assert caught.value.hint


def kexecs(world: World, then: int) -> list[list[int]]:
    """The guest gives way to another kernel, and ends when that runs."""
    seen: list[list[int]] = []

    def goes_on() -> None:
        seen.append(running(world))
        world.ends(then)

    def again() -> None:
        world.store.steps = [goes_on]

    world.store.steps = [lambda: world.ends(KEXEC)]
    world.at_unpause = again
    return seen


def test_a_pvh_guest_goes_on_with_its_next_kernel(world: World) -> None:
    record = started(world, "type='pvh'\nkernel='k'")
    world.store.write("/tool/xenconsoled/domid", "3")
    seen = kexecs(world, POWEROFF)
    devices = world.store.names("/local/domain/0/backend/virtio/1")
    attend(record, world.toolstack)
    assert seen == [[1]], "the same domain"
    assert devices
    assert world.store.calls == [
        "reset 1 pause",
        "port 7 of 1 for 0",
        "port 8 of 1 for 3",
        "parameter 2 of 1 = 7",
        "parameter 18 of 1 = 8",
        "introduce 1 0xfeffc 7",
        "close",
    ]
    assert world.said[-3:-1] == ["domain 1 ended: soft-reset; action: soft-reset", "its next kernel runs"]


def test_a_guest_that_cannot_be_reset_is_started_again(world: World) -> None:
    record = started(world, "type='pvh'\nkernel='k'")
    world.no_reset = XenError("Xen: domain 1 cannot be reset: Invalid argument", 22)
    seen = kexecs(world, POWEROFF)
    attend(record, world.toolstack)
    assert seen == [[2]], "another domain"
    assert any("its next kernel cannot run: Xen: domain 1 cannot be reset" in line for line in world.said)
    assert world.nothing_left()


def test_on_soft_reset_may_say_something_else(world: World) -> None:
    record = started(world, "type='pvh'\nkernel='k'\non_soft_reset='destroy'")
    world.store.steps = [lambda: world.ends(KEXEC)]
    attend(record, world.toolstack)
    assert world.nothing_left()
    assert not world.store.calls
