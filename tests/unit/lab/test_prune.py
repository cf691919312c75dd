"""What is removed, what stays, that removing leaves nothing itself; and when a machine is alive."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from xenvirtio.lab import prune
from xenvirtio.lab.machine import Machine
from xenvirtio.lab.paths import Cache

if TYPE_CHECKING:
    from pathlib import Path


def test_removing_a_tree_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "cache/images").mkdir(parents=True)
    prune.remove_tree(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_an_images_snapshots_that_were_used_last_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, image in enumerate(["one"] * (prune.SNAPSHOTS_KEPT + 2) + ["two"]):
        facts = cache.snapshots / f"s{number}" / "snapshot.json"
        facts.parent.mkdir(parents=True)
        facts.write_text(json.dumps({"accelerator": "tcg", "image": image}))
        os.utime(facts, (number, number))
    os.utime(cache.snapshots / "s0/snapshot.json")
    prune.snapshots(cache, "one")
    assert sorted(path.name for path in cache.snapshots.iterdir()) == ["s0", "s3", "s4", "s5", "s6"]


def test_a_machine_that_ended_before_it_was_looked_at_is_not_alive() -> None:
    nobody = 1 << 30  # above the kernel's greatest process id
    assert not Machine(nobody, 0, "tcg", "boots/x", "image", "payload").alive
