"""`xenvirtio create`, `list` and `destroy` as they are typed, on a host of fakes."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.cli import main as cli
from xenvirtio.toolstack import lifecycle, local
from xenvirtio.toolstack.listing import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.records import Record


@pytest.fixture
def watched() -> list[Record]:
    """The guests that a watcher was left for."""
    return []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: list[Record]) -> World:
    world = World(tmp_path)

    @contextmanager
    def local_toolstack(say: Callable[[str], None]) -> Iterator[Toolstack]:
        yield replace(world.toolstack, say=say)

    monkeypatch.setattr(local, "local_toolstack", local_toolstack)
    monkeypatch.setattr(local, "local_rows", lambda *_: rows(world.store, {}))
    monkeypatch.setattr(lifecycle, "leave_watcher", watched.append)
    return world


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return caught.value.code if isinstance(caught.value.code, int) else 0


def write(world: World, text: str) -> str:
    path = world.folder / "g.cfg"
    path.write_text(text)
    return str(path)


def test_a_guest_is_created_listed_and_destroyed(
    world: World, watched: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"name='web'\nmemory=256\ndisk=['file:{world.image()},vda,w']\nvif=['model=virtio,bridge=xenbr0']\n"
    )
    assert run("create", write(world, text), "memory=128", "--timeout", "5") == 0
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "xenvirtio: guest web runs as domain 1"
    assert any("plugging vda, eth0 into domain 1" in line for line in told)
    (record,) = watched
    assert (record.guest.name, record.domid, record.limit) == ("web", 1, 5.0)
    assert world.toolstack.records.load(record.guest.uuid) == record
    assert run("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(row["device"], row["state"]) for row in listed] == [("vda", "connected"), ("eth0", "connected")]
    assert run("list") == 0
    assert "vda" in capsys.readouterr().out
    assert run("destroy", "web") == 0
    world.toolstack.records.forget(record.guest.uuid, 1)
    assert world.nothing_left()
    assert run("destroy", "web") == 2
    assert "there is no guest web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name='g'\ndisk=['file:/none.img,vda,w']", "there is no image /none.img"),
        ("name='g'\ndisk=['file:{odd},vda,w']", "no multiple of 512"),
        ("name='g'\ndisk=['file:{odd},vdq9,w']", "is a partition"),
        ("name='g'\ndisk=['file:{odd},foo,w']", "unknown vdev 'foo'"),
        ("name='g'\nvif=['model=virtio,bridge=none0']", "there is no bridge none0"),
        ("name='g'\ndisk=[ 'file:{odd},vda,w'\n", "g.cfg:2:6: this list is not closed"),
        ("name='g'\ndisk=['/a,qcow2,vda,w']", "format qcow2 is not served"),
    ],
)
def test_a_mistake_gets_one_message_with_the_next_step_and_status_2(
    world: World, watched: list[Record], capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    odd = world.image("odd.img", 1000)
    assert run("create", write(world, text.format(odd=odd))) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "\n  try: " in told
    assert "Traceback" not in told
    assert "create" not in world.xl_log
    assert watched == []
    assert world.nothing_left()


def test_a_guest_that_never_connects_has_status_1_and_leaves_nothing(
    world: World, watched: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    world.at_unpause = lambda: None
    text = f"name='g'\ndisk=['file:{world.image()},vda,w']"
    assert run("create", write(world, text), "--timeout", "1") == 1
    told = capsys.readouterr().err
    assert "/local/domain/1/device/virtio/0/state is Initialising (1)" in told
    assert "/local/domain/0/backend/virtio/1/0/state is InitWait (2)" in told
    assert "no virtio_xenbus module" in told
    assert watched == []
    assert world.nothing_left()


def test_no_wait_leaves_the_guest_to_itself(world: World, watched: list[Record]) -> None:
    world.at_unpause = lambda: None
    text = f"name='g'\ndisk=['file:{world.image()},vda,w']"
    assert run("create", write(world, text), "--no-wait") == 0
    assert len(watched) == 1


def test_a_watcher_that_cannot_start_undoes_the_guest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Record) -> None:
        raise OSError("no process left")

    monkeypatch.setattr(lifecycle, "leave_watcher", fail)
    assert run("create", write(world, f"name='g'\ndisk=['file:{world.image()},vda,w']")) == 1
    assert world.nothing_left()


def test_the_warning_about_iommu_soft_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"name='g'\ndisk=['file:{world.image()},vda,w']\nmemory_access='foreign'"
    assert run("create", write(world, text)) == 0
    assert 'extra += " iommu=soft"' in capsys.readouterr().err
