"""What cannot be started is refused before anything is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.device.block.lock import lock_image
from xenvirtio.errors import UsageError, XenvirtioError
from xenvirtio.toolstack.checks import check_guest
from xenvirtio.toolstack.create import StartOptions, start

if TYPE_CHECKING:
    from pathlib import Path

QUICK = StartOptions(limit=0.3)
B = "/local/domain/0/backend/virtio/1"
F = "/local/domain/1/device/virtio"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("disk", "words", "hint"),
    [
        ("{f}/none.img", "disk vda: there is no image {f}/none.img", "truncate -s 1G"),
        ("{f}/empty.img", "disk vda: {f}/empty.img is empty", "truncate -s 1G"),
        ("{f}/odd.img", "513 bytes, which is no multiple of 512", "truncate -s %512 {f}/odd.img"),
        ("{f}", "{f} is neither a file nor a block device", ""),
        ("/dev/null", "/dev/null is neither a file nor a block device", ""),
        ("{f}/odd.img/x", "cannot look at {f}/odd.img/x: Not a directory", ""),
    ],
)
def test_an_image_that_cannot_be_served_is_refused_before_anything_is_made(
    world: World, disk: str, words: str, hint: str
) -> None:
    world.image("empty.img", 0)
    world.image("odd.img", 513)
    guest = world.guest(f"name='g'; disk=['file:{disk.format(f=world.folder)},vda,w']")
    with pytest.raises(UsageError) as caught:
        start(guest, world.toolstack, QUICK)
    assert words.format(f=world.folder) in caught.value.message
    assert hint.format(f=world.folder) in (caught.value.hint or "")
    assert caught.value.exit_status == 2
    assert "create" not in world.xl_log
    assert world.nothing_left()


@pytest.mark.parametrize("kind", ["backend=xenvirtio", "backend=qemu"])
@pytest.mark.parametrize(
    ("ours", "theirs", "free"),
    [("rw", "rw", False), ("ro", "rw", False), ("rw", "ro", False), ("ro", "ro", True)],
)
def test_an_image_that_somebody_uses_is_refused_unless_both_only_read(
    world: World, kind: str, ours: str, theirs: str, free: bool
) -> None:
    image = world.image()
    guest = world.guest(f"name='g'; type='hvm'; disk=['vdev=vda,access={ours},{kind},target={image}']")
    with open(image, "rb+") as other:
        lock_image(other.fileno(), str(image), theirs == "ro")
        if free:
            check_guest(guest, world.toolstack.host)
            return
        with pytest.raises(UsageError, match=r"disk vda: .* in use by another guest or program") as caught:
            start(guest, world.toolstack, QUICK)
    assert "lslocks" in (caught.value.hint or "")
    assert "create" not in world.xl_log


@pytest.mark.parametrize("kind", ["backend=xenvirtio", "backend=qemu"])
def test_the_guest_that_uses_an_image_is_named(world: World, kind: str) -> None:
    start(world.usual_guest(), world.toolstack, QUICK)
    world.store.write("/local/domain/1/name", "g")
    image = world.folder / "a.img"
    guest = world.guest(f"name='h'; type='hvm'; disk=['vdev=vdb,{kind},target={image}']")
    with pytest.raises(UsageError, match=r"disk vdb: .* is in use by guest g as vda") as caught:
        start(guest, world.toolstack, QUICK)
    assert "xenvirtio detach g vda" in (caught.value.hint or "")
    assert world.xl_log.count("create") == 1


def test_a_guest_that_is_started_twice_is_said_to_run(world: World) -> None:
    start(world.usual_guest(), world.toolstack, QUICK)
    with pytest.raises(UsageError, match="guest g is running already"):
        start(world.usual_guest(), world.toolstack, QUICK)


def test_an_image_of_another_format_is_refused_before_anything_is_made(world: World) -> None:
    disk = f"format=qcow2,vdev=vda,backend=qemu,target={world.image()}"
    with pytest.raises(UsageError, match=r"a\.img is no image of format qcow2") as caught:
        start(world.guest(f"name='g'; type='hvm'; disk=['{disk}']"), world.toolstack, QUICK)
    assert "qemu-img info" in (caught.value.hint or "")
    assert "create" not in world.xl_log


@pytest.mark.parametrize(
    ("vif", "words", "hint"),
    [
        ("bridge=nobr0", "NIC eth0: there is no bridge nobr0", "ip link add nobr0 type bridge"),
        ("bridge=eth9", "eth9 is a network interface, but no bridge", "bridge="),
        ("vifname=eth9", "there is a network interface eth9 already", "vifname="),
    ],
)
def test_a_bridge_that_is_not_there_is_refused_before_anything_is_made(
    world: World, vif: str, words: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        start(world.guest(f"name='g'; vif=['model=virtio,{vif}']"), world.toolstack, QUICK)
    assert words in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "create" not in world.xl_log


def test_a_missing_kernel_is_refused_before_anything_is_made(world: World) -> None:
    with pytest.raises(UsageError, match="no kernel or ramdisk /none/vmlinuz"):
        start(world.guest("name='g'; kernel='/none/vmlinuz'"), world.toolstack, QUICK)
    assert "create" not in world.xl_log


def test_only_root_starts_guests(world: World) -> None:
    world.user = 1000
    with pytest.raises(UsageError, match="by root"):
        start(world.usual_guest(), world.toolstack, QUICK)
    assert "create" not in world.xl_log


def test_without_the_daemon_nothing_is_made(world: World) -> None:
    world.daemon = False
    with pytest.raises(XenvirtioError, match="daemon that serves virtio devices does not run") as caught:
        start(world.usual_guest(), world.toolstack, QUICK)
    assert caught.value.exit_status == 1
    assert "xenvirtio daemon" in (caught.value.hint or "")
    assert world.nothing_left()


def test_a_guest_that_runs_already_is_refused_and_left_alone(world: World) -> None:
    guest = world.usual_guest("uuid='11111111-2222-3333-4444-555555555555'")
    start(guest, world.toolstack, QUICK)
    nodes = dict(world.store.nodes)
    with pytest.raises(UsageError, match=r"g is running already \(domain 1\)"):
        start(guest, world.toolstack, QUICK)
    other = world.usual_guest("uuid='11111111-2222-3333-4444-555555555555'; name='h'")
    with pytest.raises(UsageError, match="is that of the running guest g"):
        start(other, world.toolstack, QUICK)
    assert [domain["domid"] for domain in world.domains] == [0, 1]
    assert world.store.nodes == nodes
