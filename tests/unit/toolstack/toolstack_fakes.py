"""An xl that builds nothing, a XenStore in a dictionary, a daemon and a guest that answer at once."""

from __future__ import annotations

import errno
import functools
import json
import os
import stat
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from xenvirtio.errors import XenError
from xenvirtio.toolstack.checks import Host
from xenvirtio.toolstack.configuration.configuration import GuestConfig
from xenvirtio.toolstack.configuration.grammar import Source, parse
from xenvirtio.toolstack.configuration.guest import Guest, guest_from
from xenvirtio.toolstack.create import Toolstack
from xenvirtio.toolstack.records import Records
from xenvirtio.toolstack.xl import Xl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xenvirtio.errors import XenvirtioError
    from xenvirtio.xen.interfaces import View

T = TypeVar("T")

XL = r"""#!{python}
import json, pathlib, re, sys, time
folder = pathlib.Path({folder!r})
file = folder / "domains.json"
domains = json.loads(file.read_text())
command, arguments = sys.argv[1], sys.argv[2:]
with open(folder / "log", "a") as log:
    print(command, *arguments, file=log)
once = folder / ("no-" + command)
if once.exists():
    words = once.read_text()
    once.unlink()
    sys.exit(words)
if command == "create":
    text = pathlib.Path(arguments[0]).read_text()
    (folder / "guest.cfg").write_text(text)
    (folder / "mode").write_text(oct(pathlib.Path(arguments[0]).stat().st_mode & 0o777))
    trouble = folder / "trouble"
    if trouble.exists():
        sys.exit(trouble.read_text())
    slow = folder / "slow"
    if slow.exists():
        time.sleep(float(slow.read_text()))
    last = lambda name: re.findall("^" + name + r"\s*=\s*[\"'](.*)[\"']", text, re.M)[-1]
    number = (folder / "log").read_text().count("create ")
    domains.append(dict(name=last("name"), domid=number, uuid=last("uuid"), flags="--p---", reason=None))
elif command == "list":
    print("Name   ID   Mem VCPUs\tState\tTime(s)   UUID    Reason-Code\tSecurity Label")
    for d in domains:
        reason = "-" if d["reason"] is None else "%x" % d["reason"]
        print("%-40s %5d %5lu %5d     %s  %8.1f %s %8s %16s" % (
            d["name"], d["domid"], 256, 1, d["flags"], 1.5, d["uuid"], reason, "-"))
elif command == "unpause":
    for d in domains:
        if d["domid"] == int(arguments[0]):
            d["flags"] = "-b----"
elif command == "destroy":
    domains = [d for d in domains if d["domid"] != int(arguments[0])]
file.write_text(json.dumps(domains))
"""

DOMAIN_0 = {"name": "Domain-0", "domid": 0, "uuid": "00000000-0000-0000-0000-000000000000", "flags": "r-----"}


