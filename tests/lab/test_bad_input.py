"""The user's mistakes each get one clear message with the next step, and nothing half-created stays.

On the real `xenvirtio create` in dom0. Exit status: 2 for the user's mistakes, 1 for others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import create_each, make_image, traces, traces_after
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


def test_what_cannot_be_served_is_refused_by_its_name(lab: Lab, good: GuestConfig) -> None:
    odd = make_image(lab, "/root/odd.img", 1_000_000)
    wrong: dict[tuple[str, ...], GuestConfig] = {
        ("1000000", "512"): replace(good, disks=(Disk(odd),)),
        ("vdb", "/root/none.img"): replace(good, disks=(*good.disks, Disk("/root/none.img", "vdb"))),
        ("vq7z",): replace(good, disks=(Disk(IMAGE, "vq7z"),)),
        ("nobridge",): replace(good, nics=(Nic("nobridge"),)),
    }
    for words, done in zip(wrong, create_each(lab, list(wrong.values())), strict=True):
        said = messages(done, 2)
        assert all(word in said for word in words), done


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
    needless = {"device_model_args_pv": "['-nodefaults']"}  # it was needed in 2011
    done = start(lab, replace(good, modules=False, settings=needless), timeout=10)
    assert "device_model_args_pv is not needed" in done.stderr
    said = messages(done, 1)
    assert "10 s" in said
    assert "virtio_xenbus" in said
    assert "/local/domain/0/backend/virtio/" in said
    assert "device/virtio/" in said


def test_a_guest_that_crashes_while_it_boots(lab: Lab, good: GuestConfig) -> None:
    said = messages(start(lab, replace(good, kernel_options="rdinit=/nothing panic=1"), timeout=40), 1)
    assert f"guest {NAME} ended (crash) before its virtio devices were connected" in said


def test_without_the_daemon(lab: Lab, good: GuestConfig, backend: Backend) -> None:
    backend.stop()
    try:
        assert "xenvirtio daemon" in messages(start(lab, good, timeout=20), 1)
    finally:
        backend.start()
