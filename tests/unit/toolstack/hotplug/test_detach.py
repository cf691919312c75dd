"""A device goes from a guest that runs, or stays as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.hotplug.hotplug_rig import QUICK, UUID, B, F, answers, new_disk, nodes
from xenvirtio.errors import TimeLimit, UsageError, XenvirtioError
from xenvirtio.toolstack.hotplug import detach as detaching
from xenvirtio.toolstack.hotplug.attach import attach
from xenvirtio.toolstack.hotplug.detach import DetachOptions, detach

ERROR = "/local/domain/1/error/device/virtio/0/error"

if TYPE_CHECKING:
    from tests.unit.toolstack.toolstack_fakes import World
    from xenvirtio.toolstack.records import Record


def test_a_detach_leaves_nothing_and_the_others_alone(world: World) -> None:
    before = nodes(world)
    answers(world)
    attach("g", [new_disk(world)], world.toolstack, QUICK)
    world.store.write("/local/domain/1/error/device/virtio/1/error", "22 something")
    detach("g", "vdb", world.toolstack, DetachOptions(0.3))
    assert nodes(world) == before
    assert not world.store.watches


def test_the_last_device_takes_the_empty_folders_with_it(world: World) -> None:
    answers(world)
    for name in ("vda", "eth0"):
        detach("g", name, world.toolstack, DetachOptions(0.3))
    assert not [path for path in world.store.nodes if "virtio" in path]


def test_what_is_not_there_is_no_error(world: World) -> None:
    for name in ("vdz", "eth7"):
        detach("g", name, world.toolstack, DetachOptions(0.3))
        assert world.said[-1] == f"guest g has no device {name}: nothing to detach"


@pytest.mark.parametrize("name", ["xvda", "hda", "vda1", "disk", "51712", ""])
def test_what_is_no_virtio_device_cannot_be_detached(world: World, name: str) -> None:
    with pytest.raises(UsageError, match="the virtio devices of guest g are vda, eth0") as caught:
        detach("g", name, world.toolstack, DetachOptions(0.3))
    assert caught.value.hint


def test_a_guest_that_does_not_follow_keeps_its_device(world: World) -> None:
    before = nodes(world)
    with pytest.raises(TimeLimit, match="did not let vda go within 0 s") as caught:
        detach("g", "vda", world.toolstack, DetachOptions(0.05))
    assert "nothing was changed" in caught.value.message
    assert f"{F}/0/state is Connected (4)" in caught.value.message
    assert f"{B}/0/state is Closing (5)" in caught.value.message
    assert "--force" in (caught.value.hint or "")
    assert nodes(world) == before


def busy(world: World, times: int) -> None:
    """The guest answers so often that it uses vda, then lets it go."""
    asked: list[str] = []

    def step() -> None:
        if world.store.read(f"{B}/0/state") == "5":
            assert world.store.modes[f"{B}/0/unless-used"] == ["n0", "r1"]
            asked.append("5")
            if len(asked) > times:
                world.store.write(f"{F}/0/state", "6")
                world.store.write(f"{B}/0/state", "6")
            else:
                world.store.write("/local/domain/1/error/device/virtio/0/error", "16 in use: open 1 time")
        world.store.steps = [step]

    world.store.steps = [step]


def test_a_disk_that_the_guest_uses_stays_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detaching, "PAUSE", 0.01)
    before = nodes(world)
    busy(world, detaching.TRIES)
    with pytest.raises(
        UsageError, match="guest g keeps vda: in use: open 1 time; nothing was changed"
    ) as caught:
        detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert "--force" in (caught.value.hint or "")
    assert nodes(world) == before


def test_a_disk_that_is_used_for_a_moment_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detaching, "PAUSE", 0.01)
    busy(world, 1)
    detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert not world.store.names(f"{B}/0")


def test_force_insists_even_if_the_guest_uses_it(world: World) -> None:
    def follows() -> None:
        assert world.store.read(f"{B}/0/unless-used") is None
        world.store.write(f"{F}/0/state", "6")
        world.store.write(f"{B}/0/state", "6")

    world.store.steps = [follows]
    detach("g", "vda", world.toolstack, DetachOptions(0.3, force=True))
    assert not any("by force" in line for line in world.said)


def test_a_guest_that_is_half_way_is_not_called_back(world: World) -> None:
    def begins() -> None:
        world.store.write(f"{F}/0/state", "5")

    world.store.steps = [begins]
    with pytest.raises(TimeLimit, match="run the same command again"):
        detach("g", "vda", world.toolstack, DetachOptions(0.05))
    assert world.store.read(f"{B}/0/online") == "0"
    answers(world)
    detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert not world.store.names(f"{B}/0")


def late(world: World) -> None:
    """The guest had begun to remove vda when the request was taken back."""

    def step() -> None:
        if world.store.read(f"{B}/0/online") == "1":
            world.store.write(f"{F}/0/state", "6")
            answers(world)
        else:
            world.store.steps = [step]

    world.store.steps = [step]


def test_a_guest_that_had_begun_when_the_request_was_taken_back_is_followed(world: World) -> None:
    late(world)
    detach("g", "vda", world.toolstack, DetachOptions(0.05, persist=True))
    assert world.said[-1] == "it was late: vda is gone"
    assert not world.store.names(f"{B}/0")
    assert not world.store.names(f"{F}/0")
    record = world.toolstack.records.load(UUID)
    assert record is not None
    assert [device.vdev for device in record.guest.devices] == ["eth0"]
    assert not world.store.watches


def test_a_guest_that_had_begun_when_the_user_interrupts_is_followed(world: World) -> None:
    def interrupt() -> None:
        late(world)
        raise KeyboardInterrupt

    world.store.steps = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert world.said[-1] == "vda is gone all the same: guest g had begun to remove it"
    assert not world.store.names(f"{B}/0")


def test_a_guest_that_had_begun_and_does_not_finish_is_told_as_such(world: World) -> None:
    def begins() -> None:
        if world.store.read(f"{B}/0/online") == "1":
            world.store.write(f"{F}/0/state", "5")
        world.store.steps = [begins]

    world.store.steps = [begins]
    with pytest.raises(TimeLimit, match="run the same command again"):
        detach("g", "vda", world.toolstack, DetachOptions(0.05))
    assert (world.store.read(f"{B}/0/online"), world.store.read(f"{B}/0/state")) == ("0", "5")


def test_an_interrupted_detach_is_taken_back(world: World) -> None:
    before = nodes(world)

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.store.steps = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert nodes(world) == before


def test_a_detach_that_is_interrupted_while_the_guest_refuses_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = nodes(world)

    def refuse() -> None:
        world.store.write(ERROR, "16 in use: mounted")

    def interrupt(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    world.store.steps = [refuse]
    monkeypatch.setattr("time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert nodes(world) == before


@pytest.mark.parametrize("ends", [False, True])
def test_a_detach_that_is_interrupted_after_its_time_is_followed_to_the_end(world: World, ends: bool) -> None:
    """The guest has begun; the interrupt comes while its end is waited for, or before."""

    def taken_back() -> bool:
        return world.store.read(f"{B}/0/online") == "1"

    def step() -> None:
        world.store.steps = [step]
        if not taken_back():
            return
        world.store.write(f"{F}/0/state", "5")
        if not ends:
            world.store.steps = [finish]
            raise KeyboardInterrupt
        world.store.steps = [interrupt]

    def interrupt() -> None:
        world.store.steps = [finish]
        raise KeyboardInterrupt

    def finish() -> None:
        world.store.write(f"{F}/0/state", "6")
        world.store.write(f"{B}/0/state", "6")

    world.store.steps = [step]
    with pytest.raises(KeyboardInterrupt):
        detach("g", "vda", world.toolstack, DetachOptions(0.05))
    assert not world.store.names(f"{B}/0")
    assert not world.store.names(f"{F}/0")
    assert world.said[-1] == "vda is gone all the same: guest g had begun to remove it"


def test_a_detach_that_is_interrupted_before_the_guest_is_asked_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = nodes(world)

    def interrupt(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(detaching, "ask_to_close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        detach("g", "vda", world.toolstack, DetachOptions(0.3))
    assert nodes(world) == before


def test_force_takes_it_away(world: World) -> None:
    detach("g", "vda", world.toolstack, DetachOptions(0.05, force=True))
    assert not world.store.names(f"{B}/0")
    assert not world.store.names(f"{F}/0")
    assert world.store.names(f"{B}/256")


def test_without_the_daemon_only_force_helps(world: World) -> None:
    world.daemon = False
    before = nodes(world)
    with pytest.raises(XenvirtioError, match="daemon") as caught:
        detach("g", "vda", world.toolstack, DetachOptions(0.05))
    assert "--force" in (caught.value.hint or "")
    assert nodes(world) == before
    detach("g", "vda", world.toolstack, DetachOptions(0.05, force=True))
    assert not world.store.names(f"{B}/0")


def test_a_disk_of_the_guest_s_qemu_is_neither_attached_nor_detached(world: World) -> None:
    def add(record: Record) -> Record:
        disks = {"vdb": {"path": "/q.img", "mode": "w", "format": "raw"}}
        return replace(record, guest=replace(record.guest, qemu_disks=disks))

    world.toolstack.records.update(UUID, 1, add)
    for command in (
        lambda: attach("g", [new_disk(world)], world.toolstack, QUICK),
        lambda: detach("g", "vdb", world.toolstack, DetachOptions(0.3)),
    ):
        with pytest.raises(UsageError, match="vdb of guest g is served by its QEMU") as caught:
            command()
        assert caught.value.hint
