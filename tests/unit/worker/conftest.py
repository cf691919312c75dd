"""What the tests of daemon and workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.worker.worker_rig import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    from tests.unit.worker.worker_rig import House  # not before unit/conftest.py has chosen the mode

    house = House(tmp_path)
    yield house
    house.close()
