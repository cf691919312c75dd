"""A real tap in a real bridge, in a network namespace of its own; and a NIC's settings."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.net_rig import MAC
from xenvirtio.device.factory import make_device
from xenvirtio.device.net.config import NetConfig
from xenvirtio.device.net.tap import Tap
from xenvirtio.errors import UsageError
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Why a tap cannot be had here."""
    if os.geteuid():
        return "taps and network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is not there (modprobe tun)"
    return None


needs_tap = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def _child(check: Callable[[], None], answer: Connection[str, str]) -> None:
    import ctypes

    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        check()
        answer.send("")
    except BaseException:
        answer.send(traceback.format_exc())


def in_namespace(check: Callable[[], None]) -> None:
    """Run `check` in a child process with a network of its own; at most 30 s."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(check, theirs))
    child.start()
    try:
        assert ours.poll(30), "the child in the namespace did not answer within 30 s"
        assert ours.recv() == ""
    finally:
        child.kill()
        child.join()
        ours.close()
        theirs.close()


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout


def link(name: str) -> str:
    return ip("-d", "link", "show", name)


@needs_tap
def test_a_tap_joins_its_bridge_and_goes_with_its_device() -> None:
    def check() -> None:
        ip("link", "add", "br0", "mtu", "1400", "type", "bridge")
        ip("link", "set", "br0", "up")
        settings = {"mac": "00:16:3e:01:02:03", "bridge": "br0", "vdev": "eth0"}
        with closing(make_device(1, settings, vifname="vif7.0")) as device:
            shown = link("vif7.0")
            assert "master br0" in shown
            assert ",UP" in shown
            assert "mtu 1400" in shown
            assert "fe:ff:ff:ff:ff:ff" in shown
            assert device.config()[10:12] == (1400).to_bytes(2, "little")
        assert "vif7.0" not in ip("link")

    in_namespace(check)


@needs_tap
def test_packets_pass_a_tap_both_ways_with_a_header_of_12_bytes() -> None:
    def check() -> None:
        with (
            closing(Tap(NetConfig(MAC, "", "vif7.0", 1500))) as tap,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as host,
        ):
            host.bind(("vif7.0", 0x88B5))
            host.settimeout(5)
            packet = b"\xff" * 6 + MAC + b"\x88\xb5" + bytes(range(100))
            assert os.write(tap.fd, bytes(spec.HEADER_SIZE) + packet) == spec.HEADER_SIZE + len(packet)
            assert host.recv(2000) == packet
            host.send(packet)
            os.set_blocking(tap.fd, True)
            while True:
                received = os.read(tap.fd, 2000)
                if received[24:26] == b"\x88\xb5":
                    break
            assert received[spec.HEADER_SIZE :] == packet

    in_namespace(check)


@needs_tap
def test_every_subset_of_the_guest_offloads_is_accepted_by_the_tap() -> None:
    def check() -> None:
        bits = [spec.F_GUEST_CSUM, spec.F_GUEST_TSO4, spec.F_GUEST_TSO6, spec.F_GUEST_ECN]
        with closing(Tap(NetConfig(MAC, "", "vif7.0"))) as tap:
            for chosen in range(16):
                tap.set_offloads(sum(bit for k, bit in enumerate(bits) if chosen >> k & 1))

    in_namespace(check)


@needs_tap
def test_a_missing_bridge_names_those_that_exist_and_how_to_make_one() -> None:
    def check() -> None:
        with pytest.raises(UsageError, match="no bridge br9 on this host; there is none at all"):
            Tap(NetConfig(MAC, "br9", "vif7.0"))
        ip("link", "add", "br1", "type", "bridge")
        ip("link", "add", "br0", "type", "bridge")
        with pytest.raises(UsageError, match="no bridge br9 on this host; there are: br0, br1") as error:
            Tap(NetConfig(MAC, "br9", "vif7.0"))
        assert error.value.hint == "make it: ip link add br9 type bridge && ip link set br9 up"
        assert "vif7.0" not in ip("link")

    in_namespace(check)


@needs_tap
def test_what_is_no_bridge_and_a_name_in_use_leave_nothing_behind() -> None:
    def check() -> None:
        with pytest.raises(UsageError, match="cannot be set up in bridge lo"):
            Tap(NetConfig(MAC, "lo", "vif7.0", 1500))
        assert "vif7.0" not in ip("link")
        with (
            closing(Tap(NetConfig(MAC, "", "vif7.0"))),
            pytest.raises(UsageError, match=r"vif7\.0 exists already"),
        ):
            Tap(NetConfig(MAC, "", "vif7.0"))
        with pytest.raises(UsageError, match="MTU of 67 bytes"):
            Tap(NetConfig(MAC, "", "vif7.0", 67))

    in_namespace(check)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "is not a MAC address"),
        ({"mac": "00:16:3e:01:02"}, "is not a MAC address"),
        ({"mac": "00:16:3e:01:02:0g"}, "is not a MAC address"),
        ({"mac": "01:16:3e:01:02:03"}, "not the address of one station"),
        ({"mac": "00:00:00:00:00:00"}, "not the address of one station"),
        ({"vifname": "a-name-that-is-too-long"}, "vifname 'a-name-that-is-too-long' is not a name"),
        ({"vifname": "a/b"}, "is not a name"),
        ({"vifname": "vif%d"}, "is not a name"),
        ({"vifname": ".."}, "is not a name"),
        ({"bridge": "x y"}, "bridge 'x y' is not a name"),
        ({"mtu": "67"}, "mtu is '67'"),
        ({"mtu": "65536"}, "mtu is '65536'"),
        ({"mtu": "1500 "}, "mtu is"),
        ({"mtu": "-1"}, "mtu is"),
    ],
)
def test_settings_are_checked(settings: dict[str, str], words: str) -> None:
    good = {"mac": "00:16:3e:01:02:03"} if settings and "mac" not in settings else {}
    with pytest.raises(UsageError, match=words) as error:
        make_device(1, {**good, **settings}, "eth0", "vif7.0")
    assert error.value.hint


def test_a_name_from_the_settings_goes_before_the_made_one() -> None:
    settings = {"mac": "00:16:3E:01:02:03", "vifname": "web", "bridge": "br0", "mtu": "9000"}
    assert NetConfig.from_settings(settings, "eth0", "vif7.0") == NetConfig(MAC, "br0", "web", 9000)
    settings = {"mac": "00:16:3e:01:02:03", "bridge": "br0"}
    assert NetConfig.from_settings(settings, "eth0", "vif7.0") == NetConfig(MAC, "br0", "vif7.0", 0)
