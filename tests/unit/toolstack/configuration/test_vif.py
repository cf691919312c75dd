"""Entries of vif=[…] (xl-network-configuration(5)): which are ours, what they say, what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenvirtio.errors import ConfigError
from xenvirtio.toolstack.configuration.configuration import quote
from xenvirtio.toolstack.configuration.grammar import Atom, Sequence, Source, parse
from xenvirtio.toolstack.configuration.served import Served
from xenvirtio.toolstack.configuration.vif import NicSettings, generated_mac, qemu_nic, server, virtio_nic

MAC = "00:16:3e:01:02:03"


def entry(text: str) -> Atom:
    (setting,) = parse(Source("guest.cfg", f"vif = [{quote(text)}]"))
    assert isinstance(setting.value, Sequence)
    (atom,) = setting.value.items
    assert isinstance(atom, Atom)
    return atom


@pytest.mark.parametrize(
    ("text", "guest_type", "by"),
    [
        ("model=virtio", "pv", "xenvirtio"),
        ("model=virtio", "pvh", "xenvirtio"),
        ("model=virtio", "hvm", "xenvirtio"),
        ("mac=00:16:3e:00:00:01, model=virtio", "pv", "xenvirtio"),
        ("model=virtio-net", "pv", "xenvirtio"),
        ("model=virtio-net", "pvh", "xenvirtio"),
        ("model=virtio-net,backend=xenvirtio", "hvm", "xenvirtio"),
        ("model=virtio-net,type=ioemu", "hvm", None),
        ("model=virtio-net,backend=driver", "hvm", None),
        ("model=e1000", "hvm", None),
        ("model=e1000,backend=qemu", "hvm", None),
        ("bridge=xenbr0", "pv", None),
        ("", "pv", None),
    ],
)
def test_the_model_says_whose_nic_it_is(text: str, guest_type: str, by: str | None) -> None:
    assert server(entry(text), guest_type) == by


@pytest.mark.parametrize(
    ("text", "default", "by"),
    [
        ("model=virtio", "qemu", "qemu"),
        ("model=virtio-net", "qemu", "qemu"),
        ("model=virtio,backend=qemu", "xenvirtio", "qemu"),
        ("model=virtio-net,backend=qemu", "xenvirtio", "qemu"),
        ("model=virtio,backend=xenvirtio", "qemu", "xenvirtio"),
        ("model=e1000", "qemu", None),
        ("", "qemu", None),
    ],
)
def test_the_qemu_of_an_hvm_guest_serves_if_it_is_told_to(text: str, default: str, by: str | None) -> None:
    assert server(entry(text), "hvm", Served(default, None)) == by


@pytest.mark.parametrize("model", ["virtio", "virtio-net"])
def test_what_qemu_serves_is_xls_virtio_net(model: str) -> None:
    text = f"model={model}, bridge=br1 ,backend=qemu,mac=0:16:3E:1:2:3,script=vif-route,vifname=web0"
    nic = qemu_nic(entry(text), "g", 0)
    assert (nic.mac, nic.vifname) == (MAC, "web0")
    assert nic.entry == f"model=virtio-net,type=ioemu,mac={MAC},bridge=br1,script=vif-route,vifname=web0"


def test_a_nic_of_qemu_keeps_its_address_over_restarts_and_changes_of_backend() -> None:
    mac = virtio_nic(entry("model=virtio"), "g", 1).mac
    assert qemu_nic(entry("model=virtio"), "g", 1).entry == f"model=virtio-net,type=ioemu,mac={mac}"


@pytest.mark.parametrize(
    ("text", "at", "words", "hint"),
    [
        ("type=vif", "vif", "type=vif is refused", "leave type= out"),
        ("rate=10Mb/s", "rate", "rate= is refused", "tc(8)"),
        ("memory_access=grant", "grant", "QEMU maps all", "leave memory_access= out"),
        ("mac=00:16:3e:01:02", "00", "is no MAC address", "six bytes"),
        ("vifname=sixteen-letters-", "sixteen", "cannot be the name", "15"),
        ("speed=10", "10", "unknown setting 'speed'", "bridge"),
        ("vlan=7", "7", "vlan= is refused", "bridge of that VLAN"),
    ],
)
def test_what_a_nic_of_qemu_cannot_be_is_refused_by_name(text: str, at: str, words: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        qemu_nic(entry(f"model=virtio,{text}"), "g", 0)
    assert words in caught.value.message
    assert hint in (caught.value.hint or "")
    assert at


def test_a_guest_without_a_qemu_refuses_it_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="a PV guest has no") as caught:
        server(entry("model=virtio,backend=qemu"), "pv", Served(without_qemu="a PV guest has no PCI"))
    assert "XenBus" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"model=virtio,mac={MAC}", NicSettings(0, MAC)),
        ("model=virtio,mac=0:16:3E:1:2:3", NicSettings(0, MAC)),
        (f"mac={MAC} , bridge=br1, model=virtio", NicSettings(0, MAC, bridge="br1")),
        (f"model=virtio,mac={MAC},vifname=web0,mtu=9000", NicSettings(0, MAC, vifname="web0", mtu=9000)),
        (f"model=virtio,mac={MAC},memory_access=foreign", NicSettings(0, MAC, memory_access="foreign")),
    ],
)
def test_what_a_virtio_nic_may_say(text: str, expected: NicSettings) -> None:
    assert virtio_nic(entry(text), "g", 0) == expected


@given(st.text(max_size=20), st.integers(0, 300))
def test_a_generated_address_is_of_xens_range_and_the_same_each_time(guest: str, number: int) -> None:
    mac = generated_mac(guest, number)
    assert re.fullmatch(r"00:16:3e:[0-7][0-9a-f]:[0-9a-f]{2}:[0-9a-f]{2}", mac)
    assert mac == generated_mac(guest, number)
    assert mac != generated_mac(guest, number + 1)


@pytest.mark.parametrize(
    ("text", "at", "words", "hint"),
    [
        ("script=vif-route", "script", "script= is refused: hotplug scripts are not run", "bridge="),
        ("ip=10.0.0.1", "ip", "ip= is refused", "in the guest"),
        ("rate=10Mb/s", "rate", "rate= is refused", "tc(8)"),
        ("backend=driver", "backend", "backend= is refused", "xenvirtio or qemu"),
        ("vlan=1", "vlan", "vlan= is refused", "bridge="),
        ("type=ioemu", "type", "type= is refused", "leave type= out"),
        ("untrusted", "untrusted", "untrusted= is refused", "leave it out"),
        ("colo_filter_mirror_queue=x", "colo", "COLO", None),
        ("speed=10", "speed", "unknown setting 'speed'", "bridge"),
        ("mac=00:16:3e:01:02", "mac", "is no MAC address", "six bytes"),
        ("mac=01:00:5e:00:00:01", "mac", "not the address of one interface", "even"),
        ("mac=0:0:0:0:0:0", "mac", "not the address of one interface", None),
        ("bridge=", "bridge", "cannot be the name", "15"),
        ("bridge=a/b", "bridge", "cannot be the name", "slash"),
        ("vifname=sixteen-letters-", "vifname", "cannot be the name", "15"),
        ("vifname=a%d", "vifname", "cannot be the name", "percent"),
        ("vifname=a\udcff", "vifname", "vifname= is not UTF-8", "rename"),
        ("bridge=a\udcff", "bridge", "bridge= is not UTF-8", "rename"),
        ("mtu=67", "mtu", "mtu=67 is not possible", "68 to 65535"),
        ("mtu=65536", "mtu", "mtu=65536 is not possible", "68 to 65535"),
        ("mtu=jumbo", "mtu", "mtu=jumbo is not possible", "68 to 65535"),
        ("memory_access=magic", "memory_access", "unknown memory_access", "grant or foreign"),
    ],
)
def test_what_a_virtio_nic_cannot_be_is_refused_by_name(
    text: str, at: str, words: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        virtio_nic(entry(f"model=virtio, {text}"), "g", 0)
    error = caught.value
    assert words in error.message
    assert error.exit_status == 2
    assert hint is None or hint in (error.hint or "")
    assert f'vif = ["model=virtio, {text}'[error.column - 1 :].startswith(at)
