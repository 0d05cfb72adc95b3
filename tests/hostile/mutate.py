"""Damage bytes and values, the same way for the same seed."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

_INTEGERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 62,
    (1 << 64) - 1,
)
STRANGE: tuple[Any, ...] = (
    *(
        0,
        -1,
        1,
        2,
        10**8,
        2**31,
        2**63,
        10**30,
        -(10**30),
        0.5,
        -0.0,
        1e308,
        1e-308,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        " ",
        "a" * 100_000,
        "\0",
        "\ud800",
        "\x85\u2028\x0b",
        "../../etc/passwd",
        "/dev/zero",
        "http://127.0.0.1:9/x",
    ),
    *(
        "$(touch SENTINEL)",
        "`touch SENTINEL`",
        "; touch SENTINEL",
        "%s%n{0}",
        "~nouser/x",
        "nan",
        "1e999",
        "-o",
    ),
    *(None, True, False, [], {}, [[]], {"a": {"b": []}}, [1] * 1000),
)


def strange(random: Random) -> Any:
    """One of the strange values, a copy that may be changed."""
    return deepcopy(random.choice(STRANGE))


def nested(depth: int) -> Any:
    """A list in a list and so on."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def bytes_of(content: bytes, random: Random, within: int | None = None) -> bytes:
    """Change some bytes of a file: flips, numbers, cuts, repeats, insertions; `within` the first of them only."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        limit = max(1, min(len(changed), within or len(changed)))
        at = random.randrange(limit)
        kind = random.randrange(7)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << random.randrange(8)
        elif kind == 1:
            width = random.choice((1, 2, 4, 8))
            order = random.choice(("little", "big"))
            number = random.choice(_INTEGERS) % (1 << 8 * width)
            changed[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + random.randrange(1, 64)]
        elif kind == 4:
            changed[at:at] = random.randbytes(random.randrange(1, 64))
        elif kind == 5:
            part = changed[at : at + random.randrange(1, 256)]
            changed[at:at] = part * random.randrange(1, 4)
        else:
            length = random.randrange(1, 128)
            changed[at : at + length] = bytes([random.choice((0, 255, 32))]) * length
    return bytes(changed)


def values_of(data: Any, random: Random) -> Any:
    """Change one or more values somewhere in nested dictionaries and lists, in a copy."""
    copy = json.loads(json.dumps(data))
    for _ in range(random.choice((1, 1, 1, 3))):
        place, key = _place(copy, random)
        if place is None:
            return strange(random)
        kind = random.randrange(8)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[random.choice(("", "a\nb", "x" * 3000, "__class__", "auto_map", "type"))] = strange(random)
        elif kind == 2:
            place[key] = nested(random.choice((10, 900, 20_000)))
        else:
            place[key] = strange(random)
    return copy


def _place(data: Any, random: Random) -> tuple[Any, Any]:
    """A container in the data and one of its keys or indices."""
    place, key = None, None
    while isinstance(data, dict | list) and data:
        place, key = (
            data,
            random.choice(list(data)) if isinstance(data, dict) else random.randrange(len(data)),
        )
        data = data[key]
        if random.random() < 0.25:
            break
    return place, key


def json_text(data: Any, random: Random) -> bytes:
    """A changed value as JSON, sometimes in a wrong encoding or cut short."""
    text = dumped(values_of(data, random))
    content = text.encode(errors="surrogatepass")
    return bytes_of(content, random) if random.random() < 0.3 else content


def dumped(data: Any) -> str:
    """JSON of any depth."""
    try:
        return json.dumps(data)
    except RecursionError:
        return "[" * 100_000 + "]" * 100_000
