"""Removes what no lab needs any more: images of older layouts, their snapshots, older payloads."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab import machine, qemu
from xenvirtio.lab.host import Host

if TYPE_CHECKING:
    from xenvirtio.lab.paths import Cache

#: how many images of a release stay beside those in use: checkouts of two versions may share a cache
IMAGES_KEPT = 2
PAYLOADS_KEPT = 4
EMULATORS_KEPT = 1
#: snapshots of each image: one for each accelerator, twice, as QEMU is updated now and then
SNAPSHOTS_KEPT = 4


def images(cache: Cache, release: str) -> None:
    """Drops the release's older images and trees, and every snapshot whose image is gone."""
    used = _used_images(cache)
    for old in _older(cache.images, f"{release}-*/image.json", IMAGES_KEPT):
        if old.parent.name not in used:
            shutil.rmtree(old.parent)
    trees = {_tree(path) for path in cache.images.glob("*/image.json")}
    for complete in cache.trees.glob(f"{release}-*/complete"):
        if str(complete.parent) not in trees:
            remove_tree(complete.parent)
    keys = {path.parent.name.partition("-")[2] for path in cache.images.glob("*/image.json")}
    for path in cache.snapshots.glob("*/snapshot.json"):
        if json.loads(path.read_text())["image"] not in keys:
            shutil.rmtree(path.parent)


def snapshots(cache: Cache, image_key: str) -> None:
    """Keeps the snapshots of an image that were used last; a running lab has a copy of its own."""
    made = [
        path
        for path in cache.snapshots.glob("*/snapshot.json")
        if json.loads(path.read_text())["image"] == image_key
    ]
    for old in sorted(made, key=lambda path: path.stat().st_mtime)[:-SNAPSHOTS_KEPT]:
        shutil.rmtree(old.parent)


def payloads(folder: Path) -> None:
    """Keeps the newest payloads of a release; a running lab holds its own open."""
    for old in _older(folder, "*.raw", PAYLOADS_KEPT):
        old.unlink()


def emulators(cache: Cache, release: str) -> None:
    """Keeps the newest of the release's unpacked QEMUs."""
    for old in _older(cache.emulators, f"{release}-*/qemu.json", EMULATORS_KEPT):
        remove_tree(old.parent)


def remove_tree(folder: Path) -> None:
    """Deletes a folder that belongs to root."""
    with tempfile.TemporaryDirectory(prefix="xenvirtio-") as logs:  # the folder's parent may not be ours
        command = ["rm", "-rf", "--one-file-system", "--", str(folder)]
        try:
            Host(Path(logs) / "remove.log").run(command, limit=120, what=f"remove {folder.name}", root=True)
        except LabError as error:
            raise LabError(error.message, hint=f"sudo rm -rf {folder}") from None


def _used_images(cache: Cache) -> set[str]:
    """Folder names of the images that running machines have open."""
    states = [*cache.labs.glob(f"*/{machine.STATE}"), *cache.snapshots.glob(f"*/{machine.STATE}")]
    running = [state.parent for state in states if machine.find(state.parent) is not None]
    return {(folder / qemu.XEN).resolve().parent.name for folder in running}


def _older(folder: Path, pattern: str, kept: int) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)[:-kept]


def _tree(facts: Path) -> str:
    return str(json.loads(facts.read_text())["tree_folder"])
