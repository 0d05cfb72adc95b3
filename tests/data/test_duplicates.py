"""Near-duplicates: copies of a clip are found after edits, other places and other people are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord, Score
from hy_core.errors import HyError, UsageError
from hy_data.select import match_cache, matching
from hy_data.select.duplicates import DuplicateOptions, find_duplicates, is_duplicate
from hy_data.select.matching import Frames, match
from hy_data.select.pictures import appearance, content_box, stillest, to_luma
from hy_data.select.signature import Signature, decode, encode
from hy_data.stages.embedding import Embedding, SignatureStage
from hy_data.table import read_scores, write_scores

HEIGHT, WIDTH = 160, 240


def scene(seed: int, figure: int | None = None, count: int = 3) -> np.ndarray:
    """Frames of a wall of many shapes, uint8 [T, 160, 240, 3], with a figure before it that moves a little."""
    wall = shapes(np.random.default_rng(seed), HEIGHT, WIDTH)
    frames = np.stack([wall] * count)
    if figure is not None:
        body = shapes(np.random.default_rng(1000 + figure), 130, 100)
        for step, frame in enumerate(frames):
            frame[30:160, 60 + 3 * step : 160 + 3 * step] = body
    return frames


def shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    picture = np.full((height, width, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(60):
        colour = [int(one) for one in rng.integers(0, 256, 3)]
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if rng.random() < 0.5:
            cv2.circle(picture, (x, y), int(rng.integers(4, 20)), colour, -1)
        else:
            end = x + int(rng.integers(5, 40)), y + int(rng.integers(5, 40))
            cv2.rectangle(picture, (x, y), end, colour, -1)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


def compressed(frames: np.ndarray) -> np.ndarray:
    small = [cv2.resize(frame, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA) for frame in frames]
    coded = [cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, 25])[1] for one in small]
    return np.stack([cv2.imdecode(one, cv2.IMREAD_COLOR) for one in coded])


def subtitled(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    for frame in frames:
        cv2.putText(frame, "And then he went home", (20, 150), 0, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return frames


EDITS = {
    "compressed": compressed,
    "cropped": lambda x: x[:, 16:150, 20:225],
    "brighter": lambda x: np.clip(x * 1.2 + 20.0, 0, 255).astype(np.uint8),
    "subtitles": subtitled,
    "bars": lambda x: np.pad(x, ((0, 0), (30, 30), (0, 0), (0, 0))),
    "mirrored": lambda x: np.ascontiguousarray(x[:, :, ::-1]),
    "mirrored and cropped": lambda x: np.ascontiguousarray(x[:, 10:150, 220:10:-1]),
}


def signature(frames: np.ndarray) -> np.ndarray:
    return encode(to_luma(frames), np.arange(len(frames)) / 2, 60)


def seen(frames: np.ndarray) -> Frames:
    return Frames(decode(signature(frames).tobytes()))


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_copy_is_a_duplicate_and_has_nearly_the_same_vector(name: str) -> None:
    original = scene(1, figure=1)
    edited = EDITS[name](original)
    found = match(seen(original), seen(edited))
    assert is_duplicate(found, DuplicateOptions()), found
    assert found.mirrored == ("mirrored" in name)
    assert float(appearance(original) @ appearance(edited)) > DuplicateOptions().candidate


def test_other_places_and_other_people_before_the_same_wall_are_no_duplicates() -> None:
    first = scene(1, figure=1)
    for other in (scene(2, figure=1), scene(1, figure=2)):
        found = match(seen(first), seen(other))
        assert not is_duplicate(found, DuplicateOptions()), found
    wall = match(seen(first), seen(scene(1, figure=2)))
    assert wall.agreement > 0.3, "the wall itself matches"


def test_a_still_place_at_another_time_is_an_option() -> None:
    wall = scene(1)[0]
    first, other = np.stack([wall] * 4), np.stack([wall] * 4)
    for step in range(4):
        first[step, 100:150, 20 + 12 * step : 45 + 12 * step] = shapes(np.random.default_rng(8), 50, 25)
        other[step, 90:150, 190 - 12 * step : 215 - 12 * step] = shapes(np.random.default_rng(9), 60, 25)
    found = match(seen(first), seen(other))
    assert found.agreement > 0.75 > found.motion
    assert is_duplicate(found, DuplicateOptions())
    assert not is_duplicate(found, DuplicateOptions(same_place=False))
    for name in ("mirrored", "compressed"):
        copy = match(seen(first), seen(EDITS[name](first)))
        assert is_duplicate(copy, DuplicateOptions(same_place=False)), copy


def test_blank_pictures_prove_nothing() -> None:
    blank = np.full((2, HEIGHT, WIDTH, 3), 200, np.uint8)
    found = match(seen(blank), seen(blank - 90))
    assert not is_duplicate(found, DuplicateOptions()), found


def test_bars_are_cut_but_not_from_a_dark_scene() -> None:
    frames = to_luma(scene(1))
    assert content_box(np.pad(frames, ((0, 0), (20, 30), (8, 0)))) == (20, 8, 20 + HEIGHT, 8 + WIDTH)
    dark = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    dark[:, 70:90, 100:140] = 255
    assert content_box(dark) == (0, 0, HEIGHT, WIDTH)
    assert content_box(dark * 0) == (0, 0, HEIGHT, WIDTH)


def test_a_trimmed_copy_has_the_same_still_frames() -> None:
    rng = np.random.default_rng(0)
    places = np.cumsum(np.abs(np.sin(np.arange(60) * 0.4)) * 9).astype(
        int
    )  # stops at every eighth frame or so
    wall = to_luma(shapes(rng, 90, 700)[None])[0]
    frames = np.stack([wall[:, place : place + 120] for place in places])
    whole = set(stillest(frames, 6).tolist())
    trimmed = {int(one) + 13 for one in stillest(frames[13:50], 4)}
    assert len(trimmed & whole) >= 3


def test_a_damaged_signature_is_an_error_with_a_fix() -> None:
    good = signature(scene(1)).tobytes()
    pictures = decode(good)
    assert isinstance(pictures, Signature) and pictures.times == (0.0, 0.5, 1.0)
    assert pictures.pictures[0].shape == (HEIGHT, WIDTH)
    for bad in (b"", good[:5], b"XXXX" + good[4:], good[: len(good) // 3], good[:4] + b"\xff\xff" + good[6:]):
        with pytest.raises(HyError, match="signature"):
            decode(bad)


def rows() -> list[dict[str, Any]]:
    """Two clips with copies, one clip without."""
    made = [
        ("a", scene(1, 1), 240, 160, 3.0, 0.9),
        ("b", EDITS["cropped"](scene(1, 1)), 205, 134, 3.0, 0.9),
        ("c", EDITS["mirrored"](scene(1, 1)), 240, 160, 2.0, 0.9),
        ("d", scene(2, 1), 240, 160, 3.0, 0.1),
        ("e", subtitled(scene(2, 1)), 240, 160, 3.0, 0.8),
        ("f", scene(3, 1), 240, 160, 3.0, 0.5),
    ]
    return [
        {
            "id": name, "status": "ok", "width": width, "height": height, "start": 0.0, "stop": stop, "sharp": sharp,
            "embedding": appearance(frames).astype(np.float16), "signature": signature(frames),
        }
        for name, frames, width, height, stop, sharp in made
    ]  # fmt: skip


def scores(path: Path, changed: list[dict[str, Any]], better: Any = "high") -> pa.Table:
    write_scores(changed, path, [("quality", Score("sharp", "how sharp", better))])
    return read_scores(path)


def test_the_best_of_each_group_is_kept(tmp_path: Path) -> None:
    table = scores(tmp_path / "s.parquet", rows())
    found = find_duplicates(table, DuplicateOptions()).to_pydict()
    assert found["id"] == ["b", "c", "e"], "larger, longer, then the first id"
    assert found["duplicate_of"] == ["a", "a", "d"]
    assert found["how"] == ["frames", "mirrored", "frames"]
    assert min(found["similarity"]) > 0.8
    shuffled = table.take(pa.array([3, 5, 1, 0, 4, 2]))
    assert find_duplicates(shuffled, DuplicateOptions()).to_pydict() == found
    by_quality = find_duplicates(table, DuplicateOptions(quality="sharp")).to_pydict()
    assert dict(zip(by_quality["id"], by_quality["duplicate_of"], strict=True)) == {
        "b": "a",
        "c": "a",
        "d": "e",
    }
    low = scores(tmp_path / "low.parquet", rows(), better="low")
    assert find_duplicates(low, DuplicateOptions(quality="sharp"))["id"].to_pylist() == ["b", "c", "e"]


def test_clips_that_are_dropped_already_take_no_part(tmp_path: Path) -> None:
    changed = rows()
    changed[0]["status"] = "filtered"
    changed[4] |= {"status": "failed", "embedding": None, "signature": None}
    table = scores(tmp_path / "s.parquet", changed)
    found = find_duplicates(table, DuplicateOptions()).to_pydict()
    assert (found["id"], found["duplicate_of"]) == (["b"], ["c"])


def test_signatures_come_from_the_file_and_other_limits_compare_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scores(tmp_path / "scores.parquet", rows())
    table = whole.drop_columns(["signature"])
    first = find_duplicates(table, DuplicateOptions(), tmp_path)
    assert first.to_pydict() == find_duplicates(whole, DuplicateOptions()).to_pydict()

    def fail(*_: object) -> None:
        raise AssertionError("compared again")

    monkeypatch.setattr(match_cache, "match", fail)
    assert len(find_duplicates(table, DuplicateOptions(agreement=1.0, overlap=1.0), tmp_path)) < 3
    assert find_duplicates(table, DuplicateOptions(), tmp_path).to_pydict() == first.to_pydict()
    (cached,) = (tmp_path / "cache" / "select").iterdir()
    cached.write_bytes(b"damaged")
    monkeypatch.setattr(match_cache, "match", matching.match)
    assert find_duplicates(table, DuplicateOptions(), tmp_path).to_pydict() == first.to_pydict()


def test_methods_and_missing_columns(tmp_path: Path) -> None:
    table = scores(tmp_path / "s.parquet", rows())
    assert len(find_duplicates(table, DuplicateOptions(method="off"))) == 0
    found = find_duplicates(table, DuplicateOptions(method="vector", certain=0.97)).to_pydict()
    assert {"c", "e"} <= set(found["id"]) and set(found["how"]) == {"vector"}
    with pytest.raises(UsageError, match="no signature"):
        find_duplicates(table.drop_columns(["signature"]), DuplicateOptions(), tmp_path)
    with pytest.raises(UsageError, match="no column embedding"):
        find_duplicates(table.drop_columns(["embedding"]), DuplicateOptions())
    assert len(find_duplicates(table.slice(0, 0), DuplicateOptions())) == 0
    assert len(find_duplicates(table.slice(0, 1), DuplicateOptions())) == 0


def test_the_stages_make_what_is_compared(tmp_path: Path) -> None:
    moving = np.concatenate([scene(1, 1, count=8)] * 2)[:, ::2, ::2]
    moments = [index / 8 for index in range(16)]
    path = timed_clip(tmp_path / "a.mp4", moving, moments)
    copy = timed_clip(tmp_path / "b.mp4", np.ascontiguousarray(moving[3:, :, ::-1]), moments[:13])
    made = []
    for name, file in (("a", path), ("b", copy)):
        record = ClipRecord(file)
        for stage in (Embedding(), SignatureStage()):
            stage.setup()
            (record,) = stage.run(record)
            assert record.rejected is None
        assert record.vectors["embedding"].dtype == np.float16
        assert np.linalg.norm(record.vectors["embedding"].astype(float)) == pytest.approx(1, abs=1e-2)
        assert record.vectors["signature"].dtype == np.uint8
        made.append({"id": name, "status": "ok", **record.vectors})
    table = scores(tmp_path / "s.parquet", made)
    (found,) = find_duplicates(table, DuplicateOptions()).to_pylist()
    assert (found["id"], found["duplicate_of"], found["how"]) == ("b", "a", "mirrored")
