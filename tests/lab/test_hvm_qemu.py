"""HVM guests whose own QEMU serves their virtio devices: stock drivers, and nothing of ours in the guest."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import (
    ADDRESS,
    DISK_APPEARS,
    DISK_BYTES,
    MIB,
    GuestMaker,
    create_each,
    make_image,
    md5_in_dom0,
    traces,
    traces_after,
    wait_for_address,
)
from xenvirtio.lab.guest import TOOLS_DISK, Disk, GuestConfig, Nic, start, tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend, Guest

PART = 8 * MIB
QEMU = {"virtio_backend": '"qemu"'}
#: seconds that an HVM guest may take to start under emulation
BOOT = 240.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=["", "pci=nomsi"], ids=["msi", "nomsi"])
def hvm(request: pytest.FixtureRequest, lab: Lab, backend: Backend) -> Iterator[Guest]:
    """A guest with vda, the tools and a NIC, all by its QEMU, once with and once without MSI; the NIC is of
    either name of the model."""
    name = f"q-{request.param.removeprefix('pci=') or 'msi'}"
    model = "virtio-net" if request.param else "virtio"
    before = traces(lab)
    with ExitStack() as stack:
        config = GuestConfig(
            name,
            type="hvm",
            disks=(
                Disk(make_image(lab, f"/root/{name}, of QEMU.img")),
                TOOLS_DISK,
                qcow2(lab, f"/root/{name}.qcow2"),
            ),
            nics=(Nic(mac="00:16:3e:00:00:77", model=model),),
            address=ADDRESS,
            modules=False,
            kernel_options=request.param,
            settings=QEMU,
        )
        made = GuestMaker(lab, backend, stack).create(config)
        made.run(DISK_APPEARS, timeout=60)
        yield made
    assert traces_after(lab, before) == before


def test_the_stock_virtio_pci_driver_has_the_devices(hvm: Guest) -> None:
    for device in ("block/vda", "block/vdb", "class/net/eth0"):
        # PCI device → virtio device → disk or NIC
        assert hvm.run(f"readlink -f /sys/{device}/device/../driver").output.strip().endswith("/virtio-pci")
    assert "virtio_xenbus" not in hvm.run("cat /proc/modules").output
    assert hvm.sysfs("block/vda/serial") == "xenvirtio-vda"
    assert hvm.sysfs("class/net/eth0/address") == "00:16:3e:00:00:77"
    assert (hvm.sysfs("block/vda/ro"), hvm.sysfs("block/vdb/ro")) == ("0", "1")
    assert int(hvm.sysfs("block/vda/size")) * 512 == DISK_BYTES


def test_their_interrupts_are_msi_unless_the_kernel_is_told_not_to(hvm: Guest) -> None:
    vectors = hvm.run(
        "ls $(readlink -f /sys/block/vda/device/..)/msi_irqs 2>/dev/null | wc -l"
    ).output.strip()
    assert (int(vectors) > 0) == ("nomsi" not in hvm.config.kernel_options)
    assert "virtio0" in hvm.run("cat /proc/interrupts").output


def test_nobody_serves_them_beside_qemu(hvm: Guest, lab: Lab, backend: Backend) -> None:
    assert [row for row in backend.devices() if row["guest"] == hvm.name] == []
    command = lab.run(f"xl domid {hvm.name} && pgrep -af 'xen-domid [0-9]+.*xenvirtio-vda'").check().stdout
    assert "file.locking=on" in command
    assert "media=disk" not in command  # no emulated disk of libxl's


def test_the_data_are_the_same_on_both_sides(hvm: Guest, lab: Lab) -> None:
    path = f"'{hvm.config.disks[0].path}'"
    hvm.run(f"head -c {PART} /dev/urandom >/tmp/data", timeout=120)
    wanted = hvm.run("md5sum </tmp/data", timeout=60).output.split()[0]
    hvm.run("dd if=/tmp/data of=/dev/vda bs=1M seek=32 conv=notrunc,fsync; rm /tmp/data", timeout=120)
    assert md5_in_dom0(lab, path, 32 * MIB, PART) == wanted
    lab.run(f"dd if=/dev/urandom of={path} bs=1M seek=96 count=8 conv=notrunc status=none").check()
    read = hvm.run("dd if=/dev/vda bs=1M skip=96 count=8 2>/dev/null | md5sum", timeout=120)
    assert read.output.split()[0] == md5_in_dom0(lab, path, 96 * MIB, PART)


def qcow2(lab: Lab, path: str) -> Disk:
    """A new qcow2 image of 8 MiB, for vdc."""
    lab.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(PART)]).check()
    return Disk(path, "vdc", format="qcow2")


def test_a_qcow2_image_holds_what_the_guest_writes(hvm: Guest, lab: Lab) -> None:
    hvm.run(f"head -c {PART} /dev/urandom >/tmp/data", timeout=120)
    wanted = hvm.run("md5sum </tmp/data", timeout=60).output
    hvm.run("dd if=/tmp/data of=/dev/vdc bs=1M conv=notrunc,fsync; rm /tmp/data", timeout=120)
    path = hvm.config.disks[2].path
    convert = f"qemu-img convert -U -f qcow2 -O raw {path} {path}.raw"  # -U: QEMU has it locked
    assert lab.run(f"{convert} && md5sum <{path}.raw; rm {path}.raw", timeout=120).check().stdout == wanted


def test_pings_and_tcp_go_both_ways(hvm: Guest, lab: Lab) -> None:
    wait_for_address(hvm)
    address = ADDRESS.partition("/")[0]
    assert " 0% packet loss" in hvm.run(f"ping -c 10 -i 0.2 -W 5 {tcp.DOM0}", timeout=120).output
    answer = lab.run(["ping", "-c", "10", "-i", "0.2", "-W", "5", address], timeout=120)
    assert " 0% packet loss" in answer.stdout
    assert tcp.to_guest(hvm, MIB).bytes == MIB
    assert tcp.from_guest(hvm, MIB).bytes == MIB


def test_a_second_writer_of_its_image_is_refused(hvm: Guest, lab: Lab) -> None:
    path = hvm.config.disks[0].path
    refused = lab.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", path])
    assert refused.returncode != 0
    assert 'Failed to get "write" lock' in refused.stdout + refused.stderr
    second = GuestConfig("q-second", disks=(Disk(path),))
    for each in (second, GuestConfig("q-second", type="hvm", disks=(Disk(path),), settings=QEMU)):
        done = start(lab, each)
        assert done.returncode == 2, done
        assert "vda" in done.stderr
        assert "in use" in done.stderr
        assert "try:" in done.stderr


@pytest.mark.parametrize("hvm", [""], ids=["msi"], indirect=True)
def test_a_reboot_brings_its_devices_back(hvm: Guest, lab: Lab) -> None:
    before = hvm.domid()
    assert before is not None
    hvm.run("echo kept | dd of=/dev/vda bs=512 seek=64 conv=notrunc,sync,fsync")
    lab.run(["xl", "reboot", hvm.name]).check()
    hvm.wait_restarted(before, BOOT)
    hvm.run(DISK_APPEARS, timeout=60)
    assert hvm.run("dd if=/dev/vda bs=512 skip=64 count=1 2>/dev/null | head -n 1").output.strip() == "kept"
    assert hvm.sysfs("class/net/eth0/address") == "00:16:3e:00:00:77"


#: type of guest, settings → what is said
MISTAKES = (
    ("pv", QEMU, "a PV guest has no PCI devices of a QEMU"),
    ("pvh", QEMU, "a PVH guest has no PCI devices of a QEMU"),
    ("hvm", {"virtio_backend": '"kvm"'}, "unknown virtio_backend 'kvm'"),
    ("hvm", {**QEMU, "device_model_args_hvm": '"-s"'}, "device_model_args_hvm is a list"),
    ("hvm", {**QEMU, "device_model": '"/usr/lib/xen/bin/qemu-dm"'}, "device_model is of xm"),
    ("hvm", {**QEMU, "disk": '["/root/none.img,,vda"]'}, "there is no image /root/none.img"),
    ("hvm", {**QEMU, "disk": '["/bin/true,qcow2,vda,r"]'}, "is no image of format qcow2"),
    ("hvm", {"disk": '["/bin/true,qcow2,vda,r"]'}, "format qcow2 is not served"),
    ("hvm", {"disk": '["vdev=xvda,specification=virtio,target=/a"]'}, "by IDE as well"),
)


def test_a_mistake_is_refused_with_the_reason(lab: Lab, backend: Backend) -> None:
    assert backend.pid() > 0
    configs = [GuestConfig("q-wrong", type=kind, settings=settings) for kind, settings, _ in MISTAKES]
    for (_, _, words), done in zip(MISTAKES, create_each(lab, configs), strict=True):
        assert done.returncode == 2, done
        assert words in done.stderr
        assert "try:" in done.stderr
        assert "Traceback" not in done.stderr
