"""Entries of disk=[…] (xl-disk-configuration(5)): which are ours, what they say, what is refused and how."""

from __future__ import annotations

import pytest

from xenvirtio.errors import ConfigError
from xenvirtio.toolstack.configuration.configuration import quote
from xenvirtio.toolstack.configuration.disk import DiskSettings, virtio_disk
from xenvirtio.toolstack.configuration.grammar import Atom, Sequence, Source, parse
from xenvirtio.toolstack.configuration.served import Served


def entry(text: str) -> Atom:
    (setting,) = parse(Source("guest.cfg", f"disk = [{quote(text)}]"))
    assert isinstance(setting.value, Sequence)
    (atom,) = setting.value.items
    assert isinstance(atom, Atom)
    return atom


@pytest.mark.parametrize(
    "text",
    [
        "file:/srv/a.img,vda,w",
        "file:/srv/a.img,vda,rw",
        "file:/srv/a.img,vda",
        "phy:/srv/a.img,vda,w",
        "raw:/srv/a.img,vda,w",
        "tap:aio:/srv/a.img,vda,w",
        "/srv/a.img,raw,vda,rw",
        "/srv/a.img,,vda",
        "/srv/a.img,raw,vda:disk,w",
        "format=raw, vdev=vda, access=rw, target=/srv/a.img",
        "vdev=vda,target=/srv/a.img",
        "/srv/a.img,vdev=vda",
        "format=raw,vdev=vda,discard,target=/srv/a.img",
        "vdev=vda,specification=virtio,devtype=disk,direct-io-safe,target=/srv/a.img",
    ],
)
def test_every_way_to_write_a_virtio_disk_says_the_same(text: str) -> None:
    assert virtio_disk(entry(text)) == DiskSettings("vda", "/srv/a.img", writable=True, discard=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file:/a,vdb,r", DiskSettings("vdb", "/a", writable=False)),
        ("/a,,vdb,ro", DiskSettings("vdb", "/a", writable=False)),
        ("vdev=vdc,no-discard,target=/a", DiskSettings("vdc", "/a", discard=False)),
        ("vdev=vda,target=/a,b=c, d", DiskSettings("vda", "/a,b=c, d")),
        ("vdev=vda,memory_access=foreign,target=/a", DiskSettings("vda", "/a", memory_access="foreign")),
        ("vdev=vda,grant_usage=1,target=/a", DiskSettings("vda", "/a", memory_access="grant")),
        ("vdev=vda,grant_usage=0,target=/a", DiskSettings("vda", "/a", memory_access="foreign")),
    ],
)
def test_what_a_virtio_disk_may_say(text: str, expected: DiskSettings) -> None:
    assert virtio_disk(entry(text)) == expected


@pytest.mark.parametrize(("vdev", "number"), [("vda", 0), ("vdz", 25), ("vdaa", 26), ("vdiv", 255)])
def test_disks_are_numbered_by_their_letters(vdev: str, number: int) -> None:
    assert DiskSettings(vdev, "/a").number == number


@pytest.mark.parametrize(
    "text",
    [
        "/dev/vg/guest-volume,,hda",
        "/dev/vg/guest-volume,raw,xvda,rw",
        "format=qcow2, vdev=xvda, access=rw, target=/a.qcow2",
        "raw:/dev/vg/guest-volume,hda,w",
        "/root/image.iso,,hdc,cdrom",
        "/root/image.iso,,hdc,,cdrom",
        "/root/image.iso,raw,hdc,devtype=cdrom",
        "raw:/root/image.iso,hdc:cdrom,ro",
        "backendtype=phy,vdev=xvdb,access=w,target=/dev/vg/guest-volume",
        "devtype=cdrom,,,hdc",
        ",,hdc:cdrom,r",
        ",hdc:cdrom,r",
        ",empty,hdc:cdrom,r",
        "vdev=hdc,access=r,devtype=cdrom,target=",
        "iscsi:iqn.2001-05.com.example:0-8a0906-x,xvda,w",
        "vdev=xvda,access=w,script=block-iscsi,target=iqn.2001-05.com.example:0-8a0906-x",
        "drbd:app01,hda,w",
        "/a,raw,sda1,w",
        "/a,raw,d3p0,w",
        "/a,raw,51712,w",
        "file:/a,ioemu:hda,w",
        "vdev=xvda,specification=xen,target=/a",
        "vdev=xvda,a-key-of-the-future=1,target=/a",
    ],
)
def test_other_disks_stay_with_xl(text: str) -> None:
    assert virtio_disk(entry(text)) is None


