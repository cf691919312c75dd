"""The kernel inside a Linux bzImage, and modules.

A PV guest needs the ELF file that a bzImage carries compressed. Unpacked once here, Xen's domain builder need
not unpack it at every start of a guest, which takes seconds in an emulated dom0.

Source: Linux, Documentation/arch/x86/boot.rst (setup_sects, payload_offset, payload_length).
"""

from __future__ import annotations

import gzip
import lzma
import struct
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab.host import answer, program

if TYPE_CHECKING:
    from pathlib import Path

_ELF = b"\x7fELF"
_XZ = b"\xfd7zXZ\0"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: the compressed payload ends with its uncompressed size, u32 little-endian (boot.rst, payload_length)
_SIZE_BYTES = 4


def vmlinux(bzimage: bytes) -> bytes:
    """The ELF file in a bzImage; raises LabError when it is none or compressed in an unknown way."""
    if len(bzimage) < 0x250 or bzimage[0x202:0x206] != b"HdrS":
        raise LabError("the kernel is no bzImage")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    elf = _unpack(bzimage[start : start + length])
    if not elf.startswith(_ELF):
        raise LabError("the kernel's payload is no ELF file")
    return elf


def _unpack(payload: bytes) -> bytes:
    if payload.startswith(_ELF):
        return payload
    if payload.startswith(_XZ):
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(_GZIP):
        return gzip.decompress(payload)
    if payload.startswith(_ZSTD):
        return _zstd(payload[:-_SIZE_BYTES])
    raise LabError(f"the kernel is compressed in a way unknown here (its first bytes: {payload[:4].hex()})")


def _zstd(data: bytes) -> bytes:
    command = [program("zstd"), "-dcq"]
    done = answer(command, 60, data)
    if done.returncode:
        raise LabError(f"zstd could not unpack the kernel: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def module(path: Path) -> bytes:
    """A kernel module as the kernel takes it, of a .ko or .ko.xz."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
