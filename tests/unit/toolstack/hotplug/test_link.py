"""A NIC's link goes down and up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.hotplug.hotplug_rig import UUID, answers, host
from xenvirtio.errors import TimeLimit, UsageError
from xenvirtio.toolstack.hotplug.link import set_link

if TYPE_CHECKING:
    from tests.unit.toolstack.toolstack_fakes import World


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


def test_a_daemon_that_does_not_answer_is_told_of(world: World) -> None:
    before = host(world, 256)
    with pytest.raises(TimeLimit, match="did not change eth0 within 0 s"):
        set_link("g", "eth0", "down", world.toolstack, 0.05)
    assert host(world, 256) == before
