"""Devices for guests that run: attached whole or not at all, detached or left as they were."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.errors import ConfigError, TimeLimit, UsageError, XenError, XenvirtioError
from xenvirtio.toolstack import connect
from xenvirtio.toolstack import detach as detaching
from xenvirtio.toolstack.attach import AttachOptions, attach
from xenvirtio.toolstack.create import StartOptions, start
from xenvirtio.toolstack.detach import DetachOptions, detach
from xenvirtio.toolstack.link import set_link
from xenvirtio.toolstack.records import Record, Records
from xenvirtio.toolstack.resize import parse_size, resize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

B = "/local/domain/0/backend/virtio/1"
F = "/local/domain/1/device/virtio"
UUID = "11111111-2222-3333-4444-555555555555"
QUICK = AttachOptions(0.3)
MIB = 1 << 20


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Guest g runs, with vda and eth0."""
    monkeypatch.setattr(connect, "LOOK", 0.01)
    monkeypatch.setattr(detaching, "LOOK", 0.01)
    monkeypatch.setattr(detaching, "FORCE_LIMIT", 0.05)
    monkeypatch.setattr("xenvirtio.toolstack.attach.UNDO_LIMIT", 0.2)
    world = World(tmp_path)
    guest = world.usual_guest(f"uuid='{UUID}'")
    record = Record(guest, start(guest, world.toolstack, StartOptions(0.3)).domain.domid, 0.3)
    world.toolstack.records.save(record)
    world.store.write("/local/domain/1/name", "g")
    world.store.steps = []
    return world


def answers(world: World) -> None:
    """From now on guest and daemon do what they are asked to, whenever somebody looks."""

    def step() -> None:
        for path in world.store.states("device"):
            back = f"{B}/{path.split('/')[6]}/state"
            now = (world.store.read(path), world.store.read(back))
            if now == ("1", "2"):
                world.store.write(path, "4")
                world.store.write(back, "4")
            elif now[1] == "5":
                world.store.write(path, "6")
                world.store.write(back, "6")
        for back in world.store.states("backend"):
            host = back.replace("/state", "/host")
            update = world.store.read(f"{host}/update")
            if update is not None:
                world.store.write(f"{host}/updated", update)
        world.store.steps = [step]

    world.store.steps = [step]


def new_disk(world: World, name: str = "b.img") -> str:
    return f"format=raw,vdev=vdb,access=rw,target={world.image(name)}"


def nodes(world: World) -> dict[str, str]:
    return dict(world.store.nodes)


# --- attach ---


@pytest.mark.parametrize("name", ["g", "1", UUID, UUID.upper()])
def test_a_disk_is_plugged_in_one_transaction_and_waited_for(world: World, name: str) -> None:
    answers(world)
    done = attach(name, [new_disk(world)], world.toolstack, QUICK)
    assert (done.device.vdev, done.device.number, done.connected) == ("vdb", 1, True)
    assert world.store.read(f"{B}/1/host/path") == str(world.folder / "b.img")
    assert world.store.read(f"{B}/1/state") == world.store.read(f"{F}/1/state") == "4"
    assert world.store.modes[f"{B}/1/host"] == ["n0"]
    assert not world.store.watches


def test_an_entry_may_come_in_words_as_at_xl(world: World) -> None:
    answers(world)
    words = ["vdev=vdb", "format=raw", f"target={world.image('b.img')}"]
    assert attach("g", words, world.toolstack, QUICK).device.vdev == "vdb"


@pytest.mark.parametrize("entry", ["model=virtio", "bridge=xenbr0", "mac=00:16:3e:00:00:99,model=virtio"])
def test_a_nic_gets_the_next_free_number_and_an_address(world: World, entry: str) -> None:
    answers(world)
    first = attach("g", [entry], world.toolstack, QUICK).device
    assert (first.vdev, first.number) == ("eth1", 257)
    assert first.settings["mac"].startswith("00:16:3e:")
    assert world.store.read(f"{B}/257/host/vifname") == "vio1.1"
    detach("g", "eth0", world.toolstack, DetachOptions(0.3))
    assert attach("g", ["model=virtio"], world.toolstack, QUICK).device.vdev == "eth0"


def test_a_nic_with_an_address_that_the_guest_has_is_refused(world: World) -> None:
    mac = world.store.read(f"{B}/256/host/mac")
    with pytest.raises(UsageError, match=f"eth0 of guest g has the MAC address {mac}"):
        attach("g", [f"model=virtio,mac={mac}"], world.toolstack, QUICK)


