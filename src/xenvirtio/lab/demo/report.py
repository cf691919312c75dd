"""The demo's report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab.demo.results import DemoResult, GuestResult

MIB = 1 << 20


def report(result: DemoResult) -> str:
    """A short text; everything in it was measured in this run."""
    lines = [
        f"Xen {result.xen}, dom0 Linux {result.dom0_kernel}, QEMU accelerator {result.accelerator}",
        *(line for guest in result.guests for line in _guest(guest)),
    ]
    seconds = result.seconds
    lines.append(
        f"{'Everything was checked' if result.ok else 'NOT EVERYTHING IS RIGHT: see above'}; "
        f"lab {seconds['setup']:.0f} s, guest's boot {seconds['boot']:.0f} s, all {seconds['total']:.0f} s"
    )
    return "\n".join(lines)


def _guest(guest: GuestResult) -> Iterator[str]:
    disk, nic = guest.disk, guest.nic
    yield f"{guest.type.upper()} guest {guest.name}, Linux {guest.kernel}"
    transport = f"transport {guest.transport}, memory access {guest.memory_access}"
    yield f"  {_mark(guest.transport == 'xenbus')} {transport}"
    yield f"  {_mark(guest.reached_as_it_says)} the daemon's counters agree: {_counters(guest)}"
    yield f"  {_mark(disk.size > 0)} {disk.device}: {disk.size // MIB} MiB"
    for count, where in ((disk.bytes_verified_in_guest, "the guest"), (disk.bytes_verified_in_dom0, "dom0")):
        good = count == disk.bytes_written
        total = disk.bytes_written // MIB
        yield f"    {_mark(good)} {count // MIB} of {total} MiB written are right in {where}"
    yield f"    {_mark(disk.survived_guest_restart)} the data is there after the guest's restart"
    figures = ", ".join(f"{name} {value:.0f}" for name, value in disk.iops.items())
    yield f"      4 KiB requests a second, 32 in flight (emulated): {figures}"
    yield f"  {_mark(bool(nic.address))} {nic.device}: {nic.address}"
    yield f"    {_mark(nic.ping_lost == 0)} {nic.ping_sent} pings, {nic.ping_lost} lost, {nic.ping_ms:.1f} ms"
    for way, words in (("to_guest", "to the guest"), ("from_guest", "from the guest")):
        count, mbit = nic.tcp_bytes_verified[way], nic.tcp_mbit[way]
        arrived = f"{count // MIB} MiB by TCP {words} arrived intact"
        yield f"    {_mark(count > 0)} {arrived}, {mbit:.0f} Mbit/s (emulated)"


def _counters(guest: GuestResult) -> str:
    return "; ".join(
        f"{device} {counters['grants_copied']} grants copied, {counters['frames_mapped']} frames mapped"
        for device, counters in guest.backend.items()
    )


def _mark(good: bool) -> str:
    return "✓" if good else "✗"
