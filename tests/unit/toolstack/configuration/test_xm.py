"""What xm took and xl ignores or refuses without a reason is refused by name, in its place."""

from __future__ import annotations

import pytest

from tests.unit.toolstack.configuration.test_guest import guest
from xenvirtio.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("device_model='/usr/lib/xen/bin/qemu-dm'", "device_model is of xm", "device_model_override"),
        ("vif2=['']", "vif2 is of xm: netchannel2", "vif ="),
        ("vscsi=['/dev/sdb,0:0:0:0']", "vscsi is of xm", "phy:"),
        ("cdrom='/dev/cdrom'", "cdrom is of xm: xl ignores it", "cdrom"),
        ("dhcp='dhcp'", "dhcp is of xm", "ip=dhcp"),
        ("netmask='255.0.0.0'", "netmask is of xm", "ip="),
        ("nfs_server='10.0.0.1'", "nfs_server is of xm", "nfsroot"),
        ("device_model_args='-s'", "device_model_args is a list", "['-s']"),
        ("vfb=['type=vnc,vncdisplay=1']", "'type' in vfb is of xm", "vnc=1"),
        ("disk=[['file:/a','hda','w',0]]", "an entry of disk is a string, not a list", None),
    ],
)
def test_a_setting_of_xm_is_refused_with_the_reason(text: str, words: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        guest(f"name='g'\n{text}")
    assert words in caught.value.message
    assert caught.value.line == 2
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "import os, re",
        "from os import uname",
        "def vif():",
        "if os.uname()[4] == 'x86_64':",
        "for name in names:",
        "print 'hello'",
    ],
)
def test_python_is_named_as_such(text: str) -> None:
    with pytest.raises(ConfigError, match="this is Python") as caught:
        guest(f"name='g'\n{text}\n")
    assert caught.value.line == 2
    assert "xm" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["kernel = '/boot/' + 'vmlinuz'", "memory = int('512')", "nics = -1"])
def test_expressions_of_python_are_explained(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guest(f"name='g'\n{text}\n")
    assert caught.value.hint


def test_what_xl_takes_is_left_to_it() -> None:
    text = "vfb=['vnc=1,vncdisplay=1,keymap=de','sdl=1']; vif=['type=ioemu,model=e1000,bridge=b']; acpi=1"
    assert text.partition(";")[0] in guest(f"name='g'; type='hvm'; {text}").xl_config
