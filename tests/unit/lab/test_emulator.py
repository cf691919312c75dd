"""The lab's own QEMU: unpacked once, run by its own loader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import LabError
from xenvirtio.lab import debian, emulator
from xenvirtio.lab.paths import Cache
from xenvirtio.lab.stages import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab.debian import Release
    from xenvirtio.lab.host import Host

TRIXIE = debian.RELEASES["trixie"]
VERSION = "10.0.2 (Debian 1:10.0.2+ds-1)"


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of mmdebstrap: a loader that answers as QEMU does; the variants that were asked for."""
    variants: list[str] = []

    def bootstrap(
        _host: Host,
        folder: Path,
        _release: Release,
        _packages: Sequence[str],
        _limit: float,
        *,
        exclude: Sequence[str],
        variant: str,
    ) -> None:
        assert exclude
        variants.append(variant)
        loader = folder / "tree/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        loader.parent.mkdir(parents=True)
        loader.write_text(f"#!/bin/sh\necho 'QEMU emulator version {VERSION}'\n")
        loader.chmod(0o755)

    monkeypatch.setattr(emulator, "bootstrap", bootstrap)
    return variants


def test_it_is_unpacked_once_and_knows_its_version(tmp_path: Path, unpacked: list[str]) -> None:
    made = emulator.ensure(Cache(tmp_path), TRIXIE, Progress())
    assert made.version == VERSION
    assert emulator.ensure(Cache(tmp_path), TRIXIE, Progress()) == made
    assert unpacked == ["extract"]


def test_what_was_left_half_made_is_made_again(tmp_path: Path, unpacked: list[str]) -> None:
    made = emulator.ensure(Cache(tmp_path), TRIXIE, Progress())
    (made.root.parent / "qemu.json").unlink()
    assert emulator.ensure(Cache(tmp_path), TRIXIE, Progress()) == made
    assert len(unpacked) == 2


def test_nothing_of_the_hosts_is_used(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    qemu = emulator.Emulator(root, VERSION)
    assert qemu.system()[0] == "env"
    for argv in (qemu.system()[2:], qemu.img()):
        assert argv[1] == "--library-path"
        paths = [path for word in argv for path in word.split(":") if word.startswith("/")]
        assert all(Path(path).is_relative_to(root) for path in paths)
    assert qemu.system().count("-L") == 3  # firmware


@pytest.mark.usefixtures("unpacked")
def test_a_qemu_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "_LOADER", "none")
    with pytest.raises(LabError, match="cannot be started"):
        emulator.ensure(Cache(tmp_path), TRIXIE, Progress())
