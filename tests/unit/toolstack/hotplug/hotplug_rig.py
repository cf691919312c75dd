"""A guest that follows, and what the store and the daemon have of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.toolstack.create import StartOptions, start
from xenvirtio.toolstack.hotplug.attach import AttachOptions
from xenvirtio.toolstack.records import Record

if TYPE_CHECKING:
    from pathlib import Path

B = "/local/domain/0/backend/virtio/1"
F = "/local/domain/1/device/virtio"
UUID = "11111111-2222-3333-4444-555555555555"
QUICK = AttachOptions(0.3)
MIB = 1 << 20


def running_world(folder: Path) -> World:
    world = World(folder)
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


def host(world: World, devid: int) -> dict[str, str]:
    path = f"{B}/{devid}/host/"
    own = {node.removeprefix(path): value for node, value in nodes(world).items() if node.startswith(path)}
    return {key: value for key, value in own.items() if key not in ("update", "updated")}
