"""A world in which a guest runs. What is imported waits until the mode is chosen: tests/unit/conftest.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.toolstack.toolstack_fakes import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Guest g runs, with vda and eth0; waits are short."""
    from tests.unit.toolstack.hotplug.hotplug_rig import running_world

    monkeypatch.setattr("xenvirtio.toolstack.connect.LOOK", 0.01)
    monkeypatch.setattr("xenvirtio.toolstack.hotplug.detach.LOOK", 0.01)
    monkeypatch.setattr("xenvirtio.toolstack.hotplug.detach.FORCE_LIMIT", 0.05)
    monkeypatch.setattr("xenvirtio.toolstack.hotplug.detach.TAKE_BACK_LIMIT", 0.05)
    monkeypatch.setattr("xenvirtio.toolstack.hotplug.attach.UNDO_LIMIT", 0.2)
    return running_world(tmp_path)
