"""What made a clip: written into the file, read back, and turned into the command that makes it again.

A record comes from strangers as often as from us, so reading checks sizes and types, and nothing of it
reaches a terminal or a shell unescaped.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hy_core import options
from hy_core.errors import HyError
from hy_core.request import Request

FORMAT = 1
MOST_BYTES = 256 << 10
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


def record(
    request: Request,
    weights: Mapping[str, str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    packages: Iterable[str] = (),
) -> dict[str, Any]:
    """The record of a run: the request, versions, hashes of the weights, and where it ran.

    It holds no time and no path of the output, so that the same run writes the same file again.
    """
    versions = {name: installed(name) for name in ("hy-core", *packages, "torch", "transformers", "av")}
    return {
        "hy": FORMAT,
        "request": summary(request),
        "versions": {name: found for name, found in versions.items() if found},
        "weights": dict(weights or {}),
        "ran_on": {"device": device or request.device, "dtype": dtype or request.dtype},
    }


def summary(request: Request) -> dict[str, Any]:
    """The request as plain JSON values."""
    values = {name: getattr(request, name) for name in Request.__dataclass_fields__ if name != "options"}
    values["plugins"] = list(request.plugins)
    values["options"] = {name: options.plain(chosen) for name, chosen in request.options.items()}
    return values


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def dumps(made_by: Mapping[str, Any]) -> str:
    """The record as the text of a comment tag."""
    return json.dumps(made_by, ensure_ascii=False, separators=(",", ":"))


def read(path: Path | str) -> dict[str, Any]:
    """The record in a file; a one-line `HyError` if it has none or a broken one."""
    from hy_core import media

    comment = media.probe(path).comment
    if not comment:
        raise HyError(
            f"{path} doesn't say how it was made", "only files that hy wrote (without --no-provenance) do"
        )
    return parse(comment, str(path))


def parse(text: str, origin: str) -> dict[str, Any]:
    """The record in a comment; `HyError` for anything that isn't one."""
    other = HyError(f"{origin} has a comment that hy did not write")
    if len(text) > MOST_BYTES or not text.lstrip().startswith("{"):
        raise other
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise other from None
    if not isinstance(found, dict) or not isinstance(found.get("hy"), int):
        raise other
    if found["hy"] > FORMAT:
        raise HyError(f"{origin} was written by a newer hy (format {found['hy']})", "upgrade hy-core")
    request = found.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("prompt"), str):
        raise HyError(f"{origin}: its record has no request")
    return found


def arguments(found: Mapping[str, Any]) -> list[str]:
    """The command line that makes the clip again; fields of a wrong type or name are left out."""
    request = found["request"]
    line = ["hy", "generate"]
    plugins = request.get("plugins")
    for name in plugins if isinstance(plugins, list) else ():
        if isinstance(name, str) and (NAME.fullmatch(name) or name.endswith(".py")):
            line += ["-p", name]
    if fits(request.get("width"), int) and fits(request.get("height"), int):
        line += ["--size", f"{request['width']}x{request['height']}"]
    for name, kind in FLAGS.items():
        value = request.get(name)
        if fits(value, kind) and value not in ("", "auto"):
            line += worded(f"--{name}", value)
    if request.get("compile") is True:
        line.append("--compile")
    tables = request.get("options")
    for owner, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and NAME.fullmatch(owner):
            for name, value in table.items():
                if NAME.fullmatch(name):
                    line += option_words(owner, name, value)
    prompt = request["prompt"]
    return [*line, "--", prompt] if prompt.startswith("-") else [*line, prompt]


def option_words(owner: str, name: str, value: Any) -> list[str]:
    """A plugin's option as words of the command line."""
    flag = options.flag(owner, name)
    if value is None or value == "":
        return []
    if isinstance(value, bool):
        return (
            [flag]
            if value
            else [options.flag(owner, f"no-{name}")]
            if value is False and wide(owner, name)
            else []
        )
    if isinstance(value, list):
        words = [one for one in value if fits(one, int) or fits(one, float) or isinstance(one, str)]
        if fixed(owner, name):
            return [flag, *map(number, words)]
        return [word for one in words for word in worded(flag, one)]
    return worded(flag, value) if isinstance(value, int | float | str) else []


def wide(owner: str, name: str) -> bool:
    """Whether a switch has a `--x-no-name` spelling (it is on unless told otherwise)."""
    one = declared(owner, name)
    return one is not None and bool(one.default or one.optional)


def fixed(owner: str, name: str) -> bool:
    """Whether an option takes several values at once."""
    one = declared(owner, name)
    return one is not None and one.shape == "fixed"


def declared(owner: str, name: str) -> options.Option | None:
    """The declaration of a plugin's option, if that plugin is loaded."""
    from hy_core.plugins import installed as loaded

    kinds = loaded().conditioners()
    if owner not in kinds:
        return None
    return next((one for one in options.fields(kinds[owner].Options) if one.name == name), None)


def fits(value: Any, kind: type) -> bool:
    """Whether an untrusted value is of a flag's type."""
    if isinstance(value, bool) or value is None:
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def worded(flag: str, value: Any) -> list[str]:
    """A flag and its value; a value that begins with a dash is joined to the flag."""
    text = number(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def number(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else repr(value) if isinstance(value, float) else str(value)


def command(found: Mapping[str, Any], more: Iterable[str] = ()) -> str:
    """The shell command (bash, zsh) that makes the clip again, safe to show and to paste."""
    return " ".join(quoted(word) for word in [*arguments(found), *more])


def quoted(word: str) -> str:
    """A word for the shell; characters that a terminal would act on become `$'…'` escapes."""
    if all(visible(c) for c in word):
        return shlex.quote(word)
    return "$'" + "".join(escaped(c) for c in word) + "'"


def visible(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def escaped(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if visible(char):
        return char
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\U{ord(char):08x}")
