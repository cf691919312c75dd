"""The demo's report for people: a column a guest, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.lab.demo.results import DemoResult, GuestResult

MIB = 1 << 20


def report(result: DemoResult) -> str:
    """A short text; everything in it was measured in this run."""
    emulation = f"QEMU {result.qemu.partition(' ')[0]} ({result.accelerator})"
    lines = [f"Xen {result.xen}, dom0 Linux {result.dom0_kernel}, {emulation}", ""]
    table = [(name, *(cell(guest) for guest in result.guests)) for name, cell in _ROWS]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines += [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    seconds = result.seconds
    verdict = "Everything was checked" if result.ok else "NOT EVERYTHING IS RIGHT: see ✗ above"
    times = f"lab {seconds['setup']:.0f} s, all {seconds['total']:.0f} s"
    lines += ["", f"{verdict}; {times} (emulated: only ratios mean something)"]
    return "\n".join(lines)


def _written(count: int, guest: GuestResult) -> str:
    total = guest.disk.bytes_written
    return _marked(count == total > 0, f"{count // MIB} of {total // MIB} MiB")


def _tcp(guest: GuestResult, way: str) -> str:
    count, mbit = guest.nic.tcp_bytes_verified[way], guest.nic.tcp_mbit[way]
    return _marked(count > 0, f"{count // MIB} MiB, {mbit:.0f} Mbit/s")


def _reached(guest: GuestResult, counter: str) -> str:
    return _marked(guest.reached_as_it_says, ", ".join(f"{each[counter]}" for each in guest.backend.values()))


def _iops(guest: GuestResult) -> str:
    return "  " + ", ".join(f"{value:.0f}" for value in guest.disk.iops.values())


def _pings(guest: GuestResult) -> str:
    nic = guest.nic
    return _marked(nic.ping_lost == 0, f"{nic.ping_lost} of {nic.ping_sent}, {nic.ping_ms:.1f} ms")


def _marked(good: bool, text: str) -> str:
    return f"{'✓' if good else '✗'} {text}"


_ROWS: tuple[tuple[str, Callable[[GuestResult], str]], ...] = (
    ("", lambda guest: f"  {guest.type.upper()} guest"),
    ("Linux", lambda guest: f"  {guest.kernel}"),
    ("up after", lambda guest: f"  {guest.seconds['boot']:.0f} s"),
    ("transport", lambda guest: _marked(guest.transport == "xenbus", guest.transport)),
    ("memory access", lambda guest: _marked(guest.reached_as_it_says, guest.memory_access)),
    ("  grants copied: vda, eth0", lambda guest: _reached(guest, "grants_copied")),
    ("  frames mapped: vda, eth0", lambda guest: _reached(guest, "frames_mapped")),
    ("vda", lambda guest: _marked(guest.disk.size > 0, f"{guest.disk.size // MIB} MiB")),
    ("  written, right in the guest", lambda guest: _written(guest.disk.bytes_verified_in_guest, guest)),
    ("  right in dom0", lambda guest: _written(guest.disk.bytes_verified_in_dom0, guest)),
    (
        "  there after a restart",
        lambda guest: _marked(
            guest.disk.survived_guest_restart, "yes" if guest.disk.survived_guest_restart else "no"
        ),
    ),
    ("  4 KiB reads, writes a second", _iops),
    ("eth0", lambda guest: _marked(bool(guest.nic.address), guest.nic.address)),
    ("  pings lost", _pings),
    ("  TCP to the guest, intact", lambda guest: _tcp(guest, "to_guest")),
    ("  TCP from the guest, intact", lambda guest: _tcp(guest, "from_guest")),
)
