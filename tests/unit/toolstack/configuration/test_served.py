"""The machine's file: who serves virtio devices of HVM guests, if their configurations do not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import UsageError
from xenvirtio.toolstack.configuration.served import machine_backend

if TYPE_CHECKING:
    from pathlib import Path


def test_without_the_file_it_is_xenvirtio(tmp_path: Path) -> None:
    assert machine_backend(tmp_path / "none.toml") == "xenvirtio"


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("", "xenvirtio"),
        ('virtio_backend = "xenvirtio"', "xenvirtio"),
        ("# ours\nvirtio_backend = 'qemu'\n", "qemu"),
    ],
)
def test_the_file_says_who_serves(tmp_path: Path, text: str, backend: str) -> None:
    path = tmp_path / "xenvirtio.toml"
    path.write_text(text)
    assert machine_backend(path) == backend


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"virtio_backend = qemu", "line 1"),
        (b'virtio_backend = "kvm"', "virtio_backend is 'kvm'"),
        (b"virtio_backend = 1", "virtio_backend is 1"),
        (b"virtio_backend = ['qemu']", "virtio_backend is ['qemu']"),
        (b"virtio_backends = 'qemu'", "unknown setting 'virtio_backends'"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "xenvirtio.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        machine_backend(path)
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        machine_backend(tmp_path)
