"""Starting a guest: all is checked first, its devices are there before it runs, a failure leaves nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolstack.toolstack_fakes import World
from xenvirtio.errors import TimeLimit, XenError, XenvirtioError
from xenvirtio.toolstack import connect, create, xl
from xenvirtio.toolstack.create import StartOptions, start

if TYPE_CHECKING:
    from pathlib import Path

QUICK = StartOptions(limit=0.3)
B = "/local/domain/0/backend/virtio/1"
F = "/local/domain/1/device/virtio"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_guest_runs_with_its_devices_plugged_before_it_is_unpaused(world: World) -> None:
    seen: list[list[str]] = []

    def at_unpause() -> None:
        seen.append(world.store.states("backend"))
        world.guest_connects()

    world.at_unpause = at_unpause
    started = start(world.usual_guest(), world.toolstack, QUICK)
    assert started.domain.domid == 1
    assert seen == [[f"{B}/0/state", f"{B}/256/state"]]
    assert [command for command in world.xl_log if command != "list"] == ["create", "unpause"]
    assert world.domains[1]["flags"] == "-b----"
    assert world.store.watches == []


def test_the_nodes_are_those_of_the_specification(world: World) -> None:
    start(world.usual_guest("memory_access='foreign'"), world.toolstack, StartOptions(0.3, paused=True))
    nodes = {path: value for path, value in world.store.nodes.items() if value}
    mac = nodes[f"{B}/256/host/mac"]
    assert nodes == {
        f"{B}/0/frontend": f"{F}/0",
        f"{B}/0/frontend-id": "1",
        f"{B}/0/online": "1",
        f"{B}/0/state": "2",
        f"{B}/0/type": "virtio,device2",
        f"{B}/0/transport": "xenbus",
        f"{B}/0/host/memory-access": "foreign",
        f"{B}/0/host/vdev": "vda",
        f"{B}/0/host/path": str(world.folder / "a.img"),
        f"{B}/0/host/size": str(1 << 20),
        f"{B}/0/host/mode": "w",
        f"{B}/0/host/discard": "1",
        f"{F}/0/backend": f"{B}/0",
        f"{F}/0/backend-id": "0",
        f"{F}/0/state": "1",
        f"{F}/0/transport": "xenbus",
        f"{B}/256/frontend": f"{F}/256",
        f"{B}/256/frontend-id": "1",
        f"{B}/256/online": "1",
        f"{B}/256/state": "2",
        f"{B}/256/type": "virtio,device1",
        f"{B}/256/transport": "xenbus",
        f"{B}/256/host/memory-access": "foreign",
        f"{B}/256/host/vdev": "eth0",
        f"{B}/256/host/mac": mac,
        f"{B}/256/host/bridge": "xenbr0",
        f"{B}/256/host/vifname": "vio1.0",
        f"{F}/256/backend": f"{B}/256",
        f"{F}/256/backend-id": "0",
        f"{F}/256/state": "1",
        f"{F}/256/transport": "xenbus",
    }


def test_only_the_backend_can_read_what_is_behind_a_device(world: World) -> None:
    start(world.usual_guest(), world.toolstack, QUICK)
    for path in world.store.nodes:
        expected = ["n0"] if "/host" in path else ["n0", "r1"] if path.startswith(B) else ["n1", "r0"]
        assert world.store.permissions(path) == expected, path


def test_xl_gets_what_is_not_ours_in_a_file_that_only_root_can_read(world: World) -> None:
    start(world.usual_guest("memory =  0x80 # MiB\nextra='a  b'"), world.toolstack, QUICK)
    uuid = world.domains[1]["uuid"]
    text = (world.folder / "guest.cfg").read_text()
    assert text == f"name='g'\nmemory =  0x80\nextra='a  b'\nuuid = \"{uuid}\"\n"
    assert (world.folder / "mode").read_text() == "0o600"


def test_a_guest_without_virtio_devices_needs_no_daemon(world: World) -> None:
    world.daemon = False
    start(world.guest("name='plain'"), world.toolstack, QUICK)
    assert world.domains[1]["name"] == "plain"
    assert world.store.nodes == {}


def test_paused_leaves_it_paused_with_its_backends_ready(world: World) -> None:
    start(world.usual_guest(), world.toolstack, StartOptions(0.3, paused=True))
    assert world.domains[1]["flags"] == "--p---"
    assert [world.store.read(path) for path in world.store.states("backend")] == ["2", "2"]


def test_a_guest_whose_qemu_serves_all_needs_no_daemon_and_gets_no_nodes(world: World) -> None:
    world.daemon = False
    disk = f"vdev=vda,backend=qemu,target={world.image()}"
    guest = world.guest(f"name='g'; type='hvm'; disk=['{disk}']; vif=['model=virtio,backend=qemu']")
    start(guest, world.toolstack, QUICK)
    assert [command for command in world.xl_log if command != "list"] == ["create", "unpause"]
    assert world.store.nodes == {}


def test_xl_is_heard_when_it_fails(world: World) -> None:
    (world.folder / "trouble").write_text("libxl: error: no memory\nabort")
    with pytest.raises(XenError, match=r"xl create .* failed:\n    libxl: error: no memory\n    abort"):
        start(world.usual_guest(), world.toolstack, QUICK)
    assert world.nothing_left()


def test_qemu_is_heard_when_it_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xl, "DEVICE_MODEL_LOGS", world.folder)
    (world.folder / "trouble").write_text("libxl: error: domain 1 device model: spawn failed (rc=-3)")
    (world.folder / "qemu-dm-old.log").write_text("of another day\n")
    os.utime(world.folder / "qemu-dm-old.log", (1, 1))
    (world.folder / "qemu-dm-g.log").write_text('char device\nxen-qemu: Failed to get "write" lock\n')
    with pytest.raises(XenError, match="qemu-dm-g") as caught:
        start(world.usual_guest(), world.toolstack, QUICK)
    assert caught.value.message.endswith('    char device\n    xen-qemu: Failed to get "write" lock')
    assert "spawn failed" in caught.value.message
    assert "another day" not in caught.value.message
    assert world.nothing_left()


def test_a_backend_that_cannot_serve_is_heard_and_all_is_undone(world: World) -> None:
    def refuse() -> None:
        for path in world.store.states("backend"):
            world.store.write(path, "6")
            world.store.write(path.replace("/state", "/error"), "the image is locked by process 7")
        world.store.after_transaction = world.backend_answers

    world.store.after_transaction = refuse
    with pytest.raises(XenvirtioError, match="vda: the backend cannot serve it: the image is locked"):
        start(world.usual_guest(), world.toolstack, QUICK)
    assert "unpause" not in world.xl_log
    assert world.nothing_left()


def test_a_backend_that_does_not_answer_is_named_and_all_is_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "UNPLUG_LIMIT", 0.2)
    world.store.after_transaction = lambda: None
    with pytest.raises(TimeLimit) as caught:
        start(world.usual_guest(), world.toolstack, QUICK)
    assert f"{B}/0/state is Initialising (1)" in caught.value.message
    assert "unpause" not in world.xl_log
    assert world.nothing_left()


@pytest.mark.parametrize(
    ("front", "back", "cause"),
    [
        ("1", "2", "no virtio_xenbus module"),
        ("3", "2", "the daemon does not run"),
        ("3", "4", "did not accept the device page"),
        ("6", "6", "gave the device up"),
        ("nonsense", "2", "did not agree"),
    ],
)
def test_a_guest_that_does_not_connect_is_explained_and_destroyed(
    world: World, front: str, back: str, cause: str
) -> None:
    def boot() -> None:
        world.store.write(f"{F}/0/state", front)
        world.store.write(f"{B}/0/state", back)

    world.at_unpause = boot
    with pytest.raises(TimeLimit) as caught:
        start(world.usual_guest(), world.toolstack, QUICK)
    message = caught.value.message
    assert f"{F}/0/state" in message
    assert f"{B}/0/state" in message
    assert cause in message
    assert "vda of guest g was not connected within" in message
    assert caught.value.hint
    assert caught.value.exit_status == 1
    assert world.nothing_left()


def test_a_driver_that_refuses_is_quoted_with_harmless_characters(world: World) -> None:
    def boot() -> None:
        world.store.write("/local/domain/1/error/device/virtio/0/error", "version 9\x1b[2J" + "x" * 4000)

    world.at_unpause = boot
    with pytest.raises(XenvirtioError, match=r"driver does not take it: version 9\?\[2Jx+$") as caught:
        start(world.usual_guest(), world.toolstack, QUICK)
    assert len(caught.value.message) < 300
    assert world.nothing_left()


@pytest.mark.parametrize(("reason", "word"), [(3, "crash"), (0, "poweroff")])
def test_a_guest_that_ends_while_it_boots_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, reason: int, word: str
) -> None:
    monkeypatch.setattr(connect, "LOOK_AT_DOMAIN", 3600.0)  # xenstored's report is enough
    world.at_unpause = lambda: world.ends(reason)
    with pytest.raises(XenError, match=rf"guest g ended \({word}\) before"):
        start(world.usual_guest(), world.toolstack, StartOptions(limit=20))
    assert world.nothing_left()


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_while_xl_builds_lets_xl_end_and_then_undoes_it(world: World) -> None:
    (world.folder / "slow").write_text("1.0")

    def interrupt() -> None:
        end = time.monotonic() + 20
        while "create" not in world.xl_log and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        start(world.usual_guest(), world.toolstack, QUICK)
    thread.join()
    assert world.xl_log[-3:] == ["create", "list", "destroy"]
    assert world.nothing_left()


def test_an_interrupt_while_the_guest_boots_undoes_all(world: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    world.at_unpause = interrupt
    with pytest.raises(KeyboardInterrupt):
        start(world.usual_guest(), world.toolstack, QUICK)
    assert world.nothing_left()
