"""Frames survive every cut and every dead session before them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.dom0.protocol import Decoder, Kind, ProtocolError, decode_json, encode, encode_json

_FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=200)), max_size=8)


@given(_FRAMES, st.integers(min_value=1, max_value=64))
def test_frames_come_back_however_the_bytes_are_cut(frames: list[tuple[Kind, bytes]], step: int) -> None:
    wire = b"".join(encode(kind, body) for kind, body in frames)
    decoder = Decoder()
    got = [frame for start in range(0, len(wire), step) for frame in decoder.feed(wire[start : start + step])]
    assert got == frames


@given(st.binary(max_size=200))
def test_the_delimiter_never_occurs_inside_a_frame(body: bytes) -> None:
    assert b"\xc0" not in encode(Kind.STDOUT, body)[:-1]


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=199))
def test_a_frame_cut_off_by_a_dead_session_does_not_spoil_the_next(body: bytes, cut: int) -> None:
    dead = encode(Kind.STDIN, body)[:-1][:cut]
    frames = Decoder().feed(dead + b"\xc0" + encode_json(Kind.HELLO, {"nonce": "n"}))
    assert frames[-1][0] == Kind.HELLO
    assert decode_json(frames[-1][1]) == {"nonce": "n"}


def test_a_frame_of_an_unknown_kind_is_dropped() -> None:
    assert Decoder().feed(b"\x63junk\xc0" + encode(Kind.STDOUT, b"x")) == [(Kind.STDOUT, b"x")]


def test_a_frame_without_an_end_is_not_kept_for_ever() -> None:
    decoder = Decoder()
    for _ in range(protocol.FRAME_MAX // 65536 + 2):
        assert decoder.feed(b"\x06" * 65536) == []
    assert decoder.feed(b"\xc0" + encode(Kind.STDOUT, b"x"))[-1] == (Kind.STDOUT, b"x")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"3"])
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_json(body)
