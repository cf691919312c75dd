"""One cell of the matrix: the shape of an entry in build/matrix.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xenvirtio.errors import XenvirtioError
    from xenvirtio.lab.demo.results import GuestResult


@dataclass(frozen=True)
class Cell:
    """What was shown of one guest type with one memory access on one Xen; `proofs` may hold an error."""

    xen: str
    kernel: str
    guest: str
    access: str
    ok: bool
    proofs: dict[str, Any]

    @classmethod
    def shown(cls, xen: str, result: GuestResult, access: str) -> Cell:
        """From the proofs; the guest must be reached as it was asked to."""
        disk, nic = result.disk, result.nic
        proofs = {
            "transport": result.transport,
            "memory_access": result.memory_access,
            "disk_bytes": {
                "written": disk.bytes_written,
                "right_in_guest": disk.bytes_verified_in_guest,
                "right_in_dom0": disk.bytes_verified_in_dom0,
            },
            "survived_guest_restart": disk.survived_guest_restart,
            "pings": {"sent": nic.ping_sent, "lost": nic.ping_lost},
            "tcp_bytes": nic.tcp_bytes_verified,
            "backend": result.backend,
            "seconds": result.seconds,
        }
        ok = result.ok and result.memory_access == access
        return cls(xen, result.kernel, result.type, access, ok, proofs)

    @classmethod
    def failed(cls, xen: str, kernel: str, guest: str, access: str, error: XenvirtioError) -> Cell:
        """Of a guest that could not be shown."""
        return cls(xen, kernel, guest, access, False, {"error": error.message})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
