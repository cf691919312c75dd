"""Python packages for the image: downloaded on the host, installed in the image without a network.

So whatever lets the host's pip reach its index (proxies, certificates, mirrors) need not exist inside.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from xenvirtio.lab.debian import Release
    from xenvirtio.lab.host import Host


@dataclass(frozen=True)
class Requirements:
    """What building the project needs, and what running it does."""

    build: tuple[str, ...]
    run: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return sorted({*self.build, *self.run})


def requirements(pyproject: Path) -> Requirements:
    """From the project's pyproject.toml; building needs the wheel package besides."""
    with pyproject.open("rb") as file:
        project = tomllib.load(file)
    return Requirements(
        (*project["build-system"]["requires"], "wheel"), tuple(project["project"]["dependencies"])
    )


def download(host: Host, release: Release, wanted: list[str], folder: Path, limit: float) -> None:
    """Brings wheels for the release's CPython on amd64 into the folder; raises LabError, TimeLimit."""
    folder.mkdir(parents=True, exist_ok=True)
    version = release.python
    abi = "cp" + version.replace(".", "")
    # pip takes the tags as they are given: each glibc up to bookworm's 2.36 (PEP 600), and the older names
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    host.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
            ),
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={version}"),
            *(f"--abi={abi}", "--abi=abi3", "--abi=none"),
            *(f"--platform={platform}" for platform in (*platforms, "any")),
            *(f"--dest={folder}", *wanted),
        ],
        limit=limit,
        what="download Python packages",
    )
