"""A Debian guest of the lab: boots from its virtio disk, gets its address by DHCP, answers ssh.

    disk = debian_image.ensure(cache, release, sources, progress)
    with Dhcp(lab), DebianGuest.create(lab, disk) as guest:
        print(guest.ssh("systemctl is-system-running").stdout)

Every wait is in dom0, in one command with a limit: asking it again and again from here would cost more.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Self

from xenvirtio.errors import LabError, LabLost, TimeLimit
from xenvirtio.lab.guest import domains
from xenvirtio.lab.guest.domains import SHORT
from xenvirtio.lab.guest.guest import start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenvirtio.lab.guest.debian_image import DebianImage
    from xenvirtio.lab.lab import Lab
    from xenvirtio.lab.results import Completed

MAC = "00:16:3e:77:00:10"
#: seconds
CREATE_LIMIT = 120.0
BOOT_LIMIT = 150.0
SSH_LIMIT = 60.0
_DHCP = "/run/xenvirtio-lab/dhcp"
#: DHCP for the lab's bridge, no DNS; in dom0 only while a test or a user wants it
_START_DHCP = f"""
mkdir -p {_DHCP}
dnsmasq --conf-file=/dev/null --port=0 --interface=xenbr0 --bind-interfaces --except-interface=lo \\
    --dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0,1h --dhcp-authoritative --no-ping \\
    --dhcp-leasefile={_DHCP}/leases --pid-file={_DHCP}/pid --log-facility={_DHCP}/log
"""
_STOP_DHCP = f'[ ! -e {_DHCP}/pid ] || kill "$(cat {_DHCP}/pid)"; rm -rf {_DHCP}'
#: $1: MAC address, $2: seconds
_ADDRESS = f"""
end=$(($(date +%s) + $2))
until grep -i " $1 " {_DHCP}/leases 2>/dev/null; do
    [ "$(date +%s)" -lt "$end" ] || {{ tail -n 5 {_DHCP}/log >&2; exit 1; }}
    sleep 0.5
done
"""
#: $1: seconds; then the ssh command
_ANSWERS = """
end=$(($(date +%s) + $1))
shift
until "$@" true 2>/run/xenvirtio-lab/ssh; do
    [ "$(date +%s)" -lt "$end" ] || { cat /run/xenvirtio-lab/ssh >&2; exit 1; }
    sleep 0.5
done
"""


class Dhcp:
    """A DHCP server on the lab's bridge, as a context."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __enter__(self) -> Self:
        """Raises LabError."""
        self._lab.run(["sh", "-c", _STOP_DHCP]).check()
        self._lab.run(["sh", "-c", _START_DHCP]).check()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._lab.run(["sh", "-c", _STOP_DHCP])
        except LabLost:
            return


class DebianGuest:
    """A running Debian guest; a context that destroys it and removes its disk."""

    def __init__(self, lab: Lab, name: str, key: str) -> None:
        self.lab, self.name, self._key = lab, name, key
        self.address = ""

    @classmethod
    def create(
        cls,
        lab: Lab,
        image: DebianImage,
        name: str = "debian",
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Puts a fresh copy of the disk into dom0, starts the guest and waits until it answers ssh.

        `settings` are further lines of its configuration ({"type": '"pvh"'}). Raises LabError, TimeLimit.
        """
        disk, key = put_disk(lab, image, name), f"/root/{name}.key"
        lab.put(image.ssh_key, key, mode=0o600)
        guest = cls(lab, name, key)
        try:
            guest.forget_lease()
            started = start(lab, config(name, disk, settings or {}), CREATE_LIMIT, name)
            if started.returncode:
                raise LabError(f"guest {name} was not started:\n{started.stderr.strip()}")
            guest.wait_ready()
        except BaseException:
            guest.__exit__()
            raise
        return guest

    def wait_ready(self) -> None:
        """Until it has an address and answers ssh; raises TimeLimit with what the last try said."""
        found = self._within(_ADDRESS, MAC, what="address by DHCP", limit=BOOT_LIMIT)
        self.address = found.split()[2]
        self._within(_ANSWERS, *self._ssh(), first=True, what="answer by ssh", limit=SSH_LIMIT)

    def forget_lease(self) -> None:
        """The next address found is one that was given from now on, not that of an earlier domain."""
        self.lab.run(["sh", "-c", f": >{_DHCP}/leases"]).check()

    def ssh(self, command: str, timeout: float = SSH_LIMIT) -> Completed:
        """Runs a shell command in the guest as root; its status is 255 if ssh failed."""
        return self.lab.run([*self._ssh(), command], timeout=timeout)

    def domid(self) -> int | None:
        """Its domain's number, None when it is gone."""
        return domains.domid(self.lab, self.name)

    def reboot(self) -> tuple[int, int]:
        """`reboot` inside; when it answers again: its domain's number before and now."""
        before = self.domid()
        self._ends("reboot")
        now = domains.wait_restarted(self.lab, self.name, before, BOOT_LIMIT)
        self.forget_lease()
        self.wait_ready()
        assert before is not None
        return before, now

    def power_off(self) -> None:
        """`poweroff` inside; returns when it is gone. Raises TimeLimit."""
        self._ends("poweroff")
        domains.wait_gone(self.lab, self.name, BOOT_LIMIT)

    def _ends(self, command: str) -> None:
        # the connection may end before its answer
        self.ssh(f"nohup sh -c 'sleep 0.2; {command}' >/dev/null 2>&1 &").check()

    def _ssh(self) -> list[str]:
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "LogLevel=ERROR",
        )
        words = ["ssh", "-i", self._key, "-o", "ConnectTimeout=20"]
        for option in options:
            words += ["-o", option]
        return [*words, f"root@{self.address}"]

    def _within(self, script: str, *arguments: str, what: str, limit: float, first: bool = False) -> str:
        """Output of a script in dom0 that waits; its limit is the last argument, or the first."""
        seconds = f"{limit:.0f}"
        words = [seconds, *arguments] if first else [*arguments, seconds]
        done = self.lab.run(["sh", "-c", script, "sh", *words], timeout=limit + SHORT)
        if done.returncode:
            raise TimeLimit(
                f"guest {self.name}: no {what} within {seconds} s: {done.stderr.strip()[-400:]}",
                hint=f"xl console {shlex.quote(self.name)}",
            )
        return done.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.domid() is not None:
                self.lab.run(["xenvirtio", "destroy", self.name], timeout=SHORT).check()
            self.lab.run(["rm", "-f", _disk_path(self.name), self._key])
        except LabLost:
            return


def put_disk(lab: Lab, image: DebianImage, name: str) -> str:
    """A fresh, sparse copy of a Debian disk in dom0, readable by root only; returns its path."""
    path = _disk_path(name)
    lab.put(image.disk, f"{path}.zst")
    script = 'umask 077 && zstd -q -d --sparse -f --rm "$1.zst" -o "$1"'
    lab.run(["sh", "-c", script, "sh", path], timeout=180).check()
    return path


def config(name: str, disk: str, settings: Mapping[str, str]) -> str:
    """The guest.cfg: no kernel, which is on the disk."""
    lines = {
        "name": f'"{name}"',
        "type": '"pv"',
        "memory": "384",
        "vcpus": "1",
        "bootloader": '"pygrub"',
        "disk": f"[ 'format=raw, vdev=vda, access=rw, target={disk}' ]",
        "vif": f"[ 'model=virtio,bridge=xenbr0,mac={MAC}' ]",
        **settings,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def _disk_path(name: str) -> str:
    return f"/root/{name}.raw"
