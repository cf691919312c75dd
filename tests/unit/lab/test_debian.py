"""The host's way to the Debian archive becomes the image's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.lab import debian
from xenvirtio.lab.debian import RELEASES, archive_of_host, host_sources
from xenvirtio.lab.image import image_key, tree_key

if TYPE_CHECKING:
    from pathlib import Path

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
"""


def test_deb822_sources_give_both_mirrors() -> None:
    archive = archive_of_host([DEB822], "")
    assert archive.mirror == "http://mirror.example/debian"
    assert archive.security == "http://mirror.example/security"


def test_one_line_sources_give_both_mirrors() -> None:
    text = """
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian trixie main contrib
deb-src https://m.example/src trixie main
deb https://m.example/debian-security trixie-security main
"""
    archive = archive_of_host([text], "")
    assert archive.mirror == "https://m.example/debian"
    assert archive.security == "https://m.example/debian-security"


def test_other_repositories_and_disabled_ones_do_not_count() -> None:
    other = "Types: deb\nURIs: https://other.example/node\nSuites: nodistro\nComponents: main\n"
    disabled = "Enabled: no\n" + DEB822.replace("mirror.example", "off.example")
    ubuntu = "deb http://archive.ubuntu.example/ubuntu jammy main\n"
    archive = archive_of_host([other, disabled, ubuntu, DEB822], "")
    assert archive.mirror == "http://mirror.example/debian"


def test_a_mirror_without_security_is_not_given_anothers() -> None:
    archive = archive_of_host(["deb http://inner.example/debian bookworm main"], "")
    assert archive.security is None
    assert "security" not in archive.sources(RELEASES["trixie"])


def test_a_host_that_is_not_debian_uses_debians_own_addresses() -> None:
    archive = archive_of_host(["deb http://archive.ubuntu.example/ubuntu jammy main"], "")
    assert archive.mirror == debian.DEFAULT_MIRROR
    assert archive.security == debian.DEFAULT_SECURITY


def test_the_release_asked_for_replaces_the_hosts() -> None:
    sources = archive_of_host([DEB822], "").sources(RELEASES["trixie"])
    assert "bookworm" not in sources
    assert [line.split()[-2] for line in sources.splitlines()] == [
        "trixie",
        "trixie-updates",
        "trixie-security",
    ]


def test_proxies_certificates_and_retries_are_inherited_and_nothing_else() -> None:
    configuration = """\
APT::Install-Recommends "0";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::CAInfo "/etc/ca.pem";
Acquire::https::Verify-Peer "";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::Packages::Optional "0";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/*.bin";
"""
    assert archive_of_host([], configuration).options == (
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CAInfo "/etc/ca.pem";',
        'Acquire::Retries "3";',
        'Acquire::Check-Valid-Until "false";',
    )


def test_sources_are_read_from_every_place(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a/ trixie main\n")
    (tmp_path / "sources.list.d/x.list").write_text("b")
    (tmp_path / "sources.list.d/debian.sources").write_text("c")
    (tmp_path / "sources.list.d/x.list.disabled").write_text("d")
    assert host_sources(tmp_path) == ["deb http://a/ trixie main\n", "b", "c"]


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_each_release_brings_its_own_xen(release: debian.Release) -> None:
    assert f"xen-hypervisor-{release.xen}-amd64" in debian.packages(release)


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_each_release_brings_the_device_model_of_hvm_guests(release: debian.Release) -> None:
    assert "qemu-system-xen" in debian.packages(release)


def test_keys_tell_releases_apart_and_are_stable() -> None:
    trixie, bookworm = RELEASES["trixie"], RELEASES["bookworm"]
    assert image_key(trixie) == image_key(trixie)
    assert len({image_key(trixie), image_key(bookworm), tree_key(trixie), tree_key(bookworm)}) == 4
