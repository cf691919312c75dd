"""HVM guests whose own QEMU serves virtio devices: what xl and QEMU get, and what the user is told."""

from __future__ import annotations

import pytest

from tests.unit.toolstack.configuration.test_guest import config, effective
from xenvirtio.errors import ConfigError
from xenvirtio.toolstack.configuration.disk import DiskSettings
from xenvirtio.toolstack.configuration.guest import Guest, guest_from
from xenvirtio.toolstack.configuration.qemu import disk_arguments

HVM = "name='g'; type='hvm'; "
DISK = "disk=['vdev=vda,backend=qemu,target=/a']; "
M = "0:16:3e:0:0:1"
NEVER = "xen_emul_unplug=never"


def guest(text: str, machine: str = "xenvirtio") -> Guest:
    return guest_from(config(HVM + text), machine)


def for_xl(made: Guest, name: str) -> object:
    """What libxlu ends up with for a setting of the configuration that xl gets."""
    return effective(made.xl_config, set()).get(name)


def test_a_disk_is_two_arguments_of_qemu() -> None:
    assert disk_arguments(DiskSettings("vda", "/srv/a.img", backend="qemu")) == (
        "-drive",
        (
            "if=none,id=xenvirtio-vda,format=raw,read-only=off,discard=unmap,file.locking=on,"
            "file.filename=/srv/a.img"
        ),
        "-device",
        "virtio-blk-pci,drive=xenvirtio-vda,id=xenvirtio-vda-pci,serial=xenvirtio-vda",
    )


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (DiskSettings("vda", "/a,b=c,,d"), "file.filename=/a,,b=c,,,,d"),
        (DiskSettings("vda", "/a", writable=False), "read-only=on"),
        (DiskSettings("vda", "/a", discard=False), "discard=ignore"),
        (DiskSettings("vda", "/a", format="qcow2"), "format=qcow2"),
        (DiskSettings("vdaa", "/a"), "id=xenvirtio-vdaa"),
    ],
)
def test_what_a_disk_says_reaches_qemu(disk: DiskSettings, words: str) -> None:
    backing = disk_arguments(disk)[1]
    assert words in backing
    assert "file.locking=on" in backing


def test_xl_gets_the_disks_as_arguments_after_the_users_own() -> None:
    made = guest(
        "device_model_args_hvm=['-m','1']; disk=['/x,,xvdb','vdev=vdb,backend=qemu,target=/b','/c,,vdc']; "
        "device_model_args_hvm+=['-s']; disk+=['vdev=vda,backend=qemu,target=/a']"
    )
    arguments = for_xl(made, "device_model_args_hvm")
    expected = [*disk_arguments(DiskSettings("vda", "/a")), *disk_arguments(DiskSettings("vdb", "/b"))]
    assert arguments == ["-m", "1", "-s", *expected]
    assert for_xl(made, "disk") == ["/x,,xvdb"]
    assert [device.vdev for device in made.devices] == ["vdc"]
    assert made.qemu_disks == {
        "vda": {"path": "/a", "mode": "w", "format": "raw"},
        "vdb": {"path": "/b", "mode": "w", "format": "raw"},
    }


def test_a_guest_without_devices_of_qemu_is_left_alone() -> None:
    text = "uuid='11111111-2222-3333-4444-555555555555'; disk=['/c,,vdc']; kernel='/k'"
    made = guest(text)
    assert for_xl(made, "device_model_args_hvm") is None
    assert NEVER not in made.xl_config
    assert (made.warnings, made.notes, made.qemu_disks) == ((), (), {})


