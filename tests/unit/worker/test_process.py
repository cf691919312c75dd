"""Real processes, sockets and locks: forked workers, the daemon's lock, its status, its word to systemd."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xenvirtio.errors import TimeLimit, UsageError, XenvirtioError
from xenvirtio.testing.xen import FakeXen
from xenvirtio.worker import messages, status
from xenvirtio.worker.connection import Guest
from xenvirtio.worker.daemon import only_daemon, stopped_by_signals, tell_systemd
from xenvirtio.worker.limits import Limits
from xenvirtio.worker.log import JournalFormatter, PlainFormatter
from xenvirtio.worker.loop import Loop
from xenvirtio.worker.main import only_worker
from xenvirtio.worker.spawn import ForkedWorker, fork_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.xen.interfaces import View

LIMIT = 10.0


def wait_readable(thing: Any) -> None:
    assert select.select([thing], [], [], LIMIT)[0], "nothing came"


def start(directory: Path, life: Callable[[Guest, socket.socket], None]) -> ForkedWorker:
    return fork_worker(Guest(5, "guest", "", directory), life, lambda: None)


def test_a_forked_worker_answers_and_is_reaped(tmp_path: Path) -> None:
    def life(guest: Guest, control: socket.socket) -> None:
        control.recv(100)
        messages.send(control, messages.Done(guest.domid, 0))

    worker = start(tmp_path, life)
    messages.send(worker.control, messages.Stop())
    wait_readable(worker.control)
    assert messages.receive(worker.control) == messages.Done(5, 0)
    wait_readable(worker)
    assert worker.reap() == "exit status 0"


@pytest.mark.skipif(os.geteuid() != 0, reason="a large socket buffer is root's")
def test_orders_for_all_devices_of_a_guest_fit_at_once(tmp_path: Path) -> None:
    def hang(_: Guest, __: socket.socket) -> None:
        signal.pause()

    worker = start(tmp_path, hang)
    for devid in range(Limits.devices_per_guest):
        messages.send(worker.control, messages.Prepare(devid, devid, 2, {"path": "/" * 4000}))
    worker.kill()
    wait_readable(worker)
    worker.reap()


def test_a_worker_has_no_descriptor_and_no_signal_handler_of_the_supervisor(tmp_path: Path) -> None:
    inherited = os.open("/dev/null", os.O_RDONLY)

    def life(_: Guest, control: socket.socket) -> None:
        held = sorted(
            fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{fd}")
        )
        handler = signal.getsignal(signal.SIGTERM)
        clean = held == [0, 1, 2, control.fileno()] and handler is signal.SIG_DFL
        messages.send(control, messages.Failed(0, 0, f"{clean} {held} {handler}", for_good=False))

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        worker = start(tmp_path, life)
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(inherited)
    wait_readable(worker)
    answer = messages.receive(worker.control)
    worker.reap()
    assert isinstance(answer, messages.Failed)
    assert answer.words.startswith("True"), answer.words


def test_a_worker_is_known_by_its_guest_s_number(tmp_path: Path) -> None:
    def life(guest: Guest, control: socket.socket) -> None:
        messages.send(control, messages.Done(guest.domid, 0))
        control.recv(1)

    worker = start(tmp_path, life)
    wait_readable(worker.control)
    assert Path(f"/proc/{worker.pid}/comm").read_text() == "xenvirtio-5\n"
    worker.kill()
    wait_readable(worker)
    worker.reap()


def test_how_a_worker_died_is_told(tmp_path: Path) -> None:
    def hang(_: Guest, control: socket.socket) -> None:
        control.recv(1)

    worker = start(tmp_path, hang)
    worker.kill()
    wait_readable(worker)
    assert worker.reap() == "killed by SIGKILL"

    def fail(_: Guest, __: socket.socket) -> None:
        raise RuntimeError("broken")

    worker = start(tmp_path, fail)
    wait_readable(worker)
    assert worker.reap() == "exit status 1"


def test_a_log_message_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "guest %s", ("a\n<0>b",), None)
    assert JournalFormatter().format(record) == "<4>guest a | <0>b"
    assert PlainFormatter().format(record).endswith(" warning guest a | <0>b")


def test_only_one_daemon_holds_a_run_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with only_daemon(directory):
        assert directory.stat().st_mode & 0o777 == 0o700
        with pytest.raises(UsageError, match=f"a daemon runs already \\(process {os.getpid()}") as caught:
            only_daemon(directory).__enter__()
        assert caught.value.hint
    with only_daemon(directory):
        pass


def test_a_run_directory_that_cannot_be_one_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError, match="cannot be the run directory") as caught:
            only_daemon(directory).__enter__()
        assert "--run-dir" in (caught.value.hint or "")
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with contextlib.closing(Loop()) as loop, pytest.raises(UsageError, match="cannot be listened at"):
        status.StatusServer(loop, deep, lambda _: None)


def test_a_worker_waits_for_its_predecessor_s_end(tmp_path: Path) -> None:
    guest = Guest(5, "guest", "", tmp_path)

    def hold(_: Guest, control: socket.socket) -> None:
        with only_worker(guest):
            messages.send(control, messages.Stop())
            control.recv(1)

    first = start(tmp_path, hold)
    wait_readable(first.control)
    with pytest.raises(TimeLimit, match="an earlier worker of guest did not end"):
        only_worker(guest, 0.1).__enter__()
    first.kill()
    with only_worker(guest, LIMIT):
        pass
    first.reap()


def test_a_signal_stops_the_loop() -> None:
    with Loop() as loop, stopped_by_signals(loop, loop.stop):
        loop.later(0.01, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.later(LIMIT, loop.stop)
        loop.run()
        assert loop.stopped


def test_systemd_is_told_if_it_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        tell_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"
    tell_systemd("STOPPING=1")  # it is gone: a warning, no more
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_systemd("READY=1")


def test_the_status_is_one_json_object_and_the_socket_is_root_s(tmp_path: Path) -> None:
    report = {
        "domid": 0,
        "watch_events": 1,
        "guests": [{"domid": 5, "devices": [{"devid": 7, "phase": "connected"}]}],
    }
    assert not status.daemon_runs(tmp_path)
    assert status.counters(tmp_path) == {}
    with pytest.raises(XenvirtioError, match="cannot be asked") as caught:
        status.query(tmp_path)
    assert caught.value.hint == "xenvirtio daemon"
    with Loop() as loop:
        server = status.StatusServer(loop, tmp_path, lambda answer: answer(report))
        assert (tmp_path / status.SOCKET).stat().st_mode & 0o777 == 0o600
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            assert status.daemon_runs(tmp_path)
            assert status.query(tmp_path) == {"pid": os.getpid(), **report}
            assert status.counters(tmp_path) == {(5, 7): {"devid": 7, "phase": "connected"}}
        finally:
            loop.later(0, loop.stop)
            status.daemon_runs(tmp_path)  # wakes the loop
            thread.join(LIMIT)
        server.close()
    assert not status.daemon_runs(tmp_path)


@pytest.mark.parametrize(
    "message",
    [
        messages.Prepare(1, 2, 3, {"path": "/ä.img"}),
        messages.Attach(1, 2, "grant", 3, 4, True),
        messages.Reported(1, {"0": {"kicks": 1}}, {"events": 2}),
        messages.Stop(),
    ],
)
def test_a_message_survives_the_wire(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"kind": "Quit"}', b'{"kind": "Stop", "x": 1}'])
def test_nonsense_is_no_message(data: bytes) -> None:
    with pytest.raises(messages.MessageError):
        messages.decode(data)


@pytest.mark.parametrize(
    "report",
    [
        {"counters": {"reads": "x"}},
        {"counters": None},
        {"memory": 5},
        {"events": {"sent": -1}},
        {"memory": {"hypercalls": 1 << 64}},
        {"recent": {"seconds": "a"}},
        {"recent": {"counters": {}}},
        {"recent": {"seconds": 5.0, "counters": {"reads": []}}},
        {"at": float("nan")},
        {"age": float("inf")},
        {"memory_access": []},
        {"features": float("nan")},
        {"recent": {"seconds": 5e-324}},
        {"more": [[[]]]},
        [],
    ],
)
def test_a_report_that_cannot_be_counted_with_is_no_message(report: object) -> None:
    """A worker that its guest has taken over would break `xenvirtio list` for everybody."""
    good = {
        "queues": [0, 1],
        "counters": {"reads": 1},
        "at": 7.5,
        "age": 2.0,
        "recent": {"seconds": 2.0, "counters": {}},
    }
    for devices, is_one in (({"0": good}, True), ({"0": good, "1": report}, False)):
        data = json.dumps({"kind": "Reported", "ticket": 1, "devices": devices, "worker": {}}).encode()
        with contextlib.nullcontext() if is_one else pytest.raises(messages.MessageError):
            messages.decode(data)


def test_a_message_is_bounded() -> None:
    with pytest.raises(messages.MessageError):
        messages.encode(messages.Prepare(1, 2, 3, {"path": "x" * messages.MESSAGE_MAX}))


def test_transactions_are_tried_again_a_bounded_number_of_times() -> None:
    with FakeXen() as xen, xen.connect(0) as store:
        store.conflicts = 3
        runs: list[View] = []

        def body(view: View) -> None:
            runs.append(view)
            view.write("/a", "1")

        store.transact(body)
        assert len(runs) == 4
        assert store.read("/a") == "1"
        store.conflicts = 100
        with pytest.raises(XenvirtioError, match="16 times"):
            store.transact(lambda view: view.write("/a", "2"))
        assert store.read("/a") == "1"
