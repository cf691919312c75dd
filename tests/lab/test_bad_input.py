"""The user's mistakes each get one clear message with the next step, and nothing half-created stays.

On the real `xenvirtio create` in dom0. Exit status: 2 for the user's mistakes, 1 for others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import make_image, traces, traces_after
from xenvirtio.lab.guest import Disk, GuestConfig, Nic, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Completed, Lab
    from xenvirtio.lab.guest import Backend

NAME = "mistaken"
IMAGE = "/root/mistaken.img"


@pytest.fixture
def good(lab: Lab, backend: Backend) -> Iterator[GuestConfig]:
    """A configuration without a mistake; after the test, nothing is left of it."""
    assert backend.pid() > 0
    before = traces(lab)
    make_image(lab, IMAGE)
    yield GuestConfig(NAME, disks=(Disk(IMAGE),), nics=(Nic(),))
    assert traces_after(lab, before) == before
    assert lab.run(["xl", "domid", NAME]).returncode != 0


def messages(done: Completed, status: int) -> str:
    """What create said, when it failed as it should: once, without a traceback, with a next step."""
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert "try:" in done.stderr
    return done.stderr


def test_an_image_that_is_not_there(lab: Lab, good: GuestConfig) -> None:
    said = messages(start(lab, replace(good, disks=(Disk("/root/none.img"),))), 2)
    assert "/root/none.img" in said
    assert "vda" in said


def test_an_image_whose_size_is_no_multiple_of_512(lab: Lab, good: GuestConfig) -> None:
    make_image(lab, IMAGE, 1_000_000)
    said = messages(start(lab, good), 2)
    assert "1000000" in said
    assert "512" in said


def test_a_second_disk_is_bad(lab: Lab, good: GuestConfig) -> None:
    said = messages(start(lab, replace(good, disks=(*good.disks, Disk("/root/none.img", "vdb")))), 2)
    assert "vdb" in said


def test_a_vdev_that_nobody_knows(lab: Lab, good: GuestConfig) -> None:
    assert "vq7z" in messages(start(lab, replace(good, disks=(Disk(IMAGE, "vq7z"),))), 2)


def test_a_bridge_that_is_not_there(lab: Lab, good: GuestConfig) -> None:
    assert "nobridge" in messages(start(lab, replace(good, nics=(Nic("nobridge"),))), 2)


def test_a_syntax_error_is_shown_with_line_column_and_caret(lab: Lab, good: GuestConfig) -> None:
    text = good.text().replace("memory = 256", "memory = = 256")
    line = text.splitlines().index("memory = = 256") + 1
    said = messages(start(lab, text, name=NAME), 2)
    assert f":{line}:10:" in said
    shown = said.splitlines()
    place = next(number for number, each in enumerate(shown) if "memory = = 256" in each)
    assert shown[place + 1].strip() == "^"
    assert shown[place + 1].index("^") == shown[place].index("= 256")


def test_a_guest_whose_kernel_lacks_the_module_meets_a_time_limit(lab: Lab, good: GuestConfig) -> None:
    said = messages(start(lab, replace(good, modules=False), timeout=10), 1)
    assert "10 s" in said
    assert "virtio_xenbus" in said
    assert "/local/domain/0/backend/virtio/" in said
    assert "device/virtio/" in said


def test_a_guest_that_crashes_while_it_boots(lab: Lab, good: GuestConfig) -> None:
    said = messages(start(lab, replace(good, kernel_options="rdinit=/nothing panic=1"), timeout=40), 1)
    assert NAME in said


def test_without_the_daemon(lab: Lab, good: GuestConfig, backend: Backend) -> None:
    backend.stop()
    try:
        assert "xenvirtio daemon" in messages(start(lab, good, timeout=20), 1)
    finally:
        backend.start()
