"""The errors that people see: one line, what to do about it, and the exit code."""

from __future__ import annotations


class HyError(Exception):
    """Something a person can understand and mend; `hy` prints it as one line and an optional hint.

    `message` names the option, file or plugin and what is wrong with it; `hint` says what would be right.
    Anything that isn't a HyError is a bug of ours or of a plugin.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HyError):
    """Options, files or values that can't be used as given."""

    exit_code = 2


class ConflictError(UsageError):
    """Two plugins want the same thing; the message names both."""


class PluginError(HyError):
    """A plugin that is missing, broken, or breaks the rules of registration."""

    exit_code = 3


class MissingError(HyError):
    """Something that one can install or download: a package, an extra, weights."""

    exit_code = 3


class MemoryLimitError(HyError):
    """The run doesn't fit into this machine's memory."""

    exit_code = 4


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or torch means that memory ran out; torch isn't imported for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    said = ("out of memory", "allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(words in text for words in said)
