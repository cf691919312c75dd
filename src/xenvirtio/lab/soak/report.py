"""The soak's report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab.soak.messages import Messages
    from xenvirtio.lab.soak.results import GuestResult, SoakResult

MIB = 1 << 20


def report(result: SoakResult) -> str:
    """A short text; everything in it was measured in this run."""
    lines = [
        f"Xen {result.xen}, dom0 Linux {result.dom0_kernel}, QEMU accelerator {result.accelerator}",
        f"{len(result.guests)} guests side by side under load for {result.minutes:g} min",
        *(line for guest in result.guests for line in _guest(guest)),
        *_messages("dom0's kernel", result.dom0_messages),
        *_messages("Xen", result.xen_messages),
        *_growth(result),
        "Everything was checked" if result.ok else "NOT EVERYTHING IS RIGHT: see above",
    ]
    return "\n".join(lines)


def _guest(guest: GuestResult) -> Iterator[str]:
    disk, tcp = guest.disk, guest.tcp
    yield (
        f"{guest.type.upper()} guest {guest.name}, Linux {guest.kernel}, transport {guest.transport}, "
        f"memory access {guest.memory_access}"
    )
    wrote = (
        f"fio, passes: {disk.passes}; wrote {disk.bytes_written / MIB:.0f} MiB in blocks of 512 B to 256 KiB"
    )
    yield f"  {_mark(disk.ok)} {wrote} and verified {disk.bytes_verified / MIB:.0f} MiB"
    if disk.error:
        yield f"      {disk.error}"
    yield f"  {_mark(guest.image_matches)} the image in dom0 is what the guest reads"
    ways = f"{tcp.to_guest / MIB:.0f} MiB to the guest, {tcp.from_guest / MIB:.0f} MiB from it"
    yield f"  {_mark(tcp.ok)} iperf3: {ways} in {tcp.seconds:.0f} s, {tcp.retransmits} segments sent again"
    if tcp.error:
        yield f"      {tcp.error}"
    checked = f"{guest.tcp_checked / MIB:.0f} MiB of random data each way beside it arrived intact"
    yield f"  {_mark(guest.tcp_checked > 0)} {checked}"
    mapped, frames = (
        f"{before} before, {after} after" for before, after in (guest.grants, guest.grant_frames)
    )
    yield f"  {_mark(guest.grants_ok)} grants mapped while idle: {mapped}; pages of its grant table: {frames}"
    yield from _messages("its kernel", guest.messages)


def _messages(who: str, said: Messages) -> Iterator[str]:
    allowed = sum(said.allowed.values())
    count = f"{len(said.unexpected)} warnings of {who}"
    yield f"  {_mark(said.ok)} {count}{f', and {allowed} of the emulator' if allowed else ''}"
    yield from (f"      {text}" for text in said.unexpected[:10])


def _growth(result: SoakResult) -> Iterator[str]:
    for place, found in result.growth.items():
        if found.unknown:
            yield f"  {_mark(False)} whether anything grows in {place} is not known: {found.unknown}"
            continue
        grown = [each for each in found.growth if not each.ok]
        times = len(result.samples[place])
        yield (
            f"  {_mark(found.ok)} {len(found.growth)} figures of {place}, {times} times: "
            f"{len(grown)} have grown over the second half"
        )
        yield from (
            f"      {each.metric}: {each.middle} to {each.end}, by {each.grown}; at most {each.bound}"
            for each in grown
        )
    sizes = [each for found in result.growth.values() for each in found.growth]
    told = [
        f"{each.metric.removesuffix('.rss')} {each.end / MIB:.1f} MiB"
        for each in sizes
        if each.metric.endswith(".rss")
    ]
    yield f"      resident: {', '.join(told) or 'not known'}"


def _mark(good: bool) -> str:
    return "✓" if good else "✗"
