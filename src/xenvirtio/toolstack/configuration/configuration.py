"""A guest configuration: effective values of settings, and the text that goes to xl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from xenvirtio.errors import UsageError
from xenvirtio.toolstack.configuration.grammar import Atom, Setting, Source, parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence as Many
    from pathlib import Path


@dataclass(frozen=True)
class GuestConfig:
    """All settings of a configuration in order: later ones of a name replace or (`+=`) extend earlier."""

    name: str  #: of the file
    settings: tuple[Setting, ...]

    def last(self, name: str) -> Setting | None:
        """The setting that counts, or None."""
        found = [setting for setting in self.settings if setting.name == name]
        return found[-1] if found else None

    def fail(self, name: str, message: str, hint: str | None = None) -> NoReturn:
        """Raise the ConfigError for the value of a setting; for the file, if it is not set."""
        setting = self.last(name)
        if setting is None:
            raise UsageError(f"{self.name}: {message}", hint)
        setting.source.fail(setting.value.start, message, hint)

    def string(self, name: str) -> str | None:
        """The value of a setting that is one string or number.

        Raises ConfigError if it is a list.
        """
        text: str | None = None
        for setting in self.settings:
            if setting.name != name:
                continue
            if not isinstance(setting.value, Atom):
                setting.fail(f"{name} is one value, not a list")
            text = (text or "") + setting.value.text if setting.operator == "+=" else setting.value.text
        return text

    def entries(self, name: str) -> tuple[Atom, ...]:
        """The strings of a setting that is a list of strings.

        Raises ConfigError if it is something else.
        """
        entries: list[Atom] = []
        for setting in self.settings:
            if setting.name != name:
                continue
            if isinstance(setting.value, Atom):
                hint = f"{name} = [{setting.value.written}]"
                setting.value.fail(f"{name} is a list: its value stands in brackets", hint)
            if setting.operator == "=":
                entries.clear()
            for item in setting.value.items:
                if not isinstance(item, Atom):
                    item.source.fail(item.start, f"an entry of {name} is a string, not a list")
                entries.append(item)
        return tuple(entries)

    def command_line(self) -> tuple[str, str]:
        """The setting that more words for the kernel go to, and its command line, as xl has it."""
        if self.last("cmdline"):
            return "cmdline", self.string("cmdline") or ""
        root, extra = self.string("root"), self.string("extra")
        return "extra", " ".join(([f"root={root}"] if root else []) + ([extra] if extra else []))

    def for_xl(
        self,
        *,
        without: frozenset[str],
        lists: Mapping[str, Many[str]],
        extra: Mapping[str, str],
        appended: Mapping[str, str],
    ) -> str:
        """The text for xl: settings as they are written, byte for byte, except that

        settings named in `without` are left out, each list named in `lists` has only these entries (as they
        are to be written, in quotes; none: it is left out), the strings of `extra` are added at the end, and
        those of `appended` to what the setting says.
        """
        lines: list[str] = []
        for setting in self.settings:
            if setting.name in without:
                continue
            if setting.name not in lists:
                lines.append(setting.written)
            elif setting is self.last(setting.name) and lists[setting.name]:
                lines.append(_list(setting.name, lists[setting.name]))
        lines += [_list(name, entries) for name, entries in lists.items() if entries and not self.last(name)]
        lines += [f"{name} = {quote(text)}" for name, text in extra.items()]
        lines += [
            f"{name} {'+=' if self.last(name) else '='} {quote(text)}" for name, text in appended.items()
        ]
        return "".join(line + "\n" for line in lines)


def _list(name: str, entries: Many[str]) -> str:
    return f"{name} = [ {', '.join(entries)} ]"


def quote(text: str) -> str:
    """A string as xl's grammar wants it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def read(path: Path, overrides: Many[str] = ()) -> GuestConfig:
    """The configuration in a file, followed by settings from the command line (`memory=512`, `name="x"`).

    Raises UsageError if the file cannot be read, ConfigError for what is wrong in it.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise UsageError(
            f"there is no guest configuration {path}", hint="name the file of an xl configuration"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read the guest configuration {path}: {error.strerror}") from None
    settings = list(parse(Source(str(path), text)))
    for number, override in enumerate(overrides, 1):
        settings += parse(Source(f"<argument {number}>", override))
    return GuestConfig(str(path), tuple(settings))
