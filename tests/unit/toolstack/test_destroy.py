"""A guest is destroyed at once, and nothing of it stays."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.errors import TimeLimit, UsageError, XenError
from xenvirtio.toolstack.create import StartOptions, destroy, start
from xenvirtio.toolstack.records import Record, Records

if TYPE_CHECKING:
    from pathlib import Path

QUICK = StartOptions(limit=0.3)
B = "/local/domain/0/backend/virtio/1"
F = "/local/domain/1/device/virtio"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", ["g", "1"])
def test_destroy_takes_a_name_or_a_number_and_leaves_nothing(world: World, name: str) -> None:
    start(world.usual_guest(), world.toolstack, QUICK)
    assert destroy(name, world.toolstack).domid == 1
    assert world.nothing_left()
    with pytest.raises(UsageError, match=f"there is no guest {name}") as caught:
        destroy(name, world.toolstack)
    assert caught.value.exit_status == 2


def test_domain_0_is_not_destroyed(world: World) -> None:
    with pytest.raises(UsageError, match="domain 0 is this machine"):
        destroy("0", world.toolstack)


def test_without_a_daemon_destroy_removes_the_nodes_itself(world: World) -> None:
    start(world.usual_guest(), world.toolstack, QUICK)
    world.store.after_transaction = lambda: None
    world.daemon = False
    destroy("g", world.toolstack)
    assert world.nothing_left()


def test_destroy_prefers_the_domain_of_a_number_to_a_guest_of_that_name(world: World) -> None:
    start(world.usual_guest(), world.toolstack, QUICK)
    start(world.guest("name='1'"), world.toolstack, QUICK)
    assert destroy("1", world.toolstack).name == "g"
    assert destroy("1", world.toolstack).name == "1"
    assert world.nothing_left()


def test_a_guest_that_xl_cannot_destroy_keeps_its_record(world: World) -> None:
    record = remembered(world)
    (world.folder / "no-destroy").write_text("libxl: no answer")
    with pytest.raises(XenError, match="no answer"):
        destroy("g", world.toolstack)
    assert world.toolstack.records.load(record.guest.uuid) == record


def test_a_record_that_cannot_be_removed_does_not_keep_a_guest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(world)

    def held(*_: object) -> None:
        raise TimeLimit("somebody has held the records")

    monkeypatch.setattr(Records, "drop", held)
    destroy("g", world.toolstack)
    assert [domain["domid"] for domain in world.domains] == [0]
    assert any("somebody has held the records" in line for line in world.said)


def test_a_guest_that_was_renamed_is_not_taken_for_one_that_reboots(world: World) -> None:
    record = remembered(world)
    dom0, domain = world.domains
    world.write_domains([dom0, {**domain, "name": "h"}])
    before = dict(world.store.nodes)
    with pytest.raises(UsageError, match="guest g is called h now") as caught:
        destroy("g", world.toolstack)
    assert caught.value.hint == "xenvirtio destroy 1"
    assert world.store.nodes == before
    assert world.toolstack.records.load(record.guest.uuid) == record


def test_the_record_of_a_guest_that_is_gone_costs_no_other_its_devices(world: World) -> None:
    record = remembered(world)
    dom0, domain = world.domains
    world.write_domains([dom0, {**domain, "name": "h", "uuid": str(uuid.uuid4())}])
    before = dict(world.store.nodes)
    destroy("g", world.toolstack)
    assert world.store.nodes == before
    assert world.toolstack.records.load(record.guest.uuid) is None


def remembered(world: World) -> Record:
    guest = world.usual_guest()
    record = Record(guest, start(guest, world.toolstack, QUICK).domain.domid, 0.3)
    world.toolstack.records.save(record)
    return record
