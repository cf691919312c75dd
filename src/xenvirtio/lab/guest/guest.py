"""A guest in the lab, from the host.

config = GuestConfig("demo", disks=(Disk("/root/demo.img"),), nics=(Nic(),), address="10.77.0.2/24")
with Guest.create(lab, config) as guest:
    print(guest.run("cat /sys/block/vda/size").output)
    guest.shutdown()
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Self

from xenvirtio.errors import LabError, LabLost
from xenvirtio.lab.guest import domains
from xenvirtio.lab.guest.channel import Answer, Channel
from xenvirtio.lab.guest.domains import SHORT
from xenvirtio.lab.guest.lost import start_again

if TYPE_CHECKING:
    from xenvirtio.lab.guest.config import GuestConfig
    from xenvirtio.lab.lab import Lab
    from xenvirtio.lab.results import Completed

#: folder in dom0 for guest.cfg files
CONFIGS = "/run/xenvirtio-lab"
#: seconds for a guest to connect its devices; 8, 12 and 25 on a quiet machine
BOOT_LIMITS = {"pv": 90.0, "pvh": 90.0, "hvm": 150.0}


class Guest:
    """A guest that `xenvirtio create` started; a context manager that destroys it if it is still there."""

    def __init__(self, lab: Lab, config: GuestConfig) -> None:
        """Stands for a guest that runs already; `create` makes one."""
        self.lab, self.config = lab, config
        self._channel: Channel | None = None

    @classmethod
    def create(cls, lab: Lab, config: GuestConfig, timeout: float | None = None) -> Self:
        """Starts a guest and waits until it has connected its devices and answers on its console.

        An HVM guest that the emulator lost is started again. Raises LabError if `xenvirtio create` fails,
        GuestLost, TimeLimit, LabLost.
        """
        return start_again(lab, config, lambda: cls._create(lab, config, timeout or BOOT_LIMITS[config.type]))

    @classmethod
    def _create(cls, lab: Lab, config: GuestConfig, timeout: float) -> Self:
        guest = cls(lab, config)
        started = start(lab, config, timeout)
        if started.returncode:
            said = f"(status {started.returncode}):\n{started.stderr.strip()}"
            raise LabError(f"guest {config.name} was not started {said}")
        try:
            guest.wait_ready()
        except BaseException:
            guest.__exit__()
            raise
        return guest

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def console_text(self) -> str:
        """What the guest printed beside our answers, as far as the console still had it when opened."""
        return self._channel.text if self._channel else ""

    def domid(self) -> int | None:
        """Its domain's number, None when it is gone."""
        return domains.domid(self.lab, self.name)

    def wait_ready(self) -> float:
        """Opens the console, which after a restart is a new one; seconds until the guest answered."""
        self._close_console()
        self._channel = Channel(self.lab, self.name)
        return self._channel.wait_ready()

    def run(self, command: str, timeout: float = 30.0, check: bool = True) -> Answer:
        """Runs a shell command in the guest.

        Raises LabError if it fails (unless `check` is false), GuestGone, TimeLimit, LabLost.
        """
        if self._channel is None:
            self.wait_ready()
        assert self._channel is not None
        answer = self._channel.run(command, timeout)
        return answer.check() if check else answer

    def sysfs(self, path: str) -> str:
        """A file below the guest's /sys, without white space around it."""
        return self.run(f"cat {shlex.quote(f'/sys/{path}')}").output.strip()

    def mount_tools(self) -> None:
        """Makes fio, iperf3 and others available; the guest needs config.TOOLS_DISK."""
        self.run("mount-tools", timeout=60)

    def shutdown(self, timeout: float = 60.0) -> None:
        """Asks the guest to power off and waits until it is gone; raises TimeLimit, LabError."""
        self.lab.run(["xl", "shutdown", self.name], timeout=SHORT).check()
        self.wait_gone(timeout)

    def wait_gone(self, timeout: float = 60.0) -> None:
        """Waits until Xen has the guest no more; raises TimeLimit."""
        domains.wait_gone(self.lab, self.name, timeout)
        self._close_console()

    def wait_restarted(self, before: int | None, timeout: float = 150.0) -> int:
        """Waits until it answers as another domain than `before`; that one's number. Raises TimeLimit."""
        now = domains.wait_restarted(self.lab, self.name, before, timeout)
        self.wait_ready()
        return now

    def destroy(self) -> None:
        """Ends the guest at once, as pulling the plug; raises LabError."""
        self._close_console()
        self.lab.run(["xenvirtio", "destroy", self.name], timeout=SHORT).check()

    def _close_console(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._close_console()
            if self.domid() is not None:
                self.destroy()
        except LabLost:
            return


def start(lab: Lab, config: GuestConfig | str, timeout: float = 90.0, name: str = "guest") -> Completed:
    """Runs `xenvirtio create` on a configuration, or on any text; what it said is the caller's to judge.

    `timeout`, in seconds, is the command's own limit for each of its waits.
    """
    if not isinstance(config, str):
        name = config.name
    path = f"{CONFIGS}/{name}.cfg"
    text = config if isinstance(config, str) else config.text()
    # by stdin, not put(): that wants a file
    lab.run(["sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path], stdin=text).check()
    return lab.run(["xenvirtio", "create", "--timeout", f"{timeout:.0f}", path], timeout=3 * timeout + SHORT)
