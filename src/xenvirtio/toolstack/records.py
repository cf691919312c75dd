"""What is remembered of a running guest, so that a reboot brings its devices back: one JSON file a guest.

    <folder>/<uuid>.json

The folder lies in /run: after a reboot of the host no guest runs, and none is remembered.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from xenvirtio.errors import XenvirtioError
from xenvirtio.toolstack.guest import Guest, VirtioDevice

FOLDER = Path("/run/xenvirtio/guests")


@dataclass(frozen=True)
class Record:
    """A guest that was started, and the domain that it is now."""

    guest: Guest
    domid: int
    limit: float  #: seconds that each wait may take when it is started again


@dataclass(frozen=True)
class Records:
    """The files. Readable by root only: configurations may hold passwords."""

    folder: Path = FOLDER

    def save(self, record: Record) -> None:
        """Write or replace a guest's record; at any moment there is a whole one."""
        import tempfile  # heavy, and not every command saves

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(record), file)
            os.replace(name, self._path(record.guest.uuid))
        except BaseException:
            os.unlink(name)
            raise

    def load(self, uuid: str) -> Record | None:
        """The record of a guest; None if there is none.

        Raises XenvirtioError if it cannot be read.
        """
        path = self._path(uuid)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            guest = data["guest"]
            guest["devices"] = tuple(VirtioDevice(**device) for device in guest["devices"])
            for key in ("files", "warnings"):
                guest[key] = tuple(guest[key])
            return Record(Guest(**guest), data["domid"], data["limit"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = f"rm {path}; the guest goes on, but will not be restarted when it reboots"
            raise XenvirtioError(f"the record {path} of a guest cannot be read: {error}", hint) from error

    def forget(self, uuid: str, domid: int) -> None:
        """Remove the record of a guest, unless the guest is another domain by now."""
        record = self.load(uuid)
        if record is not None and record.domid == domid:
            self._path(uuid).unlink(missing_ok=True)

    def _path(self, uuid: str) -> Path:
        return self.folder / f"{uuid}.json"
