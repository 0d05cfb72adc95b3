"""Tables of scores of clips that nobody filmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.data import Score
from hy_data.table import write_scores

SCORES = (
    ("quality", Score("blur", "sharpness of the picture", "high")),
    ("quality", Score("noise", "noise of the picture", "low")),
    ("motion", Score("motion", "speed of the picture", "high", "px")),
    ("text", Score("text_area", "share of the picture that is text", "low")),
    ("people", Score("people", "how many people are seen", "")),
)
SIZES = [(144, 256), (272, 480), (360, 640), (720, 1280), (1080, 1920)]


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of a table of scores, sorted by id; every tenth failed or was filtered."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = SIZES[rng.integers(len(SIZES))]
        frames = int(rng.integers(20, 300))
        start = float(rng.integers(0, 100))
        row: dict[str, Any] = {
            "id": f"{number:016x}",
            "content": f"{number // 3:016x}",
            "path": f"raw/{number // 3}.mp4",
            "start": start,
            "stop": start + frames / 25,
            "width": width,
            "height": height,
            "fps": 25.0,
            "frames": frames,
            "has_audio": bool(number % 2),
            "status": "ok",
            "tries": 1,
        }
        if number % 20 == 7:
            row |= {"status": "failed", "stage": "probe", "reason": "probe: no frames"}
        elif number % 20 == 17:
            row |= {"status": "filtered", "stage": "borders", "reason": "borders: nothing is left"}
        else:
            row |= {
                "blur": float(rng.normal(50, 15)),
                "noise": float(rng.random()),
                "motion": float(rng.gamma(2.0)),
                "text_area": float(max(rng.normal(-0.1, 0.1), 0)),
                "people": int(rng.integers(0, 8)),
                "camera": str(rng.choice(["static shot", "pan left", "zoom in"])),
            }
        yield row


def write(folder: Path, count: int, seed: int = 0) -> None:
    write_scores(rows(count, seed), folder / "scores.parquet", SCORES)


RECIPE: dict[str, Any] = {
    "sets": {
        "360p": {
            "height": 360,
            "width": 640,
            "frames": 65,
            "from": "256p",
            "keep": 0.4,
            "scores": ["blur", "noise", "motion"],
        },
        "256p": {
            "height": 256,
            "width": 256,
            "frames": 65,
            "limits": {"text_area": {"max": 0.05}},
            "keep": 0.5,
            "scores": ["blur", "motion"],
        },
        "pictures": {
            "kind": "image",
            "height": 256,
            "width": 256,
            "pictures": 2,
            "limits": {"camera": {"none": ["zoom in"]}, "people": {"min": 1, "max": 5}},
        },
    }
}
