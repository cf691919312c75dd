"""Who else uses an image, under whatever name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xenvirtio.toolstack.sharing import backing_file, writing_loop

if TYPE_CHECKING:
    from pathlib import Path


def test_a_loop_device_is_the_file_behind_it(tmp_path: Path) -> None:
    loop = tmp_path / "dev/block/7:3/loop"
    loop.mkdir(parents=True)
    (loop / "backing_file").write_text("/srv/a b.img\n")
    assert backing_file(os.makedev(7, 3), tmp_path) == "/srv/a b.img"


def test_another_block_device_has_no_file(tmp_path: Path) -> None:
    assert backing_file(os.makedev(8, 0), tmp_path) is None


def test_a_file_that_a_loop_device_writes_to_has_a_user(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.touch()
    (tmp_path / "other.name").hardlink_to(image)
    (tmp_path / "b.img").touch()
    for number, (path, read_only) in enumerate((("b.img", 0), ("a.img", 1), ("other.name", 0))):
        folder = tmp_path / f"sys/block/loop{number}/loop"
        folder.mkdir(parents=True)
        (folder / "backing_file").write_text(f"{tmp_path}/{path}\n")
        (folder.parent / "ro").write_text(f"{read_only}\n")
    (tmp_path / "sys/block/loop3").mkdir()  # attached to nothing
    assert writing_loop(str(image), tmp_path / "sys") == "/dev/loop2"
    assert writing_loop(str(tmp_path / "none"), tmp_path / "sys") is None
    (tmp_path / "sys/block/loop2/ro").write_text("1\n")
    assert writing_loop(str(image), tmp_path / "sys") is None
