"""What the load's programs report, and Xen's own count of grants."""

from __future__ import annotations

import itertools

import pytest

from xenvirtio.errors import UsageError
from xenvirtio.lab.soak import Plan
from xenvirtio.lab.soak.grants import Grants, parse
from xenvirtio.lab.soak.load import IMAGE_BYTES, JOB_BYTES, JOBS, jobs, parse_iperf, parse_passes
from xenvirtio.lab.soak.samples import parse as parse_sample


def test_passes_that_verified_all_that_they_wrote() -> None:
    load = parse_passes(" 1000 1000 0\n 2000 2000 0\n--\n")
    assert (load.passes, load.bytes_written, load.bytes_verified, load.ok) == (2, 3000, 3000, True)


def test_a_pass_that_failed_says_why() -> None:
    load = parse_passes(" 1000 1000 0\n 10 2000 0\n--\nverify: bad header\nstatus 1\n")
    assert load.error == "verify: bad header\nstatus 1"
    assert not load.ok


def test_bytes_written_and_not_verified_are_not_ok() -> None:
    assert not parse_passes("900 1000 0\n--\n").ok
    assert not parse_passes("--\n").ok


def test_each_job_has_a_part_of_the_disk_of_its_own() -> None:
    words = jobs().split()
    offsets = [int(word.partition("=")[2]) for word in words if word.startswith("--offset=")]
    assert len(offsets) == len(JOBS) == 4
    assert all(after - before >= JOB_BYTES for before, after in itertools.pairwise(offsets))
    assert offsets[-1] + JOB_BYTES <= IMAGE_BYTES


def test_iperf_both_ways() -> None:
    end = {
        "sum_sent": {"bytes": 12, "retransmits": 3},
        "sum_received": {"bytes": 10, "seconds": 4.04},
        "sum_sent_bidir_reverse": {"bytes": 25, "retransmits": 1},
        "sum_received_bidir_reverse": {"bytes": 20},
    }
    load = parse_iperf({"end": end})
    assert (load.from_guest, load.to_guest, load.retransmits, load.seconds, load.ok) == (10, 20, 4, 4.0, True)
    assert not parse_iperf({"error": "unable to connect", "end": {}}).ok
    with pytest.raises(KeyError):
        parse_iperf({"start": {}})


def test_grants_as_xen_counts_them() -> None:
    text = """
(XEN) gnttab_usage_print_all [ key 'g' pressed
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d0 (v1)
(XEN)   1 frames (64 max), 2 maptrack frames (1024 max)
(XEN) no active grant table entries
(XEN) grant-table for remote d3 (v1)
(XEN)   4 frames (64 max), 0 maptrack frames (1024 max)
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) [0x000]      0 0x1234ab 0x00000001          0 0x0ff000 0x19
(XEN) [0x001]      0 0x1234ac 0x00000001          0 0x0fefff 0x19
(XEN) gnttab_usage_print_all ] done
"""
    assert parse(text) == {0: Grants(0, 1, 2), 3: Grants(2, 4, 0)}


def test_a_sample_is_names_and_numbers_and_one_that_was_cut_off_is_left_out() -> None:
    text = "available 4096\nslab 8192\n--\navailable 4097\nslab 8193\n--\navail"
    assert parse_sample(text, "web.") == [
        {"web.available": 4096, "web.slab": 8192},
        {"web.available": 4097, "web.slab": 8193},
    ]


def test_each_type_in_each_mode() -> None:
    plan = Plan.of(2, "pv, hvm", "grant,foreign")
    assert plan.guests == (("pv", "grant"), ("pv", "foreign"), ("hvm", "grant"), ("hvm", "foreign"))
    assert plan.seconds == 120
    with pytest.raises(UsageError, match="'kvm'"):
        Plan.of(2, "kvm", "grant")
    with pytest.raises(UsageError, match="'all'"):
        Plan.of(2, "pv", "all")
