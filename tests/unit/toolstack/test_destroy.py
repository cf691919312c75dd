"""A guest is destroyed at once, and nothing of it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.errors import UsageError
from xenvirtio.toolstack.create import StartOptions, destroy, start

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
