"""A disk's size changes with its image, or neither does."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.unit.toolstack.hotplug.hotplug_rig import MIB, QUICK, B, answers, host, new_disk, nodes
from xenvirtio.device.block.config import BlockConfig, size_setting
from xenvirtio.device.block.image import Image
from xenvirtio.errors import TimeLimit, UsageError, XenvirtioError
from xenvirtio.toolstack.hotplug.attach import attach
from xenvirtio.toolstack.hotplug.resize import parse_size, resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.toolstack.toolstack_fakes import World


def failing(code: int) -> Callable[[object, int], NoReturn]:
    """An os.truncate that fails."""

    def fail(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


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


@pytest.mark.parametrize("plugged", ["create", "attach"])
def test_a_disk_has_the_size_that_its_guest_sees_whatever_became_of_its_image(
    world: World, plugged: str
) -> None:
    answers(world)
    if plugged == "attach":
        attach("g", [new_disk(world)], world.toolstack, QUICK)
    vdev, image = ("vda", "a.img") if plugged == "create" else ("vdb", "b.img")
    world.image(image, 3 * MIB)
    done = resize("g", vdev, "+1M", world.toolstack, 0.3)
    assert (done.before, done.after) == (MIB, 2 * MIB), "that is no loss: the guest has 1 MiB"
    assert (world.folder / image).stat().st_size == 3 * MIB, "nothing is cut off unless told to"
    world.image(image, 5 * MIB)
    done = resize("g", vdev, None, world.toolstack, 0.3)
    assert (done.before, done.after) == (2 * MIB, 5 * MIB)


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

    def refuse() -> None:
        world.store.write(f"{B}/0/host/updated", "1 the image is gone")
        answers(world)

    world.store.steps = [refuse]
    with pytest.raises(XenvirtioError, match="vda cannot be changed: the image is gone"):
        resize("g", "vda", "2M", world.toolstack, 0.3)
    assert host(world, 0) == before
    assert (world.folder / "a.img").stat().st_size == MIB


@pytest.mark.parametrize("sized", [True, False])
def test_a_growth_that_comes_too_late_is_undone_disk_first(
    world: World, monkeypatch: pytest.MonkeyPatch, sized: bool
) -> None:
    """The daemon misses the limit and then carries out what B/host says, at whatever moment."""
    if not sized:  # another toolstack plugged it
        world.store.remove(f"{B}/0/host/size")
    path = world.folder / "a.img"
    truncate = os.truncate
    with closing(Image(BlockConfig(str(path)))) as disk:

        def daemon() -> None:
            host_now = host(world, 0)
            update = world.store.read(f"{B}/0/host/update") or "0"
            if int(update) > 1:
                disk.resize(size_setting(host_now, "vda"))
                world.store.write(f"{B}/0/host/updated", update)
                assert disk.size <= path.stat().st_size
            world.store.steps = [daemon]

        def cut(file: str, size: int) -> None:
            daemon()
            truncate(file, size)

        world.store.steps = [daemon]
        monkeypatch.setattr("os.truncate", cut)
        with pytest.raises(TimeLimit):
            resize("g", "vda", "4M", world.toolstack, 0.1)
        assert (disk.size, path.stat().st_size) == (MIB, MIB)


def test_an_image_stays_long_while_its_disk_may_be(world: World) -> None:
    with pytest.raises(TimeLimit):
        resize("g", "vda", "4M", world.toolstack, 0.1)
    assert (world.folder / "a.img").stat().st_size == 4 * MIB, "the daemon may be at the first change"
    assert host(world, 0)["size"] == str(MIB)
    assert f"run: xenvirtio resize g vda {MIB} --shrink" in world.said[-1]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EFBIG, UsageError), (errno.ENOSPC, XenvirtioError), (errno.EPERM, XenvirtioError)],
)
def test_an_image_that_cannot_grow_is_named_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[XenvirtioError]
) -> None:
    before = nodes(world)
    monkeypatch.setattr("os.truncate", failing(code))
    with pytest.raises(
        XenvirtioError, match=rf"a\.img cannot be made .* long: {os.strerror(code)}"
    ) as caught:
        resize("g", "vda", "2M", world.toolstack, 0.3)
    assert type(caught.value) is kind
    assert caught.value.hint
    assert nodes(world) == before


def test_a_disk_whose_image_cannot_be_cut_has_shrunk_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(world)
    monkeypatch.setattr("os.truncate", failing(errno.EPERM))
    with pytest.raises(
        XenvirtioError, match=r"vda has 524288 bytes now, but its image .* cannot be cut"
    ) as caught:
        resize("g", "vda", "512K", world.toolstack, 0.3, shrink=True)
    assert f"truncate -s 524288 {world.folder}/a.img" in (caught.value.hint or "")
    assert host(world, 0)["size"] == "524288"
    monkeypatch.undo()
    monkeypatch.setattr("xenvirtio.toolstack.connect.LOOK", 0.01)
    resize("g", "vda", "512K", world.toolstack, 0.3, shrink=True)
    assert (world.folder / "a.img").stat().st_size == MIB // 2, "again does what is left"


def test_a_device_that_is_not_served_cannot_change(world: World) -> None:
    world.store.write(f"{B}/0/state", "6")
    world.store.write(f"{B}/0/error", "the worker died 6 times")
    before = nodes(world)
    with pytest.raises(XenvirtioError, match="vda is not served: the worker died 6 times"):
        resize("g", "vda", "2M", world.toolstack, 0.3)
    assert nodes(world) == before
    assert (world.folder / "a.img").stat().st_size == MIB
