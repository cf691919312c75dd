"""What was attached with --persist is there after a reboot; what was detached with it is not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.hotplug.hotplug_rig import QUICK, UUID, B, F, answers, new_disk, nodes
from xenvirtio.errors import UsageError, XenError, XenvirtioError
from xenvirtio.toolstack.hotplug.attach import AttachOptions, attach
from xenvirtio.toolstack.hotplug.detach import DetachOptions, detach
from xenvirtio.toolstack.hotplug.link import set_link
from xenvirtio.toolstack.records import Record, Records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.toolstack.toolstack_fakes import World


def remembered(world: World) -> list[str]:
    record = world.toolstack.records.load(UUID)
    assert record is not None
    return [device.vdev for device in record.guest.devices]


def test_persist_remembers_and_forgets(world: World) -> None:
    answers(world)
    attach("g", [new_disk(world)], world.toolstack, AttachOptions(0.3, persist=True))
    assert remembered(world) == ["vda", "vdb", "eth0"]
    detach("g", "eth0", world.toolstack, DetachOptions(0.3, persist=True))
    assert remembered(world) == ["vda", "vdb"]
    detach("g", "vdb", world.toolstack, DetachOptions(0.3))
    assert remembered(world) == ["vda", "vdb"]
    detach("g", "vdb", world.toolstack, DetachOptions(0.3, persist=True))
    assert remembered(world) == ["vda"]
    assert any("has no device vdb: nothing to detach" in line for line in world.said)


def test_without_persist_nothing_is_remembered(world: World) -> None:
    answers(world)
    attach("g", [new_disk(world)], world.toolstack, QUICK)
    assert remembered(world) == ["vda", "eth0"]


def test_persist_is_refused_for_a_guest_that_xl_restarts(world: World) -> None:
    world.toolstack.records.forget(UUID, 1)
    before = nodes(world)
    commands: list[Callable[[], object]] = [
        lambda: attach("g", [new_disk(world)], world.toolstack, AttachOptions(0.3, persist=True)),
        lambda: detach("g", "vda", world.toolstack, DetachOptions(0.3, persist=True)),
        lambda: set_link("g", "eth0", "up", world.toolstack, 0.3, persist=True),
    ]
    for command in commands:
        with pytest.raises(UsageError, match="xl's own monitor restarts it"):
            command()
    assert nodes(world) == before


def test_the_link_of_a_nic_that_is_not_remembered_cannot_be(world: World) -> None:
    answers(world)
    attach("g", ["model=virtio"], world.toolstack, QUICK)
    detach("g", "eth0", world.toolstack, DetachOptions(0.3))
    attach("g", ["mac=00:16:3e:00:00:01"], world.toolstack, QUICK)  # takes the name of the one in the record
    before = nodes(world)
    for name in ("eth0", "eth1"):
        with pytest.raises(UsageError, match=f"does not have this {name} after its reboot") as caught:
            set_link("g", name, "down", world.toolstack, 0.3, persist=True)
        assert caught.value.hint
    assert nodes(world) == before
    record = world.toolstack.records.load(UUID)
    assert record is not None
    assert not any("link" in device.settings for device in record.guest.devices)


def test_a_guest_that_was_restarted_meanwhile_does_not_keep_half_of_it(world: World) -> None:
    def restarts() -> None:
        record = world.toolstack.records.load(UUID)
        assert record is not None
        world.toolstack.records.save(Record(record.guest, 2, 0.3))
        answers(world)

    world.store.steps = [restarts]
    with pytest.raises(XenError, match="ended or was restarted"):
        attach("g", [new_disk(world)], world.toolstack, AttachOptions(0.3, persist=True))
    assert not [path for path in world.store.nodes if path.startswith((f"{B}/1", f"{F}/1"))]


def test_concurrent_changes_of_a_record_are_all_kept(world: World) -> None:
    folder = world.toolstack.records.folder

    def add(number: int) -> None:
        Records(folder).update(UUID, 1, lambda record: Record(record.guest, 1, record.limit + number))

    threads = [threading.Thread(target=add, args=[10**number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    record = world.toolstack.records.load(UUID)
    assert record is not None
    assert record.limit == pytest.approx(111111.3)
    assert [path.name for path in folder.iterdir()] == [f"{UUID}.json"]


def test_what_cannot_be_remembered_is_an_error_with_the_reason(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    record = world.toolstack.records.load(UUID)
    assert record is not None
    with pytest.raises(XenvirtioError, match=r"cannot be remembered in .*/file: File exists") as caught:
        Records(tmp_path / "file").save(record)
    assert caught.value.hint
