"""Who serves a virtio device: xenvirtio over XenBus, or the QEMU that an HVM guest has anyway (virtio-pci).

Said by `backend=` of a disk or NIC; or by `virtio_backend` of the guest; or for the whole machine, in a file:

    /etc/xenvirtio/xenvirtio.toml
        virtio_backend = "qemu"       # or "xenvirtio", the default

The machine's word holds for HVM guests, as PV and PVH guests have no such QEMU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError

if TYPE_CHECKING:
    from xenvirtio.toolstack.configuration.configuration import GuestConfig
    from xenvirtio.toolstack.configuration.grammar import Atom

XENVIRTIO = "xenvirtio"
QEMU = "qemu"
BACKENDS = (XENVIRTIO, QEMU)
CHOICE = f"{XENVIRTIO} or {QEMU}"

MACHINE = Path("/etc/xenvirtio/xenvirtio.toml")
KEY = "virtio_backend"


@dataclass(frozen=True)
class Served:
    """Who serves devices of a guest that do not say it, and whether its QEMU can."""

    default: str = XENVIRTIO
    without_qemu: str | None = "QEMU serves devices only that an HVM guest was started with"  #: None: it can

    def check(self, atom: Atom, at: int) -> None:
        """Raises ConfigError, for the place `at` of an entry, if the guest has no QEMU that could serve."""
        if self.without_qemu is not None:
            hint = f"leave {KEY} and backend= out: xenvirtio serves it over XenBus"
            atom.fail(f"backend={QEMU} is refused: {self.without_qemu}", hint, at=at)


def served(config: GuestConfig, kind: str, machine: str = XENVIRTIO) -> Served:
    """The choice for a guest of type `kind`; `machine` is the machine's word. Raises ConfigError."""
    chosen = config.string(KEY)
    if chosen not in (None, *BACKENDS):
        config.fail(KEY, f"unknown {KEY} '{chosen}'", CHOICE)
    if kind == "hvm":
        return Served(chosen or machine, None)
    why = f"a {kind.upper()} guest has no PCI devices of a QEMU"
    if chosen == QEMU:
        hint = f'leave {KEY} out: xenvirtio serves it over XenBus; or type = "hvm"'
        config.fail(KEY, f'{KEY} = "{QEMU}" is refused: {why}', hint)
    return Served(XENVIRTIO, why)


def machine_backend(path: Path = MACHINE) -> str:
    """The machine's word; xenvirtio where there is no such file. Raises UsageError for a wrong file."""
    import tomllib

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return XENVIRTIO
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # what is no UTF-8 or no TOML
        raise UsageError(f"{path}: {error}", hint=f'{KEY} = "{XENVIRTIO}"') from None
    for key in settings:
        if key != KEY:
            raise UsageError(f"{path}: unknown setting {key!r}", hint=f"known: {KEY}")
    chosen = settings.get(KEY, XENVIRTIO)
    if chosen not in BACKENDS:
        raise UsageError(f"{path}: {KEY} is {chosen!r}", hint=f'{KEY} = "{XENVIRTIO}" or "{QEMU}"')
    assert isinstance(chosen, str)
    return chosen
