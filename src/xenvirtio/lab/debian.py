"""The Debian that goes into the image: releases, packages, and how this machine reaches the archive.

Mirrors, proxies and certificates are taken from the host's own apt configuration, so that what works for
`apt-get install` here works for the image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from xenvirtio.errors import UsageError

DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY = "http://deb.debian.org/debian-security"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

#: of `apt-config dump`: what concerns reaching the archive, not what this host wants installed
_ACQUIRE = re.compile(
    r"Acquire::(?:(?:https?|ftp|tor)::|Retries\b|Check-Valid-Until\b|Check-Date\b|ForceIPv[46]\b|Languages\b|"
    r"Queue-Mode\b|Max-FutureTime\b)",
    re.IGNORECASE,
)
_DEBIAN = re.compile(r"(bookworm|trixie|bullseye|forky|sid|stable|testing|oldstable)(?:-updates)?")


@dataclass(frozen=True)
class Release:
    """A Debian release that the lab can be made of."""

    name: str
    xen: str  # "4.20", as in the packages' names
    python: str  # "3.13"


RELEASES = {
    "trixie": Release("trixie", xen="4.20", python="3.13"),
    "bookworm": Release("bookworm", xen="4.17", python="3.11"),
}


def release(name: str) -> Release:
    """The release of that name; raises UsageError if the lab does not know it."""
    if name not in RELEASES:
        raise UsageError(f"no release {name!r} for the lab", hint=f"one of: {', '.join(RELEASES)}")
    return RELEASES[name]


def packages(release: Release) -> list[str]:
    """What the image holds: Xen and its tools, a kernel with headers, a toolchain, and what measures."""
    return [
        f"xen-hypervisor-{release.xen}-amd64",
        f"xen-utils-{release.xen}",
        "xenstore-utils",
        # HVM guests' device model, with its SeaBIOS; image formats
        "qemu-system-xen",
        "qemu-utils",
        "linux-image-amd64",
        "linux-headers-amd64",
        # builds xenvirtio and the guest module in the tree
        "gcc",
        "make",
        "libc6-dev",
        "python3-dev",
        "python3-venv",
        # dom0 and guests
        "busybox-static",
        "dnsmasq-base",
        "e2fsprogs",
        "ethtool",
        "fio",
        "iperf3",
        "iproute2",
        "iputils-ping",
        "kmod",
        "openssh-client",
        "procps",
        "xz-utils",
        "zstd",
    ]


@dataclass(frozen=True)
class Archive:
    """How apt reaches Debian: mirrors (URIs) and configuration lines."""

    mirror: str
    security: str | None
    options: tuple[str, ...]

    def sources(self, release: Release) -> str:
        """sources.list of the image, one-line style."""
        signed = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
        lines = [
            f"deb{signed} {self.mirror} {release.name} main",
            f"deb{signed} {self.mirror} {release.name}-updates main",
        ]
        if self.security:
            lines.append(f"deb{signed} {self.security} {release.name}-security main")
        return "".join(f"{line}\n" for line in lines)


def archive_of_host(sources: list[str], configuration: str) -> Archive:
    """From the texts of the host's sources (one-line and deb822 style) and of `apt-config dump`.

    The first mirror of Debian's main archive and the first of its security archive count; where the host
    names none (it is not Debian), Debian's own addresses do.
    """
    mirror = security = None
    for uri, suite in _entries(sources):
        if suite.endswith("-security"):
            security = security or uri
        elif _DEBIAN.fullmatch(suite):
            mirror = mirror or uri
    options = tuple(
        line for line in configuration.splitlines() if _ACQUIRE.match(line) and not line.endswith('"";')
    )
    if mirror is None:
        return Archive(DEFAULT_MIRROR, DEFAULT_SECURITY, options)
    return Archive(mirror, security, options)


def host_sources(apt: Path = Path("/etc/apt")) -> list[str]:
    """The texts of the host's sources files."""
    files = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]
    files += sorted(apt.glob("sources.list.d/*.sources"))
    return [path.read_text(errors="replace") for path in files if path.is_file()]


def _entries(sources: list[str]) -> list[tuple[str, str]]:
    """(URI, suite) of every entry for binary packages with component main."""
    found = []
    for text in sources:
        for line in text.splitlines():
            words = re.sub(r"\[[^]]*\]", "", line.partition("#")[0]).split()
            if len(words) >= 4 and words[0] == "deb" and "main" in words[3:]:
                found.append((words[1], words[2]))
        for stanza in re.split(r"\n\s*\n", text):
            fields = _fields(stanza)
            if "deb" in fields.get("types", []) and "main" in fields.get("components", []):
                if fields.get("enabled", ["yes"])[0].lower() in ("no", "false", "0"):
                    continue
                found += [
                    (uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", [])
                ]
    return found


def _fields(stanza: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace():
            fields.setdefault(name, []).extend(line.split())
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.split()
    return fields
