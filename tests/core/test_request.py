"""Bad input is refused before anything is loaded, in one line that says what would be right."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hy_core.errors import UsageError
from hy_core.request import Limits, Request, nearest_frames, nearest_sizes
from hypothesis import given
from hypothesis import strategies as st

GOOD = Request("a red circle moves right", width=64, height=64, frames=17, steps=4, seed=1)


def refused(**changes: object) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        replace(GOOD, **changes).validate()
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint or ""


def test_a_good_request_passes() -> None:
    GOOD.validate()
    replace(GOOD, width=1280, height=720, frames=129, guidance=6.0, shift=7.0).validate()


def test_a_wrong_size_names_the_nearest_right_ones() -> None:
    message, hint = refused(width=65, height=64)
    assert "65" in message and "16" in message
    assert "64x64" in hint and "80x64" in hint


def test_wrong_frames_name_the_nearest_right_ones() -> None:
    assert "17 or 21" in refused(frames=18)[1]
    assert "17 or 21" in refused(frames=19)[1] or "21 or 17" in refused(frames=19)[1]
    assert refused(frames=0)[1].endswith("1")


def test_a_prompt_of_ten_thousand_words_names_the_limit() -> None:
    message, hint = refused(prompt="word " * 10_000)
    assert "10000 words" in message and "2000" in message
    assert hint
    refused(negative="word " * 10_000)
    refused(prompt="x" * 1_000_000)


def test_an_empty_prompt_is_refused() -> None:
    refused(prompt=" \n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 100_000),
        ("fps", 0.0),
        ("fps", 1e-6),
        ("fps", float("nan")),
        ("fps", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("cfg", float("nan")),
        ("cfg", -1.0),
        ("guidance", float("inf")),
        ("shift", 0.0),
        ("shift", float("nan")),
        ("width", 0),
        ("height", -16),
        ("frames", -3),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    message, _ = refused(**{name: value})
    assert name in message or "size" in message


@given(width=st.integers(-100, 5000), height=st.integers(-100, 5000))
def test_every_size_offered_is_a_valid_one(width: int, height: int) -> None:
    for size in nearest_sizes(width, height).split(" or "):
        w, h = map(int, size.split("x"))
        replace(GOOD, width=w, height=h).validate()


@given(frames=st.integers(-100, 5000))
def test_every_frame_count_offered_is_a_valid_one(frames: int) -> None:
    offered = [int(one) for one in nearest_frames(frames).split(" or ")]
    for one in offered:
        replace(GOOD, frames=one).validate(Limits())
    assert min(abs(one - frames) for one in offered) <= max(2, 1 - frames)


def test_requests_load_neither_torch_nor_numpy() -> None:
    code = "import sys, hy_core.request, hy_core.settings, hy_core.provenance; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "transformers", "av"} & set(modules)
