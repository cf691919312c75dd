"""A device comes to a guest that runs: whole, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.hotplug.hotplug_rig import QUICK, UUID, B, F, answers, new_disk, nodes
from xenvirtio.errors import ConfigError, TimeLimit, UsageError, XenError, XenvirtioError
from xenvirtio.toolstack.hotplug.attach import AttachOptions, attach
from xenvirtio.toolstack.hotplug.detach import DetachOptions, detach
from xenvirtio.toolstack.hotplug.link import set_link
from xenvirtio.toolstack.hotplug.resize import resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.toolstack.toolstack_fakes import World


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


def test_a_nic_does_not_get_the_address_of_one_that_xl_or_qemu_serves(world: World) -> None:
    answers(world)
    detach("g", "eth0", world.toolstack, DetachOptions(0.3))
    made = attach("g", ["model=virtio"], world.toolstack, QUICK).device.settings["mac"]
    detach("g", "eth0", world.toolstack, DetachOptions(0.3))
    world.store.write("/local/domain/0/backend/vif/1/0/mac", made)
    other = attach("g", ["model=virtio"], world.toolstack, QUICK).device.settings["mac"]
    assert other != made
    with pytest.raises(UsageError, match=f"xl's NIC 0 of guest g has the MAC address {made}"):
        attach("g", [f"model=virtio,mac={made}"], world.toolstack, QUICK)


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


def test_a_guest_that_goes_before_the_backend_is_ready_is_told_as_gone(world: World) -> None:
    def goes() -> None:
        world.toolstack.xl.destroy(1)
        world.store.steps = []

    world.store.after_transaction = lambda: None
    world.store.steps = [lambda: None, goes]
    with pytest.raises(XenError, match="guest g was destroyed before its virtio devices were connected"):
        attach("g", [new_disk(world)], world.toolstack, QUICK)


def test_a_guest_that_was_gone_before_anybody_watched_is_told_as_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.after_transaction = lambda: world.write_domains(world.domains[:1])
    monkeypatch.setattr(world.store, "events", list)  # nothing is reported any more
    with pytest.raises(XenError, match="guest g was destroyed"):
        attach("g", [new_disk(world)], world.toolstack, AttachOptions(0.05))