def test_a_paused_guest_finds_its_device_later(world: World) -> None:
    world.write_domains([{**world.domains[1], "flags": "--p---"}])
    assert not attach("g", [new_disk(world)], world.toolstack, QUICK).connected
    assert world.store.read(f"{B}/1/state") == "2"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("format=raw,vdev=vda,target={image}", "has a device vda already: .*a.img, backend Connected"),
        ("format=raw,vdev=vdb,target=/none.img", "there is no image /none.img"),
        ("model=virtio,bridge=none", "there is no bridge none"),
        ("file:{image},xvdb,w", "no virtio disk"),
        ("file:{image},vq7z,w", "unknown vdev 'vq7z'"),
        ("file:{image},vdb1,w", "is a partition"),
        ("vdb", "no virtio disk|no vdev|no target"),
        ("format=raw,vdev=vdb,target={used}", "a.img is in use by guest g as vda"),
        ("format=raw,vdev=vdb,access=ro,target={used}", "a.img is in use by guest g as vda"),
        ("model=virtio,nonsense=1", "unknown setting 'nonsense'"),
        ("model=virtio,mac=1", "no MAC address"),
        ("model=e1000,bridge=xenbr0", "no virtio NIC of ours"),
        ("model=virtio,backend=qemu", "QEMU serves devices only that an HVM guest was started with"),
        ("format=raw,vdev=vdb,backend=qemu,target={image}", "QEMU serves devices only"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(world: World, entry: str, told: str) -> None:
    before = nodes(world)
    text = entry.format(image=world.image("b.img"), used=world.folder / "a.img")
    with pytest.raises(UsageError, match=told) as caught:
        attach("g", [text], world.toolstack, QUICK)
    assert caught.value.exit_status == 2
    assert caught.value.hint
    assert nodes(world) == before


def test_a_mistake_is_shown_at_its_place(world: World) -> None:
    with pytest.raises(ConfigError) as caught:
        attach("g", ["format=raw", "vdev=vq7z", "target=/x"], world.toolstack, QUICK)
    assert caught.value.message.splitlines()[1:] == [
        "    format=raw,vdev=vq7z,target=/x",
        "                    ^",
    ]


def test_an_image_may_be_shared_by_readers(world: World) -> None:
    answers(world)
    world.store.write("/local/domain/0/backend/qdisk/7/51712/params", f"aio:{world.image('b.img')}")
    world.store.write("/local/domain/0/backend/qdisk/7/51712/mode", "r")
    world.store.write("/local/domain/0/backend/qdisk/7/51712/dev", "xvda")
    with pytest.raises(UsageError, match="in use by guest domain 7 as xvda, which reads it") as caught:
        attach("g", [new_disk(world)], world.toolstack, QUICK)
    assert "xl block-detach domain 7 xvda" in (caught.value.hint or "")
    entry = new_disk(world).replace("rw", "ro")
    assert attach("g", [entry], world.toolstack, QUICK).device.settings["mode"] == "r"


@pytest.mark.parametrize("name", ["none", "17", "00000000-1111-2222-3333-444444444444"])
def test_no_such_guest(world: World, name: str) -> None:
    commands: list[Callable[[], object]] = [
        lambda: attach(name, ["model=virtio"], world.toolstack, QUICK),
        lambda: detach(name, "vda", world.toolstack, DetachOptions()),
        lambda: resize(name, "vda", None, world.toolstack),
        lambda: set_link(name, "eth0", "up", world.toolstack),
    ]
    for command in commands:
        with pytest.raises(UsageError, match=f"there is no guest {name}") as caught:
            command()
        assert caught.value.hint


def test_domain_0_and_guests_that_have_ended_get_nothing(world: World) -> None:
    with pytest.raises(UsageError, match="domain 0 is this machine"):
        attach("0", ["model=virtio"], world.toolstack, QUICK)
    world.ends(0)
    with pytest.raises(UsageError, match=r"guest g has ended \(poweroff\)"):
        attach("g", ["model=virtio"], world.toolstack, QUICK)


def test_without_the_daemon_nothing_is_attached(world: World) -> None:
    before = nodes(world)
    world.daemon = False
    with pytest.raises(XenvirtioError, match="daemon") as caught:
        attach("g", ["model=virtio"], world.toolstack, QUICK)
    assert caught.value.hint == "xenvirtio daemon"
    assert nodes(world) == before


def test_a_guest_that_does_not_connect_is_explained_and_the_device_goes_again(world: World) -> None:
    before = nodes(world)
    with pytest.raises(TimeLimit, match=r"vdb of guest g was not connected .*no virtio_xenbus module"):
        attach("g", [new_disk(world)], world.toolstack, AttachOptions(0.05))
    assert nodes(world) == before
    assert not world.store.watches


def test_a_backend_that_cannot_serve_it_says_why_and_the_device_goes_again(world: World) -> None:
    before = nodes(world)

    def refuse() -> None:
        world.store.write(f"{B}/1/error", "b.img: in use by another guest or program")
        world.store.write(f"{B}/1/state", "6")

    world.store.after_transaction = lambda: None
    world.store.steps = [refuse]
    with pytest.raises(XenvirtioError, match=r"vdb: the backend cannot serve it: b\.img: in use"):
        attach("g", [new_disk(world)], world.toolstack, QUICK)
    assert nodes(world) == before


def test_an_interrupt_undoes_all(world: World) -> None:
    before = nodes(world)

    def interrupt() -> None:
        answers(world)
        raise KeyboardInterrupt

    world.store.steps = [lambda: None, interrupt]
    with pytest.raises(KeyboardInterrupt):
        attach("g", [new_disk(world)], world.toolstack, QUICK)
    assert nodes(world) == before


def test_a_guest_that_goes_meanwhile_is_told(world: World) -> None:
    def goes() -> None:
        world.toolstack.xl.destroy(1)
        world.store.steps = []

    world.store.steps = [lambda: None, lambda: None, goes]
    with pytest.raises(XenvirtioError):
        attach("g", [new_disk(world)], world.toolstack, AttachOptions(0.2))
    assert not [path for path in world.store.nodes if "virtio/1/1" in path]


# --- what stays over a reboot ---


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


# --- detach ---


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


def test_an_interrupted_detach_is_taken_back(world: World) -> None:
    before = nodes(world)

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.store.steps = [interrupt]
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


# --- resize ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("512", 512),
        ("+512M", 513 << 20),
        ("-512k", 512 << 10),
        ("1m", MIB),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, MIB) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "0", "-1M", "1E", "99999999999T", "ten", "+-1"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text, MIB)
    assert caught.value.hint


