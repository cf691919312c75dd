"""What is remembered of a running guest, so that a reboot brings its devices back: one JSON file a guest.

    <folder>/<uuid>.json

The folder lies in /run: after a reboot of the host no guest runs, and none is remembered.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit, XenvirtioError
from xenvirtio.toolstack.configuration.bootloader import Bootloader
from xenvirtio.toolstack.configuration.guest import Guest, VirtioDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: seconds that another command may take to write a record
LOCK_LIMIT = 10.0
LOCK_LOOK = 0.02

FOLDER = Path("/run/xenvirtio/guests")


@dataclass(frozen=True)
class Record:
    """A guest that was started, and the domain that it is now."""

    guest: Guest
    domid: int
    limit: float  #: seconds that each wait may take when it is started again


@dataclass(frozen=True)
class Records:
    """The files. Readable by root only: configurations may hold passwords. Writers take turns."""

    folder: Path = FOLDER

    def save(self, record: Record) -> None:
        """Write or replace a guest's record; at any moment there is a whole one."""
        with self._locked():
            self._write(record)

    def update(self, uuid: str, domid: int, change: Callable[[Record], Record]) -> Record | None:
        """Replace a guest's record by what `change` makes of it, with nobody else's change between; the new
        one. None, and nothing is done, if there is none or the guest is another domain by now.

        Raises XenvirtioError if it cannot be read.
        """
        with self._locked():
            record = self.load(uuid)
            if record is None or record.domid != domid:
                return None
            record = change(record)
            self._write(record)
            return record

    def _write(self, record: Record) -> None:
        import tempfile  # heavy, and not every command saves

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
            if (loader := guest["bootloader"]) is not None:
                guest["bootloader"] = Bootloader(**{**loader, "arguments": tuple(loader["arguments"])})
            lists = {key: tuple(value) for key, value in guest.items() if isinstance(value, list)}
            return Record(Guest(**{**guest, **lists}), data["domid"], data["limit"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = f"rm {path}; the guest goes on, but will not be restarted when it reboots"
            raise XenvirtioError(f"the record {path} of a guest cannot be read: {error}", hint) from error

    def find(self, text: str) -> Record | None:
        """The record of the guest with this name, UUID or domain number; None if none can be read."""
        for path in sorted(self.folder.glob("*.json")):
            with suppress(XenvirtioError):
                record = self.load(path.stem)
                if record is None:
                    continue
                if text in (record.guest.name, str(record.domid)) or text.lower() == record.guest.uuid:
                    return record
        return None

    def drop(self, uuid: str) -> Record | None:
        """Remove the record of a guest, whatever domain it is: nobody starts it again. What it was, if it can
        be read."""
        if not self._path(uuid).exists():
            return None
        with self._locked():
            record = None
            with suppress(XenvirtioError):
                record = self.load(uuid)
            self._path(uuid).unlink(missing_ok=True)
            return record

    def forget(self, uuid: str, domid: int) -> None:
        """Remove the record of a guest, unless the guest is another domain by now."""
        with self._locked():
            record = self.load(uuid)
            if record is not None and record.domid == domid:
                self._path(uuid).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the records: what is read is still so when it is replaced.

        Raises TimeLimit, and XenvirtioError for what the file system refuses meanwhile.
        """
        try:
            with self._held():
                yield
        except OSError as error:
            words = f"a guest cannot be remembered in {self.folder}: {error.strerror}"
            raise XenvirtioError(words, f"df {self.folder.parent}") from error

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        end = time.monotonic() + LOCK_LIMIT
        try:
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        hint = f"fuser -v {self.folder}"
                        words = f"somebody has held the records in {self.folder} for {LOCK_LIMIT:.0f} s"
                        raise TimeLimit(words, hint) from None
                    time.sleep(LOCK_LOOK)
            yield
        finally:
            os.close(folder)

    def _path(self, uuid: str) -> Path:
        return self.folder / f"{uuid}.json"
