"""A disk's size changes with its image, or neither does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.hotplug.hotplug_rig import MIB, B, answers, host, nodes
from xenvirtio.errors import UsageError, XenvirtioError
from xenvirtio.toolstack.hotplug.resize import parse_size, resize

if TYPE_CHECKING:
    from tests.unit.toolstack.toolstack_fakes import World


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


def test_a_change_that_the_device_refuses_is_taken_back(world: World) -> None:
    before = host(world, 0)
    world.store.steps = [lambda: world.store.write(f"{B}/0/host/updated", "1 the image is gone")]
    with pytest.raises(XenvirtioError, match="vda cannot be changed: the image is gone"):
        resize("g", "vda", "2M", world.toolstack, 0.3)
    assert host(world, 0) == before
    assert (world.folder / "a.img").stat().st_size == MIB


def test_a_grow_that_fails_leaves_neither_disk_nor_image_longer(world: World) -> None:
    served: list[str | None] = []

    def daemon() -> None:
        """Refuses to grow the disk; notes what size it is told, and how long the image is then."""
        served.append(f"{world.store.read(f'{B}/0/host/size')} {(world.folder / 'a.img').stat().st_size}")
        update = world.store.read(f"{B}/0/host/update") or ""
        refused = world.store.read(f"{B}/0/host/size") == str(2 * MIB)
        world.store.write(f"{B}/0/host/updated", f"{update} no memory" if refused else update)
        world.store.steps = [daemon]

    world.store.steps = [daemon]
    with pytest.raises(XenvirtioError, match="vda cannot be changed: no memory"):
        resize("g", "vda", "2M", world.toolstack, 0.3)
    assert served == [f"{MIB} {MIB}", f"{2 * MIB} {2 * MIB}", f"{MIB} {2 * MIB}"]
    assert (world.folder / "a.img").stat().st_size == MIB
    assert world.store.read(f"{B}/0/host/size") == str(MIB)


def test_an_image_is_not_cut_before_the_daemon_says_that_the_disk_ends(world: World) -> None:
    def daemon_ends() -> None:
        world.store.write(f"{B}/0/host/updated", world.store.read(f"{B}/0/host/update") or "")
        world.store.steps = []

    world.store.steps = [daemon_ends]
    with pytest.raises(XenvirtioError, match=r"a\.img keeps its 2097152 bytes"):
        resize("g", "vda", "2M", world.toolstack, 0.1)
    assert (world.folder / "a.img").stat().st_size == 2 * MIB


def test_a_size_that_the_file_system_cannot_hold_is_a_mistake(world: World) -> None:
    answers(world)
    with pytest.raises(UsageError, match=r"a\.img cannot get \d+ bytes: File too large; vda stays") as caught:
        resize("g", "vda", "900000T", world.toolstack, 0.3)
    assert caught.value.hint
    assert (world.folder / "a.img").stat().st_size == MIB


def test_a_device_that_is_not_served_cannot_change(world: World) -> None:
    world.store.write(f"{B}/0/state", "6")
    world.store.write(f"{B}/0/error", "the worker died 6 times")
    with pytest.raises(XenvirtioError, match="vda is not served: the worker died 6 times"):
        resize("g", "vda", "2M", world.toolstack, 0.3)
