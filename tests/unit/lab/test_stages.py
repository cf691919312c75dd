"""Stages report their begin, end and failure, in any order, from several threads."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from xenvirtio.errors import LabError, TimeLimit
from xenvirtio.lab.stages import Lines, Live, Progress, Stage, progress_for


def test_lines_say_the_limit_at_the_start_and_the_seconds_at_the_end() -> None:
    out = io.StringIO()
    with Lines(out).stage("Boot dom0", limit=120):
        pass
    begin, end = out.getvalue().splitlines()
    assert begin == "… Boot dom0 (at most 120 s)"
    assert end.startswith("✓ Boot dom0: 0.")


def test_a_failed_stage_says_why_and_lets_the_error_through() -> None:
    out = io.StringIO()
    with pytest.raises(LabError), Lines(out).stage("Boot dom0", limit=1):
        raise LabError("no [disk]", hint="next")
    assert "✗ Boot dom0: no [disk]" in out.getvalue()


def test_an_interrupted_stage_is_reported_too() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Lines(out).stage("Boot dom0", limit=1):
        raise KeyboardInterrupt
    assert "✗ Boot dom0" in out.getvalue()


def test_a_stage_over_its_limit_names_what_it_waited_for() -> None:
    stage = Stage("Boot dom0", 0, lambda *_: None)
    assert stage.left == 0
    with pytest.raises(TimeLimit, match=r"Boot dom0: the agent did not come within 0 s") as caught:
        stage.check("the agent", hint="look here")
    assert caught.value.hint == "look here"


def test_a_stage_that_ends_after_its_limit_has_failed() -> None:
    with (
        pytest.raises(TimeLimit, match=r"Boot dom0 took 0 s, longer than its limit of 0 s"),
        Progress().stage("Boot dom0", limit=0),
    ):
        pass


def test_a_stage_within_its_limit_passes_the_check() -> None:
    with Progress().stage("Boot dom0", limit=60) as stage:
        stage.check()
        assert 59 < stage.left <= 60


def test_a_live_display_shows_what_runs_and_keeps_what_ended() -> None:
    out = io.StringIO()
    progress = Live(Console(file=out, force_terminal=True, width=100))
    with progress.stage("First [one]", limit=1) as stage:
        stage.say("half")
        with pytest.raises(LabError), progress.stage("Second", limit=1):
            raise LabError("broken")
    text = out.getvalue()
    assert "✓" in text
    assert "First [one]" in text
    assert "Second: broken" in text


def test_overlapping_stages_each_get_their_lines() -> None:
    out = io.StringIO()
    progress = Lines(out)

    def work(name: str) -> None:
        with progress.stage(name, limit=10):
            pass

    threads = [threading.Thread(target=work, args=(f"stage {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lines = out.getvalue().splitlines()
    assert len(lines) == 16
    assert {line.partition(" (")[0] for line in lines if line[0] == "…"} == {f"… stage {n}" for n in range(8)}


def test_what_is_no_terminal_gets_lines() -> None:
    assert isinstance(progress_for(io.StringIO()), Lines)


def test_own_progress_sees_every_event() -> None:
    events: list[str] = []

    class Recorder(Progress):
        def begun(self, stage: Stage) -> None:
            events.append(f"begun {stage.name}")

        def said(self, stage: Stage, detail: str) -> None:
            events.append(f"{stage.name} {detail}")

        def done(self, stage: Stage) -> None:
            events.append(f"done {stage.name}")

    with Recorder().stage("A", limit=1) as stage:
        stage.say("x")
    assert events == ["begun A", "A x", "done A"]
