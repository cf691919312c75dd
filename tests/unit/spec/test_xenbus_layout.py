"""The device page is the same in docs/virtio-xenbus.md, spec/xenbus.py and guest/linux/virtio_xenbus.h."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from xenvirtio.spec import xenbus

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "virtio-xenbus.md").read_text()
HEADER = (ROOT / "guest" / "linux" / "virtio_xenbus.h").read_text()

SIZES = {"u8": 1, "__le32": 4, "__le64": 8}

#: field of struct vxb_page → name in the document, where it is not DEV_ or DRV_ and the field's name
NAMES = {
    "device_features": "DEV_FEATURES",
    "driver_features": "DRV_FEATURES",
}


def documented() -> dict[str, tuple[int, int]]:
    """Name → (offset, bytes), from the document's table."""
    rows = re.findall(r"^\| 0x([0-9A-F]{3}) \| (\d+) \| (D\w+) \|", DOCUMENT, re.MULTILINE)
    return {name: (int(offset, 16), int(size)) for offset, size, name in rows}


def declared() -> dict[str, tuple[int, int]]:
    """Name → (offset, bytes), from struct vxb_page, whose fields need no padding."""
    body = re.search(r"struct vxb_page \{\n(.*?)\n\};", HEADER, re.DOTALL)
    assert body is not None
    limits = {"VXB_CONFIG_MAX": xenbus.DEV_CONFIG_MAX, "VXB_DATA_MAX": xenbus.DRV_DATA_MAX}
    offset, found = 0, {}
    for kind, field, length in re.findall(r"(\w+) (\w+)(?:\[([^]]+)\])?;", body[1]):
        for word, value in limits.items():
            length = length.replace(word, str(value))
        terms = re.match(r"(\w+)(?: ([-/]) (\w+))?$", length or "1")
        assert terms is not None, length
        count = int(terms[1], 0)
        if terms[2]:
            other = int(terms[3], 0)
            count = count - other if terms[2] == "-" else count // other
        size = count * SIZES[kind]
        if not field.startswith("reserved"):
            side = "DEV_" if offset < xenbus.DRV_CMD_SEQ else "DRV_"
            found[NAMES.get(field, side + field.upper())] = (offset, size)
        offset += size
    assert offset == xenbus.PAGE_SIZE
    return found


def test_the_document_and_the_kernel_module_have_the_same_page() -> None:
    assert documented() == declared()
    assert len(documented()) == 24


def test_the_document_and_the_constants_have_the_same_offsets() -> None:
    offsets = {name: offset for name, (offset, _) in documented().items()}
    constants = {
        name: value
        for name, value in vars(xenbus).items()
        if name.startswith(("DEV_", "DRV_")) and not name.endswith("_MAX")
    }
    assert offsets == constants
    assert documented()["DEV_CONFIG"][1] == xenbus.DEV_CONFIG_MAX
    assert documented()["DRV_DATA"][1] == xenbus.DRV_DATA_MAX


def test_commands_and_results_have_the_same_numbers_everywhere() -> None:
    for command in xenbus.Command:
        assert f"| {command.value} {command.name} |" in DOCUMENT
        assert re.search(rf"\bVXB_{command.name} = {command.value},", HEADER)
    for result in xenbus.Result:
        assert f"| {result.value} {result.name} |" in DOCUMENT
        assert re.search(rf"\bVXB_{result.name} = {result.value},", HEADER)


def test_limits_are_those_of_the_kernel_module() -> None:
    assert f"#define VXB_QUEUES_MAX\t\t{xenbus.NUM_QUEUES_MAX}\t" in HEADER
    assert f"#define VXB_MAGIC\t\t{xenbus.MAGIC:#x}\t" in HEADER
    assert f"#define VXB_VERSION\t\t{xenbus.VERSION}\n" in HEADER


def test_every_requirement_has_one_number_and_every_reference_one_requirement() -> None:
    defined = Counter(re.findall(r"^\[XB-(\d+)\]", DOCUMENT, re.MULTILINE))
    assert [number for number, times in defined.items() if times > 1] == []
    assert len(defined) > 50
    assert set(re.findall(r"XB-(\d+)", DOCUMENT)) <= set(defined)