def test_a_disk_grows_image_first(world: World) -> None:
    answers(world)
    done = resize("g", "vda", "+1M", world.toolstack, 0.3)
    assert (done.before, done.after) == (MIB, 2 * MIB)
    assert (world.folder / "a.img").stat().st_size == 2 * MIB
    assert world.store.read(f"{B}/0/host/size") == str(2 * MIB)
    assert world.store.modes[f"{B}/0/host/size"] == ["n0"]


def test_a_disk_shrinks_only_when_told_to_disk_first(world: World) -> None:
    sizes: list[int] = []
    image = world.folder / "a.img"
    with pytest.raises(UsageError, match="would be lost") as caught:
        resize("g", "vda", "512K", world.toolstack, 0.3)
    assert "--shrink" in (caught.value.hint or "")

    def answer() -> None:
        sizes.append(image.stat().st_size)
        answers(world)

    world.store.steps = [answer]
    resize("g", "vda", "512K", world.toolstack, 0.3, shrink=True)
    assert sizes == [MIB], "the image is cut when the disk has ended there"
    assert image.stat().st_size == MIB // 2


def test_without_a_size_the_disk_follows_its_image(world: World) -> None:
    answers(world)
    world.image("a.img", 3 * MIB)
    done = resize("g", "vda", None, world.toolstack, 0.3)
    assert done.after == 3 * MIB
    world.image("a.img", MIB)
    assert resize("g", "vda", None, world.toolstack, 0.3).after == MIB


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("eth0", "1G", "eth0 is a NIC"),
        ("vdz", "1G", "has no device vdz: the virtio devices of guest g are vda, eth0"),
        ("vda", "1000001", "no multiple of 512"),
        ("vda", "big", "no size"),
    ],
)
def test_a_mistake_in_a_size_changes_nothing(world: World, name: str, size: str, told: str) -> None:
    before = nodes(world)
    with pytest.raises(UsageError, match=told) as caught:
        resize("g", name, size, world.toolstack, 0.3)
    assert caught.value.hint
    assert nodes(world) == before
    assert (world.folder / "a.img").stat().st_size == MIB


def host(world: World, devid: int) -> dict[str, str]:
    path = f"{B}/{devid}/host/"
    own = {node.removeprefix(path): value for node, value in nodes(world).items() if node.startswith(path)}
    return {key: value for key, value in own.items() if key not in ("update", "updated")}


def test_a_change_that_the_device_refuses_is_taken_back(world: World) -> None:
    before = host(world, 0)
    world.store.steps = [lambda: world.store.write(f"{B}/0/host/updated", "1 the image is gone")]
    with pytest.raises(XenvirtioError, match="vda cannot be changed: the image is gone"):
        resize("g", "vda", "2M", world.toolstack, 0.3)
    assert host(world, 0) == before
    assert (world.folder / "a.img").stat().st_size == MIB


def test_a_daemon_that_does_not_answer_is_told_of(world: World) -> None:
    before = host(world, 256)
    with pytest.raises(TimeLimit, match="did not change eth0 within 0 s"):
        set_link("g", "eth0", "down", world.toolstack, 0.05)
    assert host(world, 256) == before


def test_a_device_that_is_not_served_cannot_change(world: World) -> None:
    world.store.write(f"{B}/0/state", "6")
    world.store.write(f"{B}/0/error", "the worker died 6 times")
    with pytest.raises(XenvirtioError, match="vda is not served: the worker died 6 times"):
        resize("g", "vda", "2M", world.toolstack, 0.3)


# --- link ---


def test_a_link_goes_down_and_is_remembered_if_that_is_wanted(world: World) -> None:
    answers(world)
    set_link("g", "eth0", "down", world.toolstack, 0.3)
    assert host(world, 256)["link"] == "down"
    record = world.toolstack.records.load(UUID)
    assert record is not None
    assert "link" not in record.guest.devices[1].settings
    set_link("g", "eth0", "down", world.toolstack, 0.3, persist=True)
    record = world.toolstack.records.load(UUID)
    assert record is not None
    assert record.guest.devices[1].host_settings(9)["link"] == "down"
    with pytest.raises(UsageError, match="vda is a disk"):
        set_link("g", "vda", "down", world.toolstack, 0.3)
