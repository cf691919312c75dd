"""QEMU's command line and what a snapshot's key depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xenvirtio.lab import qemu
from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.image import Image
from xenvirtio.lab.snapshot import snapshot_key

SHAPE = qemu.Shape(memory_mib=4096, dom0_mib=1536, cpus=2)
IMAGE = Image(Path("/images/x"), "k1", "trixie", "4.20", "6.12.1-amd64", "/trees/x", "made1")


def command(restore: bool = False, accelerator: str = "tcg") -> list[str]:
    return qemu.arguments("mine", accelerator, SHAPE, "boots/1", restore)


def after(argv: list[str], option: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == option]


def test_restoring_differs_from_booting_by_loadvm_only() -> None:
    assert command(restore=True) == [*command(), "-loadvm", qemu.SNAPSHOT]


def test_emulation_hides_what_a_pv_dom0_does_not_survive() -> None:
    (cpu,) = after(command(), "-cpu")
    assert "+svm" in cpu
    assert {"-smap", "-monitor", "-rdtscp"} <= set(cpu.split(","))


def test_emulation_never_asks_for_kvm() -> None:
    assert not [word for word in command() if "kvm" in word]
    assert after(command(accelerator="kvm"), "-accel") == ["kvm"]


def test_every_port_has_a_socket_and_the_name_that_the_agent_looks_for() -> None:
    devices = [word for word in after(command(), "-device") if word.startswith("virtserialport")]
    names = [dict(part.split("=") for part in word.split(",")[1:])["name"] for word in devices]
    assert names == [protocol.PORT_NAME.format(number) for number in range(protocol.PORTS)]
    assert len(qemu.sockets()) == protocol.PORTS + 1


def test_the_payload_cannot_be_written_by_dom0() -> None:
    drives = [word for word in after(command(), "-drive") if qemu.PAYLOAD in word]
    assert len(drives) == 1
    assert "read-only=on" in drives[0]


def test_all_files_are_relative_so_that_any_cache_folder_will_do() -> None:
    assert not [word for word in command(restore=True) if "/" in word.replace("boots/1/", "")]


def test_commas_in_dom0s_arguments_do_not_split_the_module_list() -> None:
    (initrd,) = after(command(), "-initrd")
    assert initrd.replace(",,", "").count(",") == 1
    assert initrd.endswith(f",{qemu.INITRD}")


def test_memory_of_dom0_is_bounded_both_ways() -> None:
    (xen,) = after(command(), "-append")
    assert "dom0_mem=1536M,max:1536M" in xen


def test_dom0_leaves_a_processor_to_the_guests() -> None:
    (xen,) = after(command(), "-append")
    assert "dom0_max_vcpus=1" in xen.split()


def test_the_key_changes_with_everything_that_a_snapshot_depends_on() -> None:
    base = snapshot_key(IMAGE, "tcg", SHAPE, "7.2.22")
    assert base == snapshot_key(IMAGE, "tcg", SHAPE, "7.2.22")
    others = {
        snapshot_key(replace(IMAGE, key="k2"), "tcg", SHAPE, "7.2.22"),
        snapshot_key(replace(IMAGE, made="made2"), "tcg", SHAPE, "7.2.22"),
        snapshot_key(IMAGE, "kvm", SHAPE, "7.2.22"),
        snapshot_key(IMAGE, "tcg", replace(SHAPE, cpus=1), "7.2.22"),
        snapshot_key(IMAGE, "tcg", replace(SHAPE, memory_mib=6144), "7.2.22"),
        snapshot_key(IMAGE, "tcg", SHAPE, "10.0.2"),
    }
    assert base not in others
    assert len(others) == 6
