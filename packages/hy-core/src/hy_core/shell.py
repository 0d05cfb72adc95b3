"""The command that makes a clip again, from its record, quoted for any POSIX shell.

A record is untrusted: fields of a wrong type or name are left out, and nothing of it reaches a terminal or a shell
unescaped.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any, cast

from hy_core import options

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# Flags in the order of `hy generate --help`, and the type each value must have.
FLAGS: dict[str, type] = {
    "frames": int,
    "fps": float,
    "steps": int,
    "seed": int,
    "guidance": float,
    "cfg": float,
    "negative": str,
    "model": str,
    "weights": str,
    "lora": str,
    "device": str,
    "dtype": str,
    "attention": str,
    "sampler": str,
    "schedule": str,
    "shift": float,
    "tiling": str,
}


def command(record: Mapping[str, Any]) -> str:
    """Return the shell command that makes the clip of a record again, safe to show and to paste."""
    return " ".join(map(quoted, arguments(record)))


def arguments(record: Mapping[str, Any]) -> list[str]:
    """Return the words of that command; a plugin that was a file is named by its path."""
    request = record["request"]
    line, files = ["hy", "generate"], plugin_files(record)
    plugins = request.get("plugins")
    for name in plugins if isinstance(plugins, list) else ():
        if isinstance(name, str) and (NAME.fullmatch(name) or name.endswith(".py")):
            line += _worded(
                "-p" if not files.get(name, name).startswith("-") else "--plugin", files.get(name, name)
            )
    if _fits(request.get("width"), int) and _fits(request.get("height"), int):
        line += ["--size", f"{request['width']}x{request['height']}"]
    for name, kind in FLAGS.items():
        value = request.get(name)
        if _fits(value, kind) and value not in ("", "auto"):
            line += _worded(f"--{name}", value)
    if request.get("compile") is True:
        line.append("--compile")
    tables = request.get("options")
    for owner, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and NAME.fullmatch(owner):
            for name, value in table.items():
                if NAME.fullmatch(name):
                    line += _option_words(record, owner, name, value)
    prompt = request["prompt"]
    return [*line, "--", prompt] if prompt.startswith("-") else [*line, prompt]


def plugin_files(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of the plugins of a record that were Python files, by name."""
    entries = record.get("plugins")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            name, path = entry.get("name"), entry.get("path")
            if isinstance(name, str) and isinstance(path, str) and path.endswith(f"{name}.py"):
                found[name] = path
    return found


def spellings(chosen: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Return how options of plugins are written that their values don't show: "several" words, or a "switch".

    `chosen` holds the frozen `Options` of each plugin. A switch has a `no-` form.
    """
    found: dict[str, dict[str, str]] = {}
    for owner, values in chosen.items():
        for one in options.fields(cast(Any, type(values))):
            if one.shape == "fixed":
                found.setdefault(owner, {})[one.name] = "several"
            elif bool in one.kinds and (one.default or one.optional):
                found.setdefault(owner, {})[one.name] = "switch"
    return found


def _option_words(record: Mapping[str, Any], owner: str, name: str, value: Any) -> list[str]:
    """A plugin's option as words of the command line."""
    flag, spelling = options.flag(owner, name), None
    spelled = record.get("spellings")
    if isinstance(spelled, dict) and isinstance(spelled.get(owner), dict):
        spelling = spelled[owner].get(name)
    if value is None or value == "":
        return []
    if isinstance(value, bool):
        negative = [options.flag(owner, f"no-{name}")] if spelling == "switch" else []
        return [flag] if value else negative
    if isinstance(value, list):
        words = [one for one in value if _fits(one, int) or _fits(one, float) or isinstance(one, str)]
        if spelling == "several":
            return [flag, *map(_number, words)]
        return [word for one in words for word in _worded(flag, one)]
    return _worded(flag, value) if isinstance(value, int | float | str) else []


def _fits(value: Any, kind: type) -> bool:
    """Whether an untrusted value is of a flag's type."""
    if isinstance(value, bool) or value is None:
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value)
    return isinstance(value, kind)


def _worded(flag: str, value: Any) -> list[str]:
    """A flag and its value; a value that begins with a dash is joined to the flag."""
    text = _number(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def _number(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else repr(value) if isinstance(value, float) else str(value)


def quoted(word: str) -> str:
    """Quote a word for a POSIX shell; the result holds no character that a terminal would act on.

    Control and format characters become octal escapes of `printf`. NUL, which no argument can hold, is left out.
    """
    word = word.replace("\0", "")
    if all(map(visible, word)):
        return shlex.quote(word)
    ends = len(word) - len(word.rstrip("\n"))  # a substitution drops these
    escapes = "".join(map(_escaped, word[: len(word) - ends]))
    if escapes.startswith("-"):
        escapes = "\\055" + escapes[1:]
    # In every POSIX shell IFS is a space, a tab and a newline unless a script has changed it.
    return (f"\"$(printf '{escapes}')\"" if escapes else "") + '"${IFS#??}"' * ends


def visible(char: str) -> bool:
    """Whether a character is shown, and doesn't move the cursor or reorder a line."""
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(char: str) -> str:
    """A character in the single-quoted format of `printf`."""
    if char == "%":
        return "%%"
    if visible(char) and char not in "\\'":
        return char
    try:
        data = char.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = b"?"
    return "".join(f"\\{byte:03o}" for byte in data)
