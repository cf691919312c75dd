"""Guest and Channel on the host, against a lab that is a thread with a script of answers."""

from __future__ import annotations

import binascii
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from xenvirtio.errors import LabError, LabLost, TimeLimit
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.guest import Disk, Guest, GuestConfig, GuestGone, Nic
from xenvirtio.lab.guest.channel import Channel
from xenvirtio.lab.results import Completed

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.lab.lab import Lab


class FakeLab:
    """`run` answers console.py's requests with `answer`, and other commands with `others`."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self.answer = answer
        self.commands: list[list[str]] = []
        self.others: dict[str, Completed] = {}
        self.lost: LabLost | None = None
        self.folder = Path("/cache/labs/default")
        self.first: dict[str, Any] = {"ready": 1.5}

    def run(self, command: list[str], **options: Any) -> Completed:
        self.commands.append(command)
        if "--serve" not in command:
            return self.others.get(command[0], Completed(tuple(command), 0, "3\n", ""))
        output = options["on_output"]
        self._say(output, {"text": "Linux version"})
        self._say(output, self.first)
        with os.fdopen(os.dup(options["stdin_from"])) as requests:
            for line in requests:
                said = self.answer(json.loads(line))
                if self.lost:
                    raise self.lost
                if said is None:
                    output(Kind.STDERR, b"Traceback: it broke\n")
                    return Completed(tuple(command), 1, "", "")
                self._say(output, said)
        return Completed(tuple(command), 0, "", "")

    @staticmethod
    def _say(output: Callable[[Kind, bytes], None], message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        output(Kind.STDOUT, data[:5])  # as pipes do: cut anywhere
        output(Kind.STDOUT, data[5:])


def echo(request: dict[str, Any]) -> dict[str, Any]:
    status = 1 if request["command"] == "false" else 0
    return {"status": status, "output": binascii.b2a_base64(request["command"].encode()).decode()}


def guest_of(lab: FakeLab) -> Guest:
    return Guest(cast("Lab", lab), GuestConfig("one"))


def test_commands_go_to_one_console_and_come_back() -> None:
    lab = FakeLab(echo)
    with guest_of(lab) as guest:
        assert guest.run("first").output == "first"
        assert guest.run("second").output == "second"
        assert guest.console_text == "Linux version\n"
    assert [command for command in lab.commands if "--serve" in command] == [
        ["python3", "-I", "-S", "/opt/xenvirtio/guest/console.py", "--serve", "one"]
    ]


def test_a_failed_command_raises_with_its_output_unless_that_is_not_wanted() -> None:
    with guest_of(FakeLab(echo)) as guest:
        assert guest.run("false", check=False).status == 1
        with pytest.raises(LabError, match="'false' ended with status 1: false"):
            guest.run("false")


@pytest.mark.parametrize(("kind", "error"), [("gone", GuestGone), ("limit", TimeLimit)])
def test_what_the_console_reports_has_its_own_type_and_what_the_guest_said_last(
    kind: str, error: type[LabError]
) -> None:
    with guest_of(FakeLab(lambda _: {"error": "words", "kind": kind})) as guest:
        with pytest.raises(error, match="words") as caught:
            guest.run("true")
        assert "Linux version" in str(caught.value.hint)


def test_a_lost_lab_is_a_lost_lab() -> None:
    lab = FakeLab(echo)
    lab.lost = LabLost("the machine went away")
    with guest_of(lab) as guest, pytest.raises(LabLost):
        guest.run("true")


def test_a_console_that_broke_says_how() -> None:
    with guest_of(FakeLab(lambda _: None)) as guest, pytest.raises(GuestGone, match="it broke"):
        guest.run("true")


def test_no_answer_is_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenvirtio.lab.guest.channel.GRACE", 0.2)
    channel = Channel(cast("Lab", FakeLab(lambda _: {"text": "still booting"})), "one")
    channel.wait_ready()
    with pytest.raises(TimeLimit, match="guest one's answer to 'true'"):
        channel.run("true", 0.1)
    channel.close()


def test_a_guest_that_does_not_start_raises_with_what_create_said() -> None:
    lab = FakeLab(echo)
    lab.others["xenvirtio"] = Completed(("xenvirtio",), 2, "", "error: no image\nhint: make one\n")
    with pytest.raises(LabError, match="no image"):
        Guest.create(cast("Lab", lab), GuestConfig("one"))


def test_a_guest_that_never_answers_is_destroyed() -> None:
    lab = FakeLab(echo)
    lab.first = {"error": "waited in vain", "kind": "limit"}
    with pytest.raises(TimeLimit):
        Guest.create(cast("Lab", lab), GuestConfig("one"))
    assert lab.commands[-1] == ["xenvirtio", "destroy", "one"]


def test_the_configuration_is_what_create_reads() -> None:
    config = GuestConfig(
        "one",
        disks=(Disk("/a.img"), Disk("/b.img", "vdb", writable=False)),
        nics=(Nic(mac="00:16:3e:00:00:01", mtu=1400),),
        address="10.77.0.2/24",
        memory_access="foreign",
        modules=False,
        settings={"on_crash": '"preserve"'},
    )
    text = config.text()
    assert (
        "disk = [ 'format=raw, vdev=vda, access=rw, target=/a.img', "
        "'format=raw, vdev=vdb, access=ro, target=/b.img' ]\n"
    ) in text
    assert "vif = [ 'model=virtio,bridge=xenbr0,mac=00:16:3e:00:00:01,mtu=1400' ]\n" in text
    assert 'memory_access = "foreign"\n' in text
    assert 'on_crash = "preserve"\n' in text
    extra = next(line for line in text.splitlines() if line.startswith("extra"))
    assert " iommu=soft xenvirtio.address=10.77.0.2/24 xenvirtio.modules=0" in extra


def test_a_grant_guest_gets_no_software_iommu() -> None:
    text = GuestConfig("one").text()
    assert "iommu" not in text
    assert not any(line.startswith(("disk", "vif")) for line in text.splitlines())


@pytest.mark.parametrize(("kind", "kernel"), [("pv", "vmlinux"), ("pvh", "vmlinux"), ("hvm", "vmlinuz")])
def test_every_type_starts_from_the_kernel_that_its_loader_takes(kind: str, kernel: str) -> None:
    text = GuestConfig("one", type=kind).text()
    assert f'type = "{kind}"\n' in text
    assert f'kernel = "/opt/xenvirtio/guest/{kernel}"\n' in text
    assert ('vga = "none"\n' in text) == (kind == "hvm")


@pytest.mark.parametrize("kind", ["pvh", "hvm"])
def test_only_pv_guests_need_machine_addresses_for_foreign_access(kind: str) -> None:
    assert "iommu" not in GuestConfig("one", type=kind, memory_access="foreign").text()


def test_after_a_restart_it_answers_on_the_new_domain_s_console() -> None:
    lab = FakeLab(echo)
    lab.others["sh"] = Completed(("sh",), 0, "4\n", "")
    with guest_of(lab) as guest:
        guest.run("true")
        assert guest.wait_restarted(3) == 4
        guest.run("true")
    assert sum("--serve" in command for command in lab.commands) == 2


def test_a_guest_that_does_not_come_back_is_a_time_limit() -> None:
    lab = FakeLab(echo)
    lab.others["sh"] = Completed(("sh",), 1, "", "")
    with guest_of(lab) as guest, pytest.raises(TimeLimit, match="was not started again after 5 s"):
        guest.wait_restarted(3, 5)
