"""A Debian tree by mmdebstrap, with the host's way to the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.lab import debian

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xenvirtio.lab.host import Host


def bootstrap(
    host: Host,
    folder: Path,
    release: debian.Release,
    packages: Sequence[str],
    limit: float,
    *,
    exclude: Sequence[str] = (),
    variant: str = "minbase",
) -> None:
    """Makes `folder`/tree: a minimal Debian with the packages, without files whose paths match `exclude`.

    `variant` is mmdebstrap's: "extract" only unpacks the packages and what they need. `limit` in seconds.
    Raises LabError, MissingDependency, TimeLimit.
    """
    archive = debian.archive_of_host(
        debian.host_sources(), host.run(["apt-config", "dump"], limit=20, what="read apt's configuration")
    )
    sources, options = folder / "sources.list", folder / "apt.conf"
    sources.write_text(archive.sources(release))
    options.touch(mode=0o600)  # a proxy's address may hold a password
    options.write_text("".join(f"{line}\n" for line in archive.options))
    host.run(
        ["mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", "--format=directory"]
        + [f"--include={','.join(packages)}", f"--aptopt={options}"]
        + [f"--dpkgopt=path-exclude={pattern}" for pattern in exclude]
        + ["--dpkgopt=force-unsafe-io"]
        + ['--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/resolv.conf']
        + [release.name, str(folder / "tree"), str(sources)],
        limit=limit,
        what=f"install Debian {release.name}",
        root=True,
    )