class FakeStore:
    """A `Store`; `steps` run one by one, whenever somebody looks for events."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self.modes: dict[str, list[str]] = {}
        self.watches: list[tuple[str, str]] = []
        self.steps: list[Callable[[], None]] = []
        self.after_transaction: Callable[[], None] = lambda: None
        self.calls: list[str] = []
        self._ready = os.eventfd(1)

    def read(self, path: str) -> str | None:
        return self.nodes.get(path)

    def write(self, path: str, value: str) -> None:
        assert not path.endswith("/")
        self.nodes[path] = value

    def names(self, path: str) -> list[str] | None:
        below = [p.removeprefix(path + "/") for p in self.nodes if p.startswith(path + "/")]
        return sorted({name.split("/")[0] for name in below}) if below or path in self.nodes else None

    def mkdir(self, path: str) -> None:
        self.nodes.setdefault(path, "")

    def remove(self, path: str) -> bool:
        gone = [p for p in self.nodes if p == path or p.startswith(path + "/")]
        for node in gone:
            del self.nodes[node]
        return bool(gone)

    def permissions(self, path: str) -> list[str] | None:
        return self.modes.get(path)

    def set_permissions(self, path: str, permissions: Sequence[str]) -> None:
        assert path in self.nodes
        self.modes[path] = list(permissions)

    def transact(self, body: Callable[[View], T], attempts: int = 16) -> T:
        assert attempts
        before = dict(self.nodes)
        try:
            result = body(self)
        except BaseException:
            self.nodes = before
            raise
        self.after_transaction()
        return result

    def watch(self, path: str, token: str) -> None:
        if (path, token) in self.watches:
            raise XenError(f"XenStore: cannot watch {path}: File exists", errno.EEXIST)
        self.watches.append((path, token))

    def unwatch(self, path: str, token: str) -> None:
        self.watches.remove((path, token))

    def events(self, limit: int = 64) -> list[tuple[str, str]]:
        if self.steps:
            self.steps.pop(0)()
        return self.watches[:limit]

    def fileno(self) -> int:
        return self._ready

    def domain_exists(self, domid: int) -> bool:
        return f"/local/domain/{domid}/name" in self.nodes

    def introduce(self, domid: int, frame: int, port: int) -> None:
        self.calls.append(f"introduce {domid} {frame:#x} {port}")

    def forget(self) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._ready)

    def states(self, side: str) -> list[str]:
        """Paths of the states of all backends or frontends."""
        return [path for path in self.nodes if f"/{side}/virtio/" in path and path.endswith("/state")]


class FakeControl:
    """A `DomainControl` that notes what it was asked for."""

    def __init__(self, world: World) -> None:
        self._world, self._ports = world, iter(range(7, 100))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._world.store.calls.append("close")

    def soft_reset(self, domid: int) -> None:
        if self._world.no_reset is not None:
            raise self._world.no_reset
        self._world.store.calls.append(f"reset {domid} {self._world.xl_log[-1]}")
        self._world.ends(None)

    def offer(self, domid: int, remote: int) -> int:
        port = next(self._ports)
        self._world.store.calls.append(f"port {port} of {domid} for {remote}")
        return port

    def parameter(self, domid: int, index: int) -> int:
        return {(1, 1): 0xFEFFC}[domid, index]

    def set_parameter(self, domid: int, index: int, value: int) -> None:
        self._world.store.calls.append(f"parameter {index} of {domid} = {value}")


@dataclass
class World:
    """A host where guests can be started, and what happened on it."""

    folder: Path
    store: FakeStore = field(default_factory=FakeStore)
    said: list[str] = field(default_factory=list)
    user: int = 0
    daemon: bool = True
    at_unpause: Callable[[], object] | None = None
    no_reset: XenvirtioError | None = None

    def __post_init__(self) -> None:
        self.write_domains([{**DOMAIN_0, "reason": None}])
        program = self.folder / "xl"
        program.write_text(XL.format(python=sys.executable + " -S", folder=str(self.folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (self.folder / "net/xenbr0/bridge").mkdir(parents=True)
        (self.folder / "net/eth9").mkdir()
        self.store.after_transaction = self.backend_answers

    @property
    def domains(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / "domains.json").read_text())
        return found

    def write_domains(self, domains: list[dict[str, Any]]) -> None:
        (self.folder / "domains.json").write_text(json.dumps(domains))

    def ends(self, reason: int | None) -> None:
        """The newest guest shuts down; None: it goes on."""
        *others, last = self.domains
        flags = "--p---" if reason is None else "---s--"
        self.write_domains([*others, {**last, "flags": flags, "reason": reason}])

    @property
    def xl_log(self) -> list[str]:
        log = self.folder / "log"
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def toolstack(self) -> Toolstack:
        host = Host(self.folder / "net", lambda: self.user, lambda: self.daemon)
        records = Records(self.folder / "guests")
        xl, control = FakeXl(str(self.folder / "xl"), self), functools.partial(FakeControl, self)
        return Toolstack(xl, self.store, control, host, records, self.said.append)

    def image(self, name: str = "a.img", size: int = 1 << 20) -> Path:
        path = self.folder / name
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def guest(self, text: str) -> Guest:
        return guest_from(GuestConfig("guest.cfg", parse(Source("guest.cfg", text))))

    def usual_guest(self, more: str = "") -> Guest:
        """One disk, one NIC."""
        return self.guest(f"name='g'\ndisk=['file:{self.image()},vda,w']\nvif=['model=virtio']\n{more}")

    def nothing_left(self) -> bool:
        """No guest, node, watch or record."""
        records = self.folder / "guests"
        return (
            [domain["domid"] for domain in self.domains] == [0]
            and not self.store.nodes
            and not self.store.watches
            and not (records.exists() and list(records.iterdir()))
        )

    def backend_answers(self) -> None:
        """As the daemon does: a new device becomes ready; a guest that is gone loses its nodes."""
        running = {str(domain["domid"]) for domain in self.domains}
        for path in self.store.states("backend"):
            if path.split("/")[6] not in running:
                self.store.remove(path.removesuffix("/state"))
            elif self.store.read(path) == "1":
                self.store.write(path, "2")

    def guest_connects(self) -> None:
        for path in [*self.store.states("device"), *self.store.states("backend")]:
            self.store.write(path, "4")


@dataclass(frozen=True)
class FakeXl(Xl):
    """The fake program, and what libxl does to XenStore beside it."""

    world: World

    def unpause(self, domid: int) -> None:
        super().unpause(domid)
        (self.world.at_unpause or self.world.guest_connects)()

    def destroy(self, domid: int) -> None:
        super().destroy(domid)
        self.world.store.remove(f"/local/domain/{domid}")
        self.world.store.after_transaction()
