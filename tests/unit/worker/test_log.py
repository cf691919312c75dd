"""What guests make daemon and workers say is bounded, and told so."""

from __future__ import annotations

import io
import logging
import time
from typing import TYPE_CHECKING

import pytest

from xenvirtio.worker.log import FloodFilter

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def said() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that lets 3 lines of a subject through, and then one in 0.2 s; where it writes."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(FloodFilter(3, 0.2))
    logger = logging.Logger("flood", logging.INFO)
    logger.addHandler(handler)
    yield logger, text
    handler.close()


def test_a_guest_that_makes_noise_is_cut_off_and_others_are_not(
    said: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, text = said
    for number in range(50):
        logger.warning("%s queue %d: stopped", "guest web (5) device 0", number)
    logger.warning("%s queue %d: stopped", "guest db (6) device 0", 1)
    logger.info("stopped; guests wait")
    assert text.getvalue().splitlines() == [
        *(f"guest web (5) device 0 queue {number}: stopped" for number in range(3)),
        "guest db (6) device 0 queue 1: stopped",
        "stopped; guests wait",
    ]


def test_what_was_left_out_is_counted_in_the_next_line(said: tuple[logging.Logger, io.StringIO]) -> None:
    logger, text = said
    for _ in range(10):
        logger.warning("%s: bad", "guest web (5)")
    time.sleep(0.25)
    logger.warning("%s: bad", "guest web (5)")
    assert text.getvalue().splitlines()[3:] == ["guest web (5): bad (7 more were left out)"]


def test_a_guest_s_noise_does_not_hide_what_goes_wrong_with_it(
    said: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, text = said
    for _ in range(10):
        logger.warning("guest %s: not taken", "web")
    logger.error("guest %s (%d): worker %d: %s", "web", 5, 812, "killed by SIGSEGV")
    assert text.getvalue().splitlines()[-1] == "guest web (5): worker 812: killed by SIGSEGV"
