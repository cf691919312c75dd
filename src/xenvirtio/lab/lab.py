"""The lab: a real Xen with its dom0, in a virtual machine on this host.

    with Lab("mine") as lab:                 # up, and down at the end
        print(lab.run("xl info").stdout)

A command that fails is a `Completed` with its status; a machine that went away is LabLost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from xenvirtio.errors import LabError, TimeLimit, UsageError
from xenvirtio.lab import (
    commands,
    debian,
    emulator,
    image,
    kernelmodule,
    machine,
    payload,
    prune,
    qemu,
    restore,
    snapshot,
)
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.paths import Cache, lab_command, locked, newest
from xenvirtio.lab.results import Completed, Status
from xenvirtio.lab.session import Session
from xenvirtio.lab.stages import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: seconds for restoring the snapshot; about 2 on a quiet machine
RESTORE_LIMIT = 60.0


class Lab:
    """One named lab. A context manager: `up` on entry, `down` on exit."""

    def __init__(
        self,
        name: str = "default",
        release: str = "trixie",
        *,
        cache: Cache | None = None,
        progress: Progress | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Names a lab; nothing happens yet. Raises UsageError for an unknown release or a bad name."""
        self.name = name
        self.release = debian.release(release)
        self._cache = cache or Cache.of(environment)
        self._progress = progress or Progress()
        self._environment = environment
        self.folder = self._cache.lab(name)

    # --- life ---

    def up(self) -> None:
        """Makes the lab run the present sources: whatever is missing is built, a stale one is restarted.

        Raises LabError, TimeLimit, MissingDependency.
        """
        sources = payload.Sources.find(self._environment)
        base, qemu_here = self._base(sources)
        shape = qemu.Shape()
        # Under emulation both fit on two processors: the boot is mostly one thread of it, the build the
        # other.
        with ThreadPoolExecutor(max_workers=2) as pool:
            building = pool.submit(payload.ensure, self._cache, base, sources, self._progress)
            snap = snapshot.ensure(self._cache, base, qemu_here, shape, self._progress)
            built = building.result()
        with locked(self.folder / "lock", f"lab {self.name!r}", limit=120):
            running = machine.find(self.folder)
            wanted = (base.key, built[0], snap.accelerator, qemu_here.version)
            if running is not None:
                version = machine.qemu_of(self.folder, running)
                if (running.image, running.payload, running.accelerator, version) == wanted:
                    machine.wait_for_agent(self.folder, running, commands.ANSWER_LIMIT)
                    return
                self._progress.note(f"Lab {self.name!r} runs older code: restarting it")
                machine.stop(running)
            with self._progress.stage("Start the lab", RESTORE_LIMIT) as stage:
                restore.start(self.folder, self.name, base, qemu_here, snap, shape, built, stage.limit)

    def down(self) -> bool:
        """Ends the lab's machine; false if it was not running. What was written in it is forgotten."""
        if not self.folder.is_dir():
            return False
        with locked(self.folder / "lock", f"lab {self.name!r}", limit=120):
            running = machine.find(self.folder)
            if running is None:
                return False
            machine.stop(running)
            return True

    def destroy(self) -> bool:
        """Ends the lab and removes its folder; whether it was there. Images and snapshots stay for others."""
        self.down()
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            words = f"lab {self.name!r} cannot be removed: {error.strerror}: {error.filename}"
            raise LabError(words, hint=f"sudo rm -rf {self.folder}") from error
        return True

    def status(self) -> Status:
        """How the lab is."""
        running = machine.find(self.folder)
        answers = False
        if running is not None:
            try:
                Session(self.folder, limit=5).close()
                answers = True
            except (LabError, TimeLimit):
                answers = False
        release = self._release_of(running)
        return Status(
            self.name,
            running is not None,
            answers,
            release,
            running.accelerator if running else None,
            machine.qemu_of(self.folder, running) if running else None,
            self._is_current(running) if running else None,
            self.folder,
            newest(self.folder / "boots"),
        )

    def log(self) -> Path:
        """The newest boot's folder (console.log, qemu.log, command, versions.json); LabError if none."""
        boot = newest(self.folder / "boots")
        if boot is None:
            raise LabError(f"lab {self.name!r} has never been up", hint=lab_command(self.folder, "up"))
        return boot

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def note(self, text: str) -> None:
        """One line for those who watch the lab's progress."""
        self._progress.note(text)

    # --- commands in dom0 ---

    def run(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes | str | None = None,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
        cwd: str = "/root",
        on_output: Callable[[Kind, bytes], None] | None = None,
        stdin_from: int | None = None,
    ) -> Completed:
        """Runs a command in dom0 and waits for its end; a string goes to sh.

        `timeout` is in seconds. `on_output` receives the output as it comes (Kind.STDOUT or Kind.STDERR;
        then the result holds none); `stdin_from` is a descriptor whose bytes go to the command. Raises
        LabLost if the machine went away or stopped answering, TimeLimit if the command took too long (it is
        killed then).
        """
        return commands.run(
            self.folder,
            ("sh", "-c", command) if isinstance(command, str) else tuple(command),
            timeout=timeout,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin or b"",
            environment=environment,
            cwd=cwd,
            on_output=on_output,
            stdin_from=stdin_from,
        )

    def shell(self, command: Sequence[str] = ("bash", "-l")) -> int:
        """Runs an interactive command in dom0 on the terminal that we are on; returns its status."""
        return commands.interactive(self.folder, command)

    def console(self, guest: str) -> int:
        """A guest's console, interactively; Ctrl-] leaves it."""
        return self.shell(("xl", "console", guest))

    def put(
        self, local: Path | IO[bytes], remote: str, *, mode: int | None = None, timeout: float = 120.0
    ) -> None:
        """Copies a file into dom0; the file appears there complete or not at all. Raises LabError."""
        if isinstance(local, Path):
            try:
                opened = local.open("rb")
            except OSError as error:
                raise UsageError(f"{local} cannot be read: {error.strerror}", hint=f"ls -l {local}") from None
            with opened as file:
                self.put(
                    file, remote, mode=local.stat().st_mode & 0o777 if mode is None else mode, timeout=timeout
                )
            return
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1.part" && chmod "$2" "$1.part" && mv "$1.part" "$1"'
        argv = ["sh", "-c", script, "sh", remote, f"{0o644 if mode is None else mode:o}"]
        self.run(argv, stdin_from=local.fileno(), timeout=timeout).check()

    def get(self, remote: str, local: Path, *, timeout: float = 120.0) -> None:
        """Copies a file out of dom0. Raises LabError."""
        part = local.with_name(f".{local.name}.part")
        errors: list[bytes] = []
        try:
            opened = part.open("wb")
        except OSError as error:
            words = f"{local} cannot be written: {error.strerror}"
            raise UsageError(words, hint=f"ls -ld {local.parent}") from None
        try:
            with opened as file:

                def sink(kind: Kind, data: bytes) -> None:
                    if kind == Kind.STDOUT:
                        file.write(data)
                    else:
                        errors.append(data)

                status = self.run(["cat", "--", remote], on_output=sink, timeout=timeout).returncode
            if status != 0:
                said = b"".join(errors).decode(errors="replace").strip()
                raise LabError(f"cannot get {remote} from dom0: {said}")
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    # --- programs for dom0 and guests ---

    def kernel_module(self, sources: Path) -> bytes:
        """A module for the kernel of dom0 and guests, built of a folder with its Kbuild. Raises LabError."""
        base = image.ensure(self._cache, self.release, self._progress)
        return kernelmodule.build(base, sources)

    # --- inner ---

    def _base(self, sources: payload.Sources) -> tuple[image.Image, emulator.Emulator]:
        """The base image and QEMU; both, and Python packages, are downloaded side by side."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            fetching = pool.submit(payload.fetch_wheels, self._cache, self.release, sources, 240.0)
            unpacking = pool.submit(emulator.ensure, self._cache, self.release, self._progress)
            base = image.ensure(self._cache, self.release, self._progress)
            fetching.result()
            return base, unpacking.result()

    def _release_of(self, running: machine.Machine | None) -> str | None:
        if running is None:
            return None
        for release in debian.RELEASES.values():
            if (self._cache.images / f"{release.name}-{running.image}").is_dir():
                return release.name
        return None

    def _is_current(self, running: machine.Machine) -> bool | None:
        release = self._release_of(running)
        if release is None:
            return False
        try:
            sources = payload.Sources.find(self._environment)
        except LabError:
            return None
        base = image.load(self._cache.images / f"{release}-{running.image}")
        return sources.key(base) == running.payload


def all_labs(cache: Cache | None = None) -> list[Lab]:
    """Every lab that has a folder."""
    where = cache or Cache.of(os.environ)
    return [Lab(name, cache=where) for name in where.lab_names()]


def destroy_all(cache: Cache | None = None) -> None:
    """Ends every lab, removes all that was made in the cache folder, and the folder if it is empty then."""
    where = cache or Cache.of(os.environ)
    for lab in all_labs(where):
        lab.destroy()
    for folder in where.folders:
        if folder.is_dir():
            prune.remove_tree(folder)
    with contextlib.suppress(OSError):  # the user may have chosen a folder with other things in it
        where.root.rmdir()