@pytest.mark.parametrize(
    ("text", "machine", "by"),
    [
        ("", "xenvirtio", "xenvirtio"),
        ("", "qemu", "qemu"),
        ("virtio_backend='qemu'", "xenvirtio", "qemu"),
        ("virtio_backend='xenvirtio'", "qemu", "xenvirtio"),
    ],
)
def test_who_serves_is_said_by_the_guest_or_by_the_machine(text: str, machine: str, by: str) -> None:
    made = guest(f"disk=['/a,,vda']; vif=['model=virtio']; {text}", machine)
    assert [device.vdev for device in made.devices] == ([] if by == "qemu" else ["vda", "eth0"])
    assert list(made.qemu_disks) == (["vda"] if by == "qemu" else [])
    vif = for_xl(made, "vif")
    assert vif == (None if by == "xenvirtio" else vif)
    assert by == "xenvirtio" or str(vif).startswith("['model=virtio-net,type=ioemu,mac=00:16:3e:")
    assert for_xl(made, "virtio_backend") is None


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_the_machines_word_does_not_hold_for_guests_without_a_qemu(kind: str) -> None:
    text = f"name='g'; type='{kind}'; disk=['/a,,vda']; vif=['model=virtio','model=virtio-net']"
    made = guest_from(config(text), "qemu")
    assert [device.vdev for device in made.devices] == ["vda", "eth0", "eth1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type='pv'\nvirtio_backend='qemu'", 'virtio_backend = "qemu" is refused: a PV guest has no PCI'),
        ("type='pvh'\nvirtio_backend='qemu'", "a PVH guest has no PCI devices"),
        ("type='pv'\ndisk=['vdev=vda,backend=qemu,target=/a']", "backend=qemu is refused: a PV guest has no"),
        ("type='pvh'\nvif=['model=virtio,backend=qemu']", "backend=qemu is refused: a PVH guest has no"),
        ("type='hvm'\nvirtio_backend='kvm'", "unknown virtio_backend 'kvm'"),
        (f"type='hvm'\n{DISK}\ndisk+=['/a,,vdb,r']", "vdb and vda are the same image"),
        (f"type='hvm'\n{DISK}\ndisk+=['/a,,xvda,r']", "xvda and vda are the same image"),
        (f"type='hvm'\n{DISK}\ndisk+=['/b,,vda,r']", "vda is given twice"),
        (
            f"type='hvm'\n{DISK}\ndevice_model_version='qemu-xen-traditional'",
            "traditional QEMU has no virtio",
        ),
        (f"type='hvm'\n{DISK}\ndevice_model_stubdomain_override=1", "stub domain cannot open images"),
        (f"type='hvm'\n{DISK}\ndevice_model_args_hvm='-s'", "device_model_args_hvm is a list"),
        (f"type='hvm'\nvif=['model=virtio,mac={M}','model=virtio,backend=qemu,mac={M}']", "twice"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guest_from(config(f"name='g'\n{text}"))
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "setting", "line"),
    [
        ("", "extra", f" {NEVER}"),
        ("extra='quiet'", "extra", f"quiet {NEVER}"),
        ("extra='quiet pci=nomsi'", "extra", f"quiet pci=nomsi {NEVER}"),
        ("root='/dev/vda'", "extra", f" {NEVER}"),
        ("cmdline='quiet'; extra='lost'", "cmdline", f"quiet {NEVER}"),
    ],
)
def test_a_kernel_booted_directly_is_told_to_unplug_nothing(text: str, setting: str, line: str) -> None:
    made = guest(f"kernel='/k'; {DISK}{text}")
    assert for_xl(made, setting) == line
    (note,) = made.notes
    assert f"{NEVER} is added" in note
    assert "unplug vda" in note
    assert made.warnings == ()
    assert made.files == ("/k",)


@pytest.mark.parametrize(
    ("option", "lost"),
    [
        ("never", ""),
        ("unnecessary", ""),
        ("aux-ide-disks", ""),
        ("nics", "its virtio NICs"),
        ("ide-disks", "vda"),
        ("all", "vda, its virtio NICs"),
        ("nics,never", ""),
    ],
)
def test_the_users_own_word_about_unplugging_is_kept_and_explained(option: str, lost: str) -> None:
    text = f"kernel='/k'; {DISK}vif=['model=virtio,backend=qemu']; extra='xen_emul_unplug={option}'"
    made = guest(text)
    assert for_xl(made, "extra") == f"xen_emul_unplug={option}"
    assert made.notes == ()
    assert len(made.warnings) == bool(lost)
    assert not lost or f"makes Linux unplug {lost};" in made.warnings[0]


@pytest.mark.parametrize("kernel", ["", "kernel='/usr/lib/xen/boot/hvmloader'; "])
def test_a_guest_with_its_own_boot_loader_is_told_about_in_a_warning(kernel: str) -> None:
    made = guest(f"{kernel}{DISK}vif=['model=virtio-net,backend=qemu']")
    (warning,) = made.warnings
    assert f"unplugs vda, its virtio NICs unless {NEVER}" in warning
    assert "GRUB_CMDLINE_LINUX" in warning
    assert (made.files, made.notes) == ((), ())
    assert NEVER not in made.xl_config


@pytest.mark.parametrize(
    ("disks", "told"),
    [
        ("'vdev=vda,backend=qemu,target=/a','vdev=vdb,backend=qemu,target=/b'", False),
        ("'vdev=vdb,backend=qemu,target=/a'", True),
        ("'vdev=vda,backend=qemu,target=/a','/b,,vdb'", True),
    ],
)
def test_names_that_the_guest_will_not_use_are_warned_about(disks: str, told: bool) -> None:
    made = guest(f"kernel='/k'; disk=[{disks}]")
    assert bool(made.warnings) == told
    assert not told or "/dev/disk/by-id/virtio-xenvirtio-vd" in made.warnings[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("device_model_args_pv=['-drive','file=/a,if=virtio']", "device_model_args_pv is not needed"),
        ("device_model_args=['-drive','file=/a,if=virtio']", "device_model_args is not needed"),
        ("device_model_args=['-name','x']", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_what_the_prototype_needed_is_warned_about(kind: str, text: str, told: str | None) -> None:
    made = guest_from(config(f"name='g'; type='{kind}'; disk=['/a,,vda']; {text}"))
    assert len(made.warnings) == (told is not None)
    assert told is None or told in made.warnings[0]
