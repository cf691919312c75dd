"""virtio 1.3 §5.4: a device in plain Python, over memoryviews."""

from __future__ import annotations

import pytest

from tests.unit.device.device_rig import Rig
from xenvirtio.device.entropy.state import REQUEST_MAX, EntropyDevice
from xenvirtio.testing.guest import KINDS


@pytest.mark.parametrize("kind", list(KINDS))
def test_buffers_are_filled_with_random_bytes(kind: str) -> None:
    with Rig(EntropyDevice(), KINDS[kind]()) as rig:
        rig.activate()
        first = rig.request([], [64, 5000])
        second = rig.request([], [64])
        assert first.length == 5064
        assert len({*first.data, *second.data}) == 3
        assert rig.device.counters == {"requests": 2, "bytes": 5128}


def test_a_request_gets_no_more_than_the_limit() -> None:
    with Rig(EntropyDevice()) as rig:
        rig.activate()
        used = rig.request([b"ignored"], [REQUEST_MAX, 100])
        assert used.length == REQUEST_MAX
        assert used.data[1] == bytes(100)


def test_a_chain_with_nothing_to_write_comes_back_empty() -> None:
    with Rig(EntropyDevice()) as rig:
        rig.activate()
        assert rig.request([b"readable"], []).length == 0
