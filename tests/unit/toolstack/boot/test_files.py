"""pygrub in another's place: what it is asked, what it finds, and every way in which it does not."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.errors import MissingDependency, TimeLimit, XenError, XenvirtioError
from xenvirtio.toolstack.boot import files
from xenvirtio.toolstack.boot.files import BootFiles, find_program
from xenvirtio.toolstack.configuration.bootloader import Bootloader
from xenvirtio.toolstack.create import StartOptions, Toolstack, start

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID = "5c0a1d7e-0000-4000-8000-000000000001"
#: what pygrub does when all is well; `options` has its --name=value
WELL = """
import os, sys, json
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
folder = options["output-directory"]
json.dump([sys.argv[1:], os.listdir(folder)], open({log!r}, "w"))
def put(name, text):
    path = folder + "/boot_" + name + ".x"
    open(path, "w").write(text)
    return path
def say(*items):
    sys.stdout.write("".join(item + "\\0" for item in items) + "\\0")
"""
FINDS = 'say("kernel " + put("kernel", "K"), "ramdisk " + put("ramdisk", "R"), "args root=/dev/vda1 ro")'


@contextmanager
def shown(image: str, user: int, name: str) -> Iterator[Path]:
    assert user > 65535
    assert name.startswith("xenvirtio-boot-")
    yield Path(image)


class Rig:
    def __init__(self, folder: Path, does: str = FINDS) -> None:
        self.folder, self.log = folder / "boot", folder / "log.json"
        self.program = folder / "pygrub"
        self.program.write_text(f"#!{sys.executable} -S\n{WELL.format(log=str(self.log))}\n{does}\n")
        self.program.chmod(0o755)
        self.files = BootFiles(self.folder, 20.0, shown, ())
        self.loader = Bootloader(str(self.program), (), "vda", "/images/a.raw")

    def take(self) -> str:
        with self.files.settings(self.loader, UUID) as settings:
            return settings

    @property
    def asked(self) -> list[str]:
        words: list[str] = json.loads(self.log.read_text())[0]
        return words


def test_kernel_ramdisk_and_command_line_become_settings_for_xl(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    here = rig.folder / UUID
    with rig.files.settings(rig.loader, UUID) as settings:
        assert settings.splitlines() == [
            f'kernel = "{here}/boot_kernel.x"',
            f'ramdisk = "{here}/boot_ramdisk.x"',
            'cmdline = "root=/dev/vda1 ro"',
        ]
        assert (here / "boot_kernel.x").read_text() == "K"
        assert here.stat().st_mode & 0o777 == 0o700
    assert list(rig.folder.iterdir()) == []


def test_it_runs_deprivileged_never_asks_and_gets_what_the_configuration_says(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.loader = replace(
        rig.loader, arguments=("--entry=1",), kernel="/vmlinuz", ramdisk="/initrd", command_line="quiet a=b"
    )
    rig.take()
    words = rig.asked
    assert words[-2:] == ["--", "/images/a.raw"]
    assert {"--entry=1", "--kernel=/vmlinuz", "--ramdisk=/initrd", "--args=quiet a=b"} <= set(words)
    users = [word for word in words if word.startswith("--runas=")]
    assert users == [f"--runas={files.FIRST_USER + os.getpid()}"]
    assert words.index("--quiet") > words.index("--entry=1")  # the last word is ours


def test_a_guest_without_a_ramdisk_boots_without_one(tmp_path: Path) -> None:
    settings = Rig(tmp_path, 'say("kernel " + put("kernel", "K"), "args a")').take()
    assert [line.split()[0] for line in settings.splitlines()] == ["kernel", "cmdline"]


def test_a_command_line_with_anything_in_it_is_quoted(tmp_path: Path) -> None:
    does = r"""say("kernel " + put("kernel", "K"), 'args a="b c" d=\\e')"""
    assert Rig(tmp_path, does).take().splitlines()[1] == r'cmdline = "a=\"b c\" d=\\e"'


def test_what_a_killed_process_left_is_gone_before_pygrub_runs(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (rig.folder / UUID / "1879048192-old").mkdir(parents=True)
    (rig.folder / UUID / "boot_kernel.old").write_text("old")
    rig.take()
    assert "boot_kernel.old" not in json.loads(rig.log.read_text())[1]


@pytest.mark.parametrize(
    ("says", "why", "step"),
    [
        (
            "RuntimeError: couldn't find bootloader config file in the image provided.",
            "no /boot/grub/grub.cfg",
            "update-grub",
        ),
        ("Error opening /boot/vmlinuz-1 in guest", "/boot/vmlinuz-1, which its menu names", "--entry"),
        ("OSError: [Errno 95] Operation not supported", "no file system that pygrub", "ext2"),
        ("Error writing temporary copy of ramdisk", "no room", "df "),
        ("IndexError: list index out of range", "It said:", "kernel="),
        ("", "said nothing", "kernel="),
    ],
)
@pytest.mark.parametrize("status", [0, 1])
def test_a_failure_says_why_in_our_words_and_pygrubs_and_what_to_do(
    tmp_path: Path, says: str, why: str, step: str, status: int
) -> None:
    rig = Rig(tmp_path, f"print({says!r}, file=sys.stderr); sys.exit({status})")
    with pytest.raises(XenvirtioError) as caught:
        rig.take()
    message, hint = caught.value.message, str(caught.value.hint)
    assert "vda, /images/a.raw" in message
    assert says in message
    assert why in message
    assert step in hint
    assert "kernel=" in hint
    assert list(rig.folder.iterdir()) == []


def test_words_of_the_guest_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(XenvirtioError) as caught:
        Rig(tmp_path, r'print("Error opening /\x1b[2Jx in guest", file=sys.stderr)').take()
    assert "\x1b" not in caught.value.message + str(caught.value.hint)


@pytest.mark.parametrize(
    "does",
    [
        'say("kernel /etc/passwd")',
        'say("kernel " + folder + "/../../log.json")',
        'say("kernel " + folder + "/nothing")',
        'say("kernel " + put("kernel", ""))',
        'print("kernel")',
    ],
)
def test_only_files_that_it_wrote_are_a_kernel(tmp_path: Path, does: str) -> None:
    with pytest.raises(XenvirtioError, match="no kernel"):
        Rig(tmp_path, does).take()


def test_an_endless_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(XenvirtioError, match="longer than"):
        Rig(tmp_path, 'say("kernel " + put("kernel", "K"), "args " + "a" * 99999)').take()


def test_a_pygrub_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    rig = Rig(
        tmp_path,
        f"os.fork(); open({str(pids)!r}, 'a').write(str(os.getpid()) + ' ')\nimport time; time.sleep(60)",
    )
    rig.files = replace(rig.files, limit=1.5)
    start_time = time.monotonic()
    with pytest.raises(TimeLimit, match="kernel within 2 s"):
        rig.take()
    assert time.monotonic() - start_time < 20
    assert list(rig.folder.iterdir()) == []
    end = time.monotonic() + 20
    while any(_runs(pid) for pid in pids.read_text().split()):
        assert time.monotonic() < end
        time.sleep(0.1)


def _runs(pid: str) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_the_newest_of_the_installed_versions_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("4.9", "4.17", "4.4"):
        program = tmp_path / f"xen-{version}/bin/pygrub"
        program.parent.mkdir(parents=True)
        program.touch()
    monkeypatch.setattr(files, "PLACES", (f"{tmp_path}/none", f"{tmp_path}/xen-*/bin"))
    assert find_program("pygrub") == f"{tmp_path}/xen-4.17/bin/pygrub"


def test_a_missing_pygrub_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PLACES", (f"{tmp_path}/none",))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency) as caught:
        find_program("pygrub")
    assert "apt-get install xen-utils" in str(caught.value.hint)
    with pytest.raises(MissingDependency, match="/usr/bin/pygrub-no"):
        find_program("/usr/bin/pygrub-no")


def toolstack(world: World, rig: Rig) -> Toolstack:
    return replace(world.toolstack, boot_files=rig.files)


def test_a_start_gives_xl_the_kernel_of_this_moment(tmp_path: Path) -> None:
    world, rig = World(tmp_path), Rig(tmp_path)
    guest = world.guest(f"name='g'; disk=['{world.image()},raw,vda,rw']; bootloader='{rig.program}'")
    start(guest, toolstack(world, rig), StartOptions(0.3, paused=True))
    given = (tmp_path / "guest.cfg").read_text()
    assert f'kernel = "{rig.folder}/{guest.uuid}/boot_kernel.x"' in given
    assert list(rig.folder.iterdir()) == []


def test_a_start_without_a_kernel_makes_no_guest(tmp_path: Path) -> None:
    world, rig = World(tmp_path), Rig(tmp_path, "")
    guest = world.guest(f"name='g'; disk=['{world.image()},raw,vda,rw']; bootloader='{rig.program}'")
    with pytest.raises(XenvirtioError, match="no kernel"):
        start(guest, toolstack(world, rig), StartOptions(0.3))
    assert "create" not in world.xl_log
    assert world.nothing_left()


def test_where_xl_refuses_a_guest_without_a_kernel_pygrub_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "trouble").write_text("Neither kernel nor bootloader specified")
    with pytest.raises(XenError, match="Neither kernel") as caught:
        start(world.usual_guest(), world.toolstack, StartOptions(0.3))
    assert 'bootloader = "pygrub"' in str(caught.value.hint)
