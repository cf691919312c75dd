"""Data is right under load: fio writes blocks of many sizes, 32 in flight, and checks each by its CRC."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import MIB

if TYPE_CHECKING:
    from xenvirtio.lab.guest import Guest

SIZE = 256 * MIB


@pytest.mark.timeout(700)
def test_random_writes_of_4k_to_128k_verify(guest: Guest) -> None:
    job = (
        "fio --name=verify --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite "
        f"--bsrange=4k-128k --size={SIZE} --verify=crc32c --verify_fatal=1 --do_verify=1 --thread "
        "--output-format=json --output=/tmp/fio.json"
    )
    guest.run(f"{job} >/tmp/fio.log 2>&1 || {{ s=$?; tail -n 20 /tmp/fio.log; exit $s; }}", timeout=600)
    report = guest.run("cat /tmp/fio.json", timeout=60).output
    result = json.loads(report[report.index("{") :])["jobs"][0]
    assert result["error"] == 0
    assert result["write"]["io_bytes"] >= SIZE
    # the verification reads back all that was written
    assert result["read"]["io_bytes"] >= SIZE
    assert "error" not in guest.run("dmesg | grep -i 'vda\\|virtio' || true").output.lower()
