"""Which messages of kernels and Xen make a soak fail."""

from __future__ import annotations

import re

from xenvirtio.lab.soak.messages import ALLOWED, kernel_messages, xen_messages


def test_warnings_count_and_information_does_not() -> None:
    said = kernel_messages(
        "<6>[   10.1] virtio_blk virtio0: [vda] 131072 512-byte logical blocks\n"
        "<4>[   11.5] virtio_net virtio1: something odd\n"
        "<30>[   12.0] systemd[1]: started\n"
        "<3>[   13.0] blk_update_request: I/O error, dev vda\n"
    )
    assert said.unexpected == ("virtio_net virtio1: something odd", "blk_update_request: I/O error, dev vda")


def test_a_report_counts_at_any_level() -> None:
    said = kernel_messages(
        "<6>[ 1.0] task fio:17 blocked for more than 120 seconds.\n<6>[ 1.1] Call Trace:\n"
    )
    assert len(said.unexpected) == 2


def test_clock_messages_of_the_emulator_are_allowed_and_counted() -> None:
    said = kernel_messages("<4>[ 5.0] clocksource: timekeeping watchdog on CPU0: Marking clocksource\n")
    assert said.ok
    assert list(said.allowed.values()) == [1]


def test_every_line_of_xen_counts_and_no_line_of_dom0() -> None:
    said = xen_messages("(XEN) d3v0 Triple fault\n[   20.0] clocksource: dom0's own\n(XEN)\n")
    assert said.unexpected == ("d3v0 Triple fault",)


def test_each_allowed_message_has_its_reason() -> None:
    for each in ALLOWED:
        assert each.where in ("linux", "xen")
        assert len(each.reason) > 20
        assert not re.fullmatch(each.pattern, "")
        assert not re.fullmatch(each.pattern, "WARNING: CPU: 0 PID: 1 at drivers/virtio/virtio_ring.c:1")
