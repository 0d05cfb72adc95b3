"""A file says how it was made; the command it gives makes it again; a stranger's record can do no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hy_core import media, provenance
from hy_core.errors import HyError
from hy_core.request import Request

REQUEST = Request(
    "a red circle moves right", width=64, height=48, frames=17, fps=8.0, steps=4, seed=7, cfg=2.5
)


def test_the_record_is_the_same_for_the_same_run() -> None:
    one, two = (
        provenance.dumps(provenance.record(REQUEST, {"dit": "abc"}, "cpu", "float32")) for _ in range(2)
    )
    assert one == two
    found = json.loads(one)
    assert found["weights"] == {"dit": "abc"} and found["ran_on"] == {"device": "cpu", "dtype": "float32"}
    assert "hy-core" in found["versions"] and "torch" in found["versions"]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.webp", "a.jpg"])
def test_every_container_keeps_the_record(tmp_path: Path, name: str) -> None:
    made_by = provenance.record(replace(REQUEST, prompt="ein Kreis: „größer“ 圆 \t"))
    frames = np.zeros((1 if name[2:] in ("png", "webp", "jpg") else 3, 32, 32, 3), np.uint8)
    media.write(tmp_path / name, frames, 8, comment=provenance.dumps(made_by))
    assert provenance.read(tmp_path / name) == made_by


def test_a_file_without_a_record_is_one_line(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.mp4", np.zeros((3, 32, 32, 3), np.uint8), 8)
    with pytest.raises(HyError, match="doesn't say how it was made"):
        provenance.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "made with love",
        "[1]",
        "{}",
        '{"hy": "1"}',
        '{"hy": 1}',
        '{"hy": 1, "request": {"prompt": 3}}',
        '{"hy": 99, "request": {"prompt": "x"}}',
        '{"hy": ' + "9" * 10_000 + "}",
        '{"hy": 1, "request": ' + "[" * 100_000,
        "{" + " " * provenance.MOST_BYTES,
        "null",
    ],
)
def test_comments_of_others_are_one_line(text: str) -> None:
    with pytest.raises(HyError) as caught:
        provenance.parse(text, "a.mp4")
    assert "a.mp4" in caught.value.message and len(caught.value.message) < 200


def test_the_record_holds_plugins_and_counts_pictures(tmp_path: Path) -> None:
    plugins = [{"name": "dawn", "path": "/x/dawn.py", "sha256": "0" * 64}]
    made = provenance.record(REQUEST, plugins=plugins)
    assert made["plugins"] == plugins and "plugins" not in provenance.record(REQUEST)
    assert json.loads(provenance.dumps(made, 17))["pictures"] == 17
    assert "pictures" not in json.loads(provenance.dumps(made))
