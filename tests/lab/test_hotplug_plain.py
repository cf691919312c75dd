"""A guest that plain `xl create` started has virtio devices by hotplug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import (
    COMMAND,
    DISK_APPEARS,
    HOT,
    HOT_MIB,
    MIB,
    entry,
    make_image,
    md5_in_dom0,
    traces,
    traces_after,
    until,
    xenvirtio,
)
from xenvirtio.lab.guest import Guest, GuestConfig, tcp
from xenvirtio.lab.guest.guest import CONFIGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend


@pytest.fixture
def image(lab: Lab) -> str:
    return make_image(lab, HOT, HOT_MIB * MIB)


@pytest.fixture(params=["pv", "hvm"])
def plain(request: pytest.FixtureRequest, lab: Lab, backend: Backend) -> Iterator[Guest]:
    """A guest that `xl create` started; xenvirtio does not know of it."""
    assert backend.pid() > 0
    before = traces(lab)
    config = GuestConfig(f"plain-{request.param}", type=request.param)
    path = f"{CONFIGS}/{config.name}.cfg"
    text = re.sub(r"^memory_access.*\n", "", config.text(), flags=re.MULTILINE)
    lab.run(["sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path], stdin=text).check()
    lab.run(["xl", "create", path], timeout=COMMAND).check()
    with Guest(lab, config) as guest:
        guest.wait_ready()
        yield guest
    assert traces_after(lab, before) == before


def test_a_guest_that_xl_started_gets_a_disk_and_a_nic_and_gives_them_back(
    plain: Guest, lab: Lab, image: str, backend: Backend
) -> None:
    before = traces(lab)
    xenvirtio(lab, "attach", plain.name, entry("vda")).check()
    plain.run(DISK_APPEARS, timeout=60)
    plain.run("head -c 4194304 /dev/urandom >/tmp/data", timeout=90)
    plain.run("dd if=/tmp/data of=/dev/vda bs=1M conv=notrunc,fsync", timeout=120)
    wanted = plain.run("md5sum </tmp/data; rm /tmp/data", timeout=90).output.split()[0]
    assert md5_in_dom0(lab, image, 0, 4 * MIB) == wanted
    words = ["model=virtio", "bridge=xenbr0", "mac=00:16:3e:77:00:01"]
    xenvirtio(lab, "attach", str(plain.domid()), *words).check()
    until(plain, "[ -e /sys/class/net/eth0 ]")
    assert plain.sysfs("class/net/eth0/address") == "00:16:3e:77:00:01"
    plain.run("ip address add 10.77.0.2/24 dev eth0; ip link set eth0 up", timeout=60)
    assert plain.run(f"ping -c 3 -W 5 {tcp.DOM0}", timeout=60).output.count("bytes from") == 3
    refused = xenvirtio(lab, "attach", plain.name, entry("vdb"), "--persist")
    assert refused.returncode == 2
    assert "xl's own monitor" in refused.stderr
    for name in ("vda", "eth0"):
        xenvirtio(lab, "detach", plain.name, name).check()
    assert plain.run("ls /sys/block /sys/class/net | grep -E 'vda|eth0'", check=False).status == 1
    assert traces_after(lab, before) == before
    assert not [row for row in backend.devices() if row["guest"] == plain.name]
    assert xenvirtio(lab, "detach", plain.name, "vda").check().stderr.count("nothing to detach") == 1
