"""The doctor names the package for each missing thing, and says yes only if the lab can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from xenvirtio.cli.doctor import app
from xenvirtio.lab import doctor, host
from xenvirtio.lab.doctor import Finding, examine, install_line
from xenvirtio.lab.paths import Cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, with every program the lab needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in host.PACKAGES:
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(host, "SYSTEM_PATH", "")
    return folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
    return folder


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_machine_with_everything_is_fine(tools: Path, proc: Path, tmp_path: Path) -> None:  # noqa: ARG001
    findings = by_name(examine(Cache(tmp_path / "cache"), proc, tmp_path / "dev"))
    for name in ("mmdebstrap", "mksquashfs", "mke2fs", "python", "memory"):
        assert findings[name].ok, findings[name]
    assert install_line(list(findings.values())) is None


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("mmdebstrap", "mmdebstrap"),
        ("mksquashfs", "squashfs-tools"),
        ("mke2fs", "e2fsprogs"),
    ],
)
def test_a_missing_program_is_named_with_its_package(
    tools: Path, proc: Path, tmp_path: Path, name: str, package: str
) -> None:
    (tools / name).unlink()
    findings = examine(Cache(tmp_path / "cache"), proc, tmp_path / "dev")
    missing = by_name(findings)[name]
    assert not missing.ok
    assert missing.required
    assert missing.hint == f"sudo apt-get install {package}"
    assert str(install_line(findings)).endswith(f" {package}")


def test_several_missing_packages_are_one_command(tools: Path, proc: Path, tmp_path: Path) -> None:
    (tools / "mmdebstrap").unlink()
    (tools / "mksquashfs").unlink()
    line = install_line(examine(Cache(tmp_path / "cache"), proc, tmp_path / "dev"))
    assert line == "sudo apt-get install --no-install-recommends mmdebstrap squashfs-tools"


def test_too_little_memory_is_said(tools: Path, proc: Path, tmp_path: Path) -> None:  # noqa: ARG001
    (proc / "meminfo").write_text("MemAvailable: 500000 kB\n")
    finding = by_name(examine(Cache(tmp_path), proc, tmp_path / "dev"))["memory"]
    assert not finding.ok
    assert "GiB" in str(finding.hint)


def test_too_little_disk_is_said_with_the_way_out(
    tools: Path,  # noqa: ARG001
    proc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1 << 62)
    finding = by_name(examine(Cache(tmp_path / "none/yet"), proc, tmp_path / "dev"))["disk space"]
    assert not finding.ok
    assert "XENVIRTIO_CACHE" in str(finding.hint)


def test_no_kvm_is_worth_a_note_and_no_failure(tools: Path, proc: Path, tmp_path: Path) -> None:  # noqa: ARG001
    finding = by_name(examine(Cache(tmp_path), proc, tmp_path / "dev"))["kvm"]
    assert not finding.ok
    assert not finding.required


def test_a_dom0_is_looked_at_too(tools: Path, proc: Path, tmp_path: Path) -> None:  # noqa: ARG001
    (proc / "xen").mkdir()
    (proc / "xen/capabilities").write_text("control_d\n")
    (tmp_path / "dev/xen").mkdir(parents=True)
    (tmp_path / "dev/xen/evtchn").touch()
    findings = by_name(examine(Cache(tmp_path), proc, tmp_path / "dev"))
    assert findings["xen"].ok
    assert findings["/dev/xen/gntdev"].required
    assert not findings["mmdebstrap"].required
    assert findings["/dev/xen/evtchn"].ok
    assert findings["/dev/xen/gntdev"].hint == "sudo modprobe xen-gntdev"
    assert {"libxenstore.so.4", "libxendevicemodel.so.1", "/dev/xen/xenbus", "xl"} <= findings.keys()


def test_the_exit_status_says_whether_the_lab_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Finding("a", True, "there"), Finding("b", False, "gone", "do this", "pkg")
    optional = Finding("c", False, "gone", required=False)
    monkeypatch.setattr(doctor, "examine", lambda _cache: [good, optional])
    assert CliRunner().invoke(app, []).exit_code == 0
    monkeypatch.setattr(doctor, "examine", lambda _cache: [good, bad])
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert "do this" in result.output
    assert "apt-get install --no-install-recommends pkg" in result.output


def test_another_processor_is_told(
    tools: Path,  # noqa: ARG001
    proc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    finding = by_name(examine(Cache(tmp_path), proc, tmp_path / "dev"))["processor"]
    assert (finding.ok, finding.required, finding.detail) == (False, True, "aarch64")


def test_an_image_that_is_there_still_needs_room_for_a_lab(
    tools: Path,  # noqa: ARG001
    proc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "images/trixie-1").mkdir(parents=True)
    (tmp_path / "images/trixie-1/image.json").touch()
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1 << 62)
    assert by_name(examine(Cache(tmp_path), proc, tmp_path / "dev"))["disk space"].ok
    monkeypatch.setattr(doctor, "DISK_NEEDED_LATER", 1 << 61)
    assert not by_name(examine(Cache(tmp_path), proc, tmp_path / "dev"))["disk space"].ok
