"""Every error that xenvirtio raises on purpose.

    XenvirtioError              exit status 1
    ├── UsageError              exit status 2: the user's mistake
    │   └── ConfigError         in a guest configuration: file, line, column, caret
    ├── MissingDependency       a program, library or device node is not there; the hint names the package
    ├── XenError                a call to Xen failed
    ├── TimeLimit               something waited for did not come; names it
    ├── LabError                the lab could not do it
    │   └── LabLost             the lab's machine went away (exit status 3)
    └── GuestViolation          a guest broke a rule; stops its device, nothing else
        ├── QueueViolation
        └── MemoryViolation

A hint is the next command or step, in its own slot: the command line prints it on a line of its own.
"""

from __future__ import annotations


class XenvirtioError(Exception):
    """Base of all: a message for people and, where there is one, the next step."""

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(XenvirtioError):
    """The user asked for something that cannot be; nothing was changed."""

    exit_status = 2


class ConfigError(UsageError):
    """A mistake in a guest configuration; `excerpt` shows the line with a caret below the place."""

    def __init__(
        self,
        message: str,
        *,
        file: str,
        line: int,
        column: int,
        excerpt: str = "",
        hint: str | None = None,
    ) -> None:
        text = f"{file}:{line}:{column}: {message}"
        super().__init__(f"{text}\n{excerpt}" if excerpt else text, hint)
        self.file, self.line, self.column = file, line, column


class MissingDependency(XenvirtioError):
    """A program, library or device node that is needed is not on this machine."""


class XenError(XenvirtioError):
    """A call to Xen or to XenStore failed; `errno` is the cause."""

    def __init__(self, message: str, errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.errno = errno


class TimeLimit(XenvirtioError):
    """What was waited for did not come in time."""


class LabError(XenvirtioError):
    """The lab could not do what was asked."""


class LabLost(LabError):
    """The lab's virtual machine went away; says nothing about the command that ran in it."""

    exit_status = 3


class GuestViolation(XenvirtioError):
    """A guest broke a rule of the specification; `rule` names it."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class QueueViolation(GuestViolation):
    """A virtqueue's memory holds what no driver may write (virtio 1.3 §2.7)."""


class MemoryViolation(GuestViolation):
    """An address that the guest gave cannot be reached as asked."""
