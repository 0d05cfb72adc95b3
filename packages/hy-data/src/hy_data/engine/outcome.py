"""What a stage found out about a clip, as workers send it and the ledger stores it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from hy_core.data import JSON, ClipRecord

Status = Literal["ok", "filtered", "failed"]
CLIPS = "clips"
"""The result of a stage that makes several clips of one: a list of their records."""


@dataclass(frozen=True)
class Outcome:
    """The end of one stage for one clip.

    `results` are plain JSON, `vectors` arrays. `reason` tells why a clip was filtered or has failed. `is_final`: the
    clip can't even go through the other stages of the same group. `tries` counts workers that died or hung.
    """

    status: Status = "ok"
    results: Mapping[str, JSON] = field(default_factory=dict)
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    reason: str | None = None
    is_final: bool = False
    tries: int = 1
    seconds: float = 0.0

    def results_text(self) -> str:
        """`results` as JSON with sorted keys."""
        return json.dumps(self.results, sort_keys=True) if self.results else ""

    def vectors_bytes(self) -> bytes | None:
        """`vectors` in the format of safetensors, None without any."""
        if not self.vectors:
            return None
        return safetensors.numpy.save(dict(sorted(self.vectors.items())))


def split_results(found: Mapping[str, Any]) -> tuple[dict[str, JSON], dict[str, np.ndarray]]:
    """Return results as plain JSON, and the arrays, of any shape, among them; `ValueError` for what is neither."""
    plain: dict[str, JSON] = {}
    vectors: dict[str, np.ndarray] = {}
    for name, value in found.items():
        if isinstance(value, np.generic):
            plain[str(name)] = value.item()
        elif hasattr(value, "__array__"):
            vectors[str(name)] = np.ascontiguousarray(value)
        else:
            plain[str(name)] = value
    try:
        plain = json.loads(json.dumps(plain, default=_plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a result is not JSON ({error})") from None
    return plain, vectors


def children_of(parent: ClipRecord, children: list[ClipRecord]) -> Outcome:
    """Return the outcome of a stage that makes records of one; only what differs from the parent is stored."""
    rows: list[JSON] = []
    vectors: dict[str, np.ndarray] = {}
    known = parent.to_json()
    for number, child in enumerate(children):
        plain, _ = split_results({**child.to_json(), "captions": list(child.captions)})
        row = {name: one for name, one in plain.items() if name not in known or known[name] != one}
        row.pop("path", None)
        rows.append(row)
        for name, array in child.vectors.items():
            vectors[f"{number}/{name}"] = np.ascontiguousarray(array)
    return Outcome(results={CLIPS: rows}, vectors=vectors)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"{type(value).__name__} {str(value)[:40]!r}")
