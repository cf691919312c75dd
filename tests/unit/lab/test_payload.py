"""What counts as a source of the payload, and when it is built again."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from xenvirtio.errors import LabError
from xenvirtio.lab.image import Image
from xenvirtio.lab.payload import Sources
from xenvirtio.lab.wheels import requirements

IMAGE = Image(Path("/images/x"), "k1", "trixie", "4.20", "6.12.1-amd64", "/trees/x", "made1")

PYPROJECT = """
[build-system]
requires = ["setuptools>=80", "Cython>=3.1"]
[project]
name = "xenvirtio"
dependencies = ["cffi", "rich"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Sources:
    root = tmp_path / "checkout"
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "src/xenvirtio/lab/lab.py": "a = 1\n",
        "src/xenvirtio/queue/split.py": "b = 1\n",
        "src/xenvirtio/queue/split.pxd": "c",
        "guest/linux/Kbuild": "obj-m",
        "guest/linux/driver.c": "int x;",
        "docs/readme.md": "not in it",
        "tests/unit/test_x.py": "not in it",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sources(root)


def test_a_checkout_is_found_from_the_environment(checkout: Sources) -> None:
    assert Sources.find({"XENVIRTIO_SOURCE": str(checkout.root)}) == checkout
    assert Sources.find({"XENVIRTIO_SOURCE": str(checkout.root / "src/xenvirtio")}) == checkout


def test_no_checkout_is_one_error_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        Sources.find({"XENVIRTIO_SOURCE": str(tmp_path)})
    assert "XENVIRTIO_SOURCE" in str(caught.value.hint)


def test_the_sources_are_code_and_nothing_else(checkout: Sources) -> None:
    assert [str(path) for path in checkout.files()] == [
        "pyproject.toml",
        "src/xenvirtio/lab/lab.py",
        "src/xenvirtio/queue/split.pxd",
        "src/xenvirtio/queue/split.py",
        "guest/linux/Kbuild",
        "guest/linux/driver.c",
    ]


def test_what_compilers_leave_does_not_build_again(checkout: Sources) -> None:
    before = checkout.key(IMAGE)
    for name in (
        "src/xenvirtio/queue/split.c",
        "src/xenvirtio/queue/split.cpython-311-x86_64-linux-gnu.so",
        "src/xenvirtio/queue/__pycache__/split.cpython-311.pyc",
        "guest/linux/driver.o",
        "guest/linux/x.mod.c",
        "guest/linux/.driver.o.cmd",
        "tests/unit/test_y.py",
    ):
        path = checkout.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("made")
    assert checkout.key(IMAGE) == before


@pytest.mark.parametrize("name", ["src/xenvirtio/queue/split.py", "guest/linux/driver.c", "pyproject.toml"])
def test_a_changed_source_builds_again(checkout: Sources, name: str) -> None:
    before = checkout.key(IMAGE)
    (checkout.root / name).write_text("changed")
    assert checkout.key(IMAGE) != before


def test_another_image_builds_again(checkout: Sources) -> None:
    assert checkout.key(replace(IMAGE, key="k2")) != checkout.key(IMAGE)


def test_a_renamed_source_builds_again(checkout: Sources) -> None:
    before = checkout.key(IMAGE)
    (checkout.root / "guest/linux/driver.c").rename(checkout.root / "guest/linux/device.c")
    assert checkout.key(IMAGE) != before


def test_the_archive_holds_the_files_with_their_times_for_root(checkout: Sources) -> None:
    with tarfile.open(fileobj=io.BytesIO(checkout.archive())) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [str(path) for path in checkout.files()]
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    for member in members:
        assert int(member.mtime) == int((checkout.root / member.name).stat().st_mtime)


def test_requirements_come_from_the_project_itself(checkout: Sources) -> None:
    wanted = requirements(checkout.root / "pyproject.toml")
    assert wanted.build == ("setuptools>=80", "Cython>=3.1", "wheel")
    assert wanted.run == ("cffi", "rich")
    assert wanted.names == ["Cython>=3.1", "cffi", "rich", "setuptools>=80", "wheel"]


def test_an_edit_while_the_sources_are_read_is_not_stored_under_the_old_key(
    checkout: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = checkout.root / "guest/linux/driver.c"
    archive = Sources.archive
    reads: list[str] = []

    def edit_first(self: Sources) -> bytes:
        if not reads:
            edited.write_text("int y;")
        reads.append("archive")
        return archive(self)

    monkeypatch.setattr(Sources, "archive", edit_first)
    key, data = checkout.snapshot(IMAGE)
    assert key == checkout.key(IMAGE)
    assert len(reads) == 2
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.extractfile("guest/linux/driver.c")
        assert member is not None
        assert member.read() == b"int y;"
