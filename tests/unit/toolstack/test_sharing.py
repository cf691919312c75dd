"""Who else uses an image, under whatever name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xenvirtio.toolstack.sharing import backing_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_loop_device_is_the_file_behind_it(tmp_path: Path) -> None:
    loop = tmp_path / "dev/block/7:3/loop"
    loop.mkdir(parents=True)
    (loop / "backing_file").write_text("/srv/a b.img\n")
    assert backing_file(os.makedev(7, 3), tmp_path) == "/srv/a b.img"


def test_another_block_device_has_no_file(tmp_path: Path) -> None:
    assert backing_file(os.makedev(8, 0), tmp_path) is None