@pytest.mark.parametrize(
    ("text", "at", "words", "hint"),
    [
        ("/a,raw,vda1,w", "vda1", "is a partition", "vda"),
        ("/a,raw,vd,w", "vd,", "unknown vdev 'vd'", "vda"),
        ("/a,raw,vdiw,w", "vdiw", "beyond", "vdiv"),
        ("/a,raw,foo,w", "foo", "unknown vdev 'foo'", "vda"),
        ("/a,raw,vdA,w", "vdA", "unknown vdev 'vdA'", "vda"),
        ("/a,raw", "/a", "no vdev", "vda"),
        ("/a,vda,rw", "vda", "the format is missing", "'/a,raw,vda,rw'"),
        ("/a,qcow2,vda,w", "qcow2", "format qcow2 is not served", "qemu-img convert -f qcow2"),
        ("/a,qcow2,vda,w", "qcow2", "format qcow2 is not served", "qemu-nbd"),
        ("qcow2:/a,vda,w", "/a", "format qcow2 is not served", "qemu-nbd"),
        ("format=vhd,vdev=vda,target=/a", "vhd", "format vhd is not served", "convert -f vpc"),
        ("format=qed,vdev=vda,target=/a", "qed", "format qed is not served", "qemu-img"),
        ("format=zip,vdev=vda,target=/a", "zip", "unknown format 'zip'", "raw"),
        ("format=empty,vdev=vda,target=/a", "empty", "cannot be empty", None),
        ("/a,raw,vda,x", "x", "unknown access 'x'", "read-only"),
        ("/a,raw,vda,w,more", "more", "one value too many", "target,format,vdev,access"),
        ("vdev=vda,access=w", "vdev", "no target", "target="),
        ("vdev=vda,target=a.img", "a.img", "not an absolute path", None),
        ("vdev=vda,wish=1,target=/a", "wish", "unknown setting 'wish'", "vdev"),
        ("vdev=vda,vdev=vdb,target=/a", "vdb", "given twice", None),
        ("/a=b,raw,vda", "/a=b", "cannot be told apart", "target="),
        ("vdev=vda,script=block-x,target=/a", "block-x", "block scripts", "name its path"),
        ("vdev=vda,backend=driver,target=/a", "driver", "by this domain only", "xenvirtio or qemu"),
        (
            "vdev=vda,backend=qemu,target=/a",
            "qemu",
            "is refused: QEMU serves devices only",
            "XenBus",
        ),
        ("/a,qcow2,vda,w", "qcow2", "format qcow2 is not served", "backend=qemu"),
        ("vdev=xvda,specification=virtio,target=/a", "virtio", "by IDE as well", "vdev=vda"),
        ("vdev=vda,backendtype=qdisk,target=/a", "qdisk", "xenvirtio is the backend", None),
        ("/a,raw,vda,cdrom", "cdrom", "no CD-ROM", "access=ro"),
        ("vdev=vda,colo,target=/a", "colo", "COLO", None),
        ("vdev=vda,untrusted,target=/a", "untrusted", "module", None),
        ("vdev=vda,specification=xen,target=/a", "xen", "is a virtio disk", None),
        ("vdev=vda,memory_access=magic,target=/a", "magic", "unknown memory_access", "grant or foreign"),
        ("drbd:/a,vda,w", "/a", "drbd: is not served", None),
        ("vdev=vda,target=/a\udcff", "/a", "not UTF-8", "rename"),
    ],
)
def test_what_a_virtio_disk_cannot_be_is_refused_by_name(
    text: str, at: str, words: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        virtio_disk(entry(text))
    error = caught.value
    assert words in error.message
    assert error.exit_status == 2
    assert hint is None or hint in (error.hint or "")
    assert f'disk = ["{text}'[error.column - 1 :].startswith(at)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vdev=vda,backend=qemu,target=/a", DiskSettings("vda", "/a", backend="qemu")),
        ("vdev=vda,target=/a", DiskSettings("vda", "/a", backend="qemu")),
        ("vdev=vda,backend=xenvirtio,target=/a", DiskSettings("vda", "/a")),
        ("/a,qcow2,vdb,ro", DiskSettings("vdb", "/a", writable=False, backend="qemu", format="qcow2")),
        ("qcow2:/a,vda,w", DiskSettings("vda", "/a", backend="qemu", format="qcow2")),
    ],
)
def test_the_qemu_of_an_hvm_guest_serves_raw_and_qcow2(text: str, expected: DiskSettings) -> None:
    assert virtio_disk(entry(text), Served("qemu", None)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vdev=vda,memory_access=grant,target=/a", "memory_access is refused: QEMU maps all"),
        ("vdev=vda,grant_usage=1,target=/a", "grant_usage is refused: QEMU maps all"),
        ("/a,zip,vda,w", "unknown format 'zip'"),
        ("/a,vhd,vda,w", "format vhd is not served: only raw or qcow2 images and block devices"),
        ("/a,empty,vda,w", "cannot be empty"),
        ("vdev=vda,script=block-x,target=/a", "block scripts"),
    ],
)
def test_what_a_disk_of_qemu_cannot_be_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        virtio_disk(entry(text), Served("qemu", None))
