"""The language of guest configurations (xl.cfg(5)): what parses, and how what does not is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenvirtio.errors import ConfigError
from xenvirtio.toolstack.configuration.configuration import quote
from xenvirtio.toolstack.configuration.grammar import Atom, Sequence, Source, Value, parse

Plain = str | list["Plain"]


def plain(value: Value) -> Plain:
    return value.text if isinstance(value, Atom) else [plain(item) for item in value.items]


def settings(text: str) -> list[tuple[str, str, Plain]]:
    return [(s.name, s.operator, plain(s.value)) for s in parse(Source("guest.cfg", text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n# nothing\n", []),
        ("memory = 512", [("memory", "=", "512")]),
        ("memory=0x200;vcpus=010\n", [("memory", "=", "0x200"), ("vcpus", "=", "010")]),
        ("a='x' # why\n b = \"y\"", [("a", "=", "x"), ("b", "=", "y")]),
        ("a = 1;;\n;b=2", [("a", "=", "1"), ("b", "=", "2")]),
        ("extra += ' quiet'", [("extra", "+=", " quiet")]),
        ("disk = []", [("disk", "=", [])]),
        ("disk = [\n]", [("disk", "=", [])]),
        ("disk = [ 'a', # first\n\n 'b' ,\n]", [("disk", "=", ["a", "b"])]),
        ("v = [ [1, [2]], 'x', [] ]", [("v", "=", [["1", ["2"]], "x", []])]),
        (
            r"""a = 'it\'s' ; b = "tab\there" ; c='\\'""",
            [("a", "=", "it's"), ("b", "=", "tab\there"), ("c", "=", "\\")],
        ),
        ("a = 'a # b; c'", [("a", "=", "a # b; c")]),
        ("vuart_x86.y = 1", [("vuart_x86.y", "=", "1")]),
        ("a=1 # no line end", [("a", "=", "1")]),
        ("name = 'böse'", [("name", "=", "böse")]),
    ],
)
def test_what_xl_accepts_parses_to_what_it_says(text: str, expected: list[object]) -> None:
    assert settings(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a = 1\nname = foo", 2, 8, "a value expected, not 'foo'"),
        ("name", 1, 5, "'=' or '+=' expected, not the end"),
        ("name =", 1, 7, "a value expected, not the end"),
        ("name =\n", 1, 7, "a value expected, not the line's end"),
        ("name 'x'", 1, 6, "'=' or '+=' expected"),
        ("a = 'x\nb = 1", 1, 5, "no closing quote"),
        ("disk = [ 'a' 'b' ]", 1, 14, "',' or ']' expected"),
        ("disk = [ 'a',\n  'b'\n", 1, 8, "this list is not closed"),
        ("v = [ [1, 2]\n", 1, 5, "this list is not closed"),
        ("disk = [ 'a'\nb = 1", 2, 1, "',' or ']' expected"),
        ("disk = [,]", 1, 9, "a value expected"),
        ("a=1 b=2", 1, 5, "the line's end expected"),
        ("a = -1", 1, 5, "'-' cannot stand here"),
        ("a = 0xFF", 1, 7, "'F' cannot stand here"),
        ("Name = 'x'", 1, 1, "'N' cannot stand here"),
        ("= 3", 1, 1, "the name of a setting expected"),
        ("a = 'x\\q'", 1, 7, "no escape \\q"),
        ("a = 'x\\x41'", 1, 7, "numeric escapes"),
        ("a = '\\101'", 1, 6, "numeric escapes"),
        ("a = 1\r\n", 1, 6, "DOS line ends"),
        ("\ufeffa = 1", 1, 1, "byte order mark"),
        ("a = 1\n\udcff", 2, 1, "no text in UTF-8"),
        ("a = 1\n\0", 2, 1, "no text in UTF-8"),
        ("a = 'x\0'", 1, 7, "NUL character"),
        (f"a = {'[' * 40}{']' * 40}", 1, 37, "nested more than 32 deep"),
        ("\ta = b", 1, 6, "a value expected"),
    ],
)
def test_what_xl_refuses_is_refused_with_line_column_and_caret(
    text: str, line: int, column: int, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(text)
    error = caught.value
    assert (error.line, error.column, error.exit_status) == (line, column, 2)
    head, excerpt, caret = error.message.split("\n")
    assert head.startswith(f"guest.cfg:{line}:{column}: ")
    assert words in head
    assert excerpt == "    " + text.split("\n")[line - 1]
    assert caret.endswith("^")
    assert len(caret) == 4 + column


def test_an_error_in_an_endless_line_shows_what_is_around_it() -> None:
    with pytest.raises(ConfigError) as caught:
        settings("a = '" + "x" * 100_000 + "' oops" + "y" * 100_000)
    error = caught.value
    _, excerpt, caret = error.message.split("\n")
    assert error.column == 100_008
    assert len(excerpt) < 200
    assert excerpt[len(caret) - 1 :].startswith("oops")


def test_the_caret_stands_below_its_place_after_tabs() -> None:
    with pytest.raises(ConfigError) as caught:
        settings("\ta =\tb")
    assert caught.value.message.split("\n")[2] == "    \t   \t^"


def test_each_character_of_a_string_knows_its_place() -> None:
    (setting,) = parse(Source("g", r"a = 'x\\y\'z'"))
    assert isinstance(setting.value, Atom)
    assert setting.value.text == r"x\y'z"
    assert [setting.source.text[place] for place in setting.value.places] == ["x", "\\", "y", "\\", "z", "'"]


names = st.from_regex(r"[a-z][_0-9a-z]{0,12}", fullmatch=True)
texts = st.text(st.sampled_from("ab9 _-.,:;#=+[](){}/\\'\"\t\aöß漢🙂"))
numbers = st.one_of(st.integers(0, 2**64).map(str), st.integers(0, 2**32).map(hex))
blanks = st.sampled_from(["", " ", "\t", "  "])
breaks = st.sampled_from(["", " ", "\n", " # words, 'and' [more]\n", "\n\n  "])


@st.composite
def written_values(draw: st.DrawFn, depth: int = 2) -> tuple[str, Plain]:
    """A value as somebody may write it, and what it says."""
    kind = draw(st.sampled_from(["string", "quoted", "number", "list"] if depth else ["string", "number"]))
    if kind == "number":
        number = draw(numbers)
        return number, number
    if kind == "list":
        items = draw(st.lists(written_values(depth=depth - 1), max_size=4))
        parts = [f"{draw(breaks)}{text}{draw(breaks)}" for text, _ in items]
        comma = draw(st.sampled_from([",", ",\n", ""])) if parts else ""
        return f"[{','.join(parts)}{comma}{draw(st.sampled_from(['', ' ']))}]", [value for _, value in items]
    text = draw(texts)
    if kind == "quoted":
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'", text
    return quote(text), text


@st.composite
def written_files(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, Plain]]]:
    text, expected = "", []
    for _ in range(draw(st.integers(0, 5))):
        name, operator = draw(names), draw(st.sampled_from(["=", "+="]))
        written, value = draw(written_values())
        end = draw(st.sampled_from(["\n", ";", " # comment\n", "\n\n", " ; \n"]))
        text += f"{draw(blanks)}{name}{draw(blanks)}{operator}{draw(blanks)}{written}{draw(blanks)}{end}"
        expected.append((name, operator, value))
    return text, expected


@given(written_files())
def test_a_written_configuration_parses_to_what_it_says(
    file: tuple[str, list[tuple[str, str, Plain]]],
) -> None:
    text, expected = file
    assert settings(text) == expected


@given(written_files())
def test_what_is_written_of_each_setting_parses_to_the_same(
    file: tuple[str, list[tuple[str, str, Plain]]],
) -> None:
    text, expected = file
    again = "".join(setting.written + "\n" for setting in parse(Source("g", text)))
    assert settings(again) == expected


@given(st.text(st.sampled_from("ab=+[],;#'\"\\\n 1x-"), max_size=40))
def test_any_text_parses_or_is_a_config_error(text: str) -> None:
    line = 1
    with contextlib.suppress(ConfigError):
        for setting in parse(Source("g", text)):
            assert isinstance(setting.value, Atom | Sequence)
            line = text[: setting.end].count("\n") + 1
    assert 1 <= line <= text.count("\n") + 1
