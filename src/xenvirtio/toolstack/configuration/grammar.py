"""The text of a guest configuration as settings with their places (xl.cfg(5), tools/libs/util/libxlu_cfg_*).

The same language as xl's, no more: names in lower case, strings in single or double quotes, numbers without
sign, lists that may be nested and span lines, `=` and `+=`, a line's end or `;` after a setting, # comments.
One thing is more lenient: a comment on the last line needs no line end (xl wants one).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from xenvirtio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAMMAR = r"""
start: [setting] (_end [setting])*
_end: NEWLINE | ";"
setting: NAME OPERATOR value
?value: STRING | NUMBER | list
list: "[" _lines (_values [_comma])? "]"
_values: value _lines | _values _comma value _lines
_comma: "," _lines
_lines: | _lines NEWLINE

NAME: /[a-z][._0-9a-z]*/
OPERATOR: "+=" | "="
NUMBER: /[0-9][0-9a-fx]*/
STRING: /'([^'\\\n]|\\.)*'|"([^"\\\n]|\\.)*"/
NEWLINE: "\n"
%ignore /[ \t]+/
%ignore /#[^\n]*/
"""

#: lists within lists; xl's own settings have two
DEPTH_MAX = 32
#: characters of a line that an error shows
EXCERPT_MAX = 160

ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class Source:
    """A text and the name under which errors speak of it."""

    name: str
    text: str

    def fail(self, offset: int, message: str, hint: str | None = None) -> NoReturn:
        """Raise the ConfigError for the character at `offset`."""
        starts = [0, *(i + 1 for i, c in enumerate(self.text) if c == "\n")]
        line = bisect_right(starts, offset)
        start = starts[line - 1]
        cut = max(start, offset - EXCERPT_MAX // 2)
        content = self.text[cut : cut + EXCERPT_MAX].split("\n", 1)[0]
        indent = "".join(c if c == "\t" else " " for c in content[: offset - cut])
        raise ConfigError(
            message,
            file=self.name,
            line=line,
            column=offset - start + 1,
            excerpt=f"    {content}\n    {indent}^",
            hint=hint,
        )


@dataclass(frozen=True)
class Atom:
    """A string or a number; `text` is what it says, `source.text[start:end]` how it is written."""

    source: Source
    start: int
    end: int
    text: str
    places: tuple[int, ...]  #: offset in the source of each character of `text`, and of the end

    @property
    def written(self) -> str:
        return self.source.text[self.start : self.end]

    def fail(self, message: str, hint: str | None = None, *, at: int | None = None) -> NoReturn:
        """Raise the ConfigError for this value, or for the character `at` of its text."""
        self.source.fail(self.start if at is None else self.places[at], message, hint)


@dataclass(frozen=True)
class Sequence:
    """A list in brackets."""

    source: Source
    start: int
    end: int
    items: tuple[Value, ...]


Value = Atom | Sequence


@dataclass(frozen=True)
class Setting:
    """One `name = value` or `name += value`."""

    source: Source
    start: int
    end: int
    name: str
    operator: str
    value: Value

    @property
    def written(self) -> str:
        return self.source.text[self.start : self.end]

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        self.source.fail(self.start, message, hint)


def parse(source: Source) -> tuple[Setting, ...]:
    """All settings of a text, in order.

    Raises ConfigError with line, column and a caret.
    """
    try:
        tree = _parser().parse(source.text)
    except UnexpectedInput as error:
        _explain(source, error)
    return tuple(_setting(source, node) for node in tree.children if isinstance(node, Tree))


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def _setting(source: Source, node: Tree[Token]) -> Setting:
    name, operator, value = node.children
    start, end = node.meta.start_pos, node.meta.end_pos
    return Setting(source, start, end, str(name), str(operator), _value(source, value))


def _value(source: Source, node: Token | Tree[Token], depth: int = 1) -> Value:
    if isinstance(node, Tree):
        if depth > DEPTH_MAX:
            source.fail(node.meta.start_pos, f"lists are nested more than {DEPTH_MAX} deep")
        items = tuple(_value(source, item, depth + 1) for item in node.children if _is_value(item))
        return Sequence(source, node.meta.start_pos, node.meta.end_pos, items)
    start, end = node.start_pos, node.end_pos
    assert start is not None
    assert end is not None
    if node.type == "NUMBER":
        return Atom(source, start, end, str(node), tuple(range(start, end + 1)))
    pairs = list(_characters(source, start + 1, end - 1))
    places = (*(place for _, place in pairs), end - 1)
    return Atom(source, start, end, "".join(char for char, _ in pairs), places)


def _is_value(node: Token | Tree[Token]) -> bool:
    return isinstance(node, Tree) or node.type != "NEWLINE"


def _characters(source: Source, start: int, end: int) -> Iterator[tuple[str, int]]:
    """What stands between the quotes, escapes resolved as libxlu resolves them."""
    place = start
    while place < end:
        char = source.text[place]
        if char == "\0":
            source.fail(place, "a string cannot hold a NUL character", "take it out")
        if char != "\\":
            yield char, place
            place += 1
            continue
        escaped = source.text[place + 1]
        if escaped in "\"'\\":
            yield escaped, place
        elif escaped in ESCAPES:
            yield ESCAPES[escaped], place
        elif escaped in "x01234567":
            source.fail(
                place,
                "numeric escapes in strings do not work: xl refuses or drops them",
                hint="write the character itself",
            )
        else:
            source.fail(place, f"xl knows no escape \\{escaped}", hint="a backslash itself is written \\\\")
        place += 2


#: words that begin a line of Python, which xm's configurations were
PYTHON = ("import", "from", "def", "if", "elif", "else", "for", "while", "try", "with", "class", "print")
_FORM = "a setting is name = value, where value is a number, a string in quotes or a list; see xl.cfg(5)"


def _explain(source: Source, error: UnexpectedInput) -> NoReturn:
    offset = error.pos_in_stream or 0
    _refuse_python(source, offset)
    if isinstance(error, UnexpectedCharacters):
        _explain_character(source, offset)
    assert isinstance(error, UnexpectedToken)
    found, expected = error.token, error.accepts or error.expected
    words = "the line's end" if found.type == "NEWLINE" else repr(str(found))
    if found.type == "$END":
        _refuse_open_list(source)
        offset, words = len(source.text.rstrip()), "the end of the text"
    if "OPERATOR" in expected:
        source.fail(offset, f"'=' or '+=' expected, not {words}", _FORM)
    if "STRING" in expected:
        hint = "strings stand in quotes" if found.type == "NAME" else _FORM
        source.fail(offset, f"a value expected, not {words}", hint)
    if "RSQB" in expected:
        hint = "entries of a list are separated by commas, and ']' closes it"
        source.fail(offset, f"',' or ']' expected, not {words}", hint)
    if "NAME" in expected:
        source.fail(offset, f"the name of a setting expected, not {words}", _FORM)
    hint = "a second setting on a line stands after ';'"
    source.fail(offset, f"the line's end expected after the value, not {words}", hint)


def _refuse_python(source: Source, offset: int) -> None:
    start = source.text.rfind("\n", 0, offset) + 1
    line = source.text[start:].split("\n", 1)[0]
    word = re.match(r"\s*([a-z]+)\b(?!\s*\+?=)", line)
    if word and word[1] in PYTHON:
        hint = "xm ran its configurations as programs; xl, and xenvirtio, read settings: name = value"
        source.fail(start + word.start(1), "this is Python", hint)


def _explain_character(source: Source, offset: int) -> NoReturn:
    char = source.text[offset]
    if char in "'\"":
        source.fail(offset, "this string has no closing quote on its line", f"close it with {char}")
    if char == "\r":
        source.fail(offset, "the file has DOS line ends, which xl refuses", f"dos2unix {source.name}")
    if char == "\ufeff":
        source.fail(
            offset,
            "the file has a byte order mark, which xl refuses",
            f"sed -i 's/^\\xEF\\xBB\\xBF//' {source.name}",
        )
    if char == "\0" or "\udc80" <= char <= "\udcff":
        source.fail(
            offset, "this is no text in UTF-8", f"file {source.name}; iconv makes UTF-8 of other texts"
        )
    if char.isascii() and char.isupper():
        hint = "names and hexadecimal digits are in lower case; strings stand in quotes"
    elif char in "+-.():":
        hint = "strings stand in quotes; Python code and negative numbers do not work in xl's configurations"
    else:
        hint = "strings stand in quotes; comments start with #"
    source.fail(offset, f"{char!r} cannot stand here", hint)


def _refuse_open_list(source: Source) -> None:
    """The text stopped in the middle: if that is in a list, point at its bracket."""
    opened: list[int] = []
    for token in _parser().lex(source.text):
        if token.type == "LSQB":
            opened.append(token.start_pos or 0)
        elif token.type == "RSQB":
            opened.pop()
    if opened:
        source.fail(opened[-1], "this list is not closed", "add the missing ']'")
