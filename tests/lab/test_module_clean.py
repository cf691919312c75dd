"""The guest module's sources are clean on both kernels: compiler (W=1), sparse, checkpatch --strict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.lab import debian

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@pytest.mark.parametrize("release", debian.RELEASES)
def test_compiler_sparse_and_checkpatch_have_no_word_to_say(
    module_checks: Mapping[str, Callable[[], str]], release: str
) -> None:
    said = module_checks[release]()
    print(said)
    assert said.splitlines()[-1] == "clean"
    assert "checkpatch --strict" in said
    assert "left out" not in said
