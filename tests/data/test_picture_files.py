"""Picture files beside videos as input of a run: they are clips of one frame, for the sets of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_data import recipe as recipes
from hy_data.engine.run import run
from hy_data.formats.export import export_set
from hy_data.frames import ClipFrames, View
from hy_data.source import SetSource
from hy_data.table import read_scores
from PIL import Image

STAGES = "probe shots sharp-start borders quality motion aesthetics overlay camera-motion embedding signature"
LIMITS = {"scene_boundary": {"max": 0.5}, "overlay_area": {"max": 0.02, "missing": "keep"}}


def scene(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth random picture, uint8 [H, W, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def raw_folder(folder: Path) -> None:
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter turn to the right
    Image.fromarray(scene(0)).save(folder / "turned.jpg", exif=turned, quality=95)
    Image.fromarray(scene(1)).save(folder / "plain.png")
    Image.fromarray(scene(2)).save(folder / "modern.WEBP", format="WEBP")
    Image.fromarray(scene(3, 20, 20)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (folder / "notes.pdf").write_bytes(b"%PDF")
    wide = scene(1, 96, 176)  # the picture plain.png is a part of this clip's frames
    frames = np.stack([wide[:, 2 * at : 2 * at + 128] for at in range(24)])
    timed_clip(folder / "clip.mp4", frames, [at / 12 for at in range(24)])


def test_pictures_and_videos_become_sets_of_pictures_in_one_run(tmp_path: Path) -> None:
    raw_folder(tmp_path / "raw")
    image = {"kind": "image", "height": 64, "width": 64, "limits": LIMITS, "pictures": 2}
    video = {"height": 64, "width": 64, "frames": 9}
    table = {"stages": STAGES.split(), "sets": {"clips": video, "images": image}}
    report = run(tmp_path / "raw", tmp_path / "out", recipes.parse(table))
    assert report.clips == {"ok": 4, "filtered": 1, "failed": 1}
    assert "1 .pdf" in report.notes[0]
    rows = {
        Path(row["path"]).name: row for row in read_scores(tmp_path / "out" / "manifest.parquet").to_pylist()
    }
    assert "not a picture" in rows["broken.jpg"]["reason"] or "cannot be read" in rows["broken.jpg"]["reason"]
    assert rows["small.png"]["reason"] == "20x20 pixels, smaller than 64"
    turned = rows["turned.jpg"]
    assert (turned["height"], turned["width"], turned["frames"], turned["stop"]) == (128, 96, 1, None)
    assert turned["camera_motion"] == "unsure" and turned["motion_speed"] is None and turned["sharpness"] > 0
    assert {name for name, row in rows.items() if row["kept_clips"]} == {"clip.mp4"}
    assert rows["plain.png"]["duplicate_of"] is None and rows["clip.mp4"]["duplicate_of"] is None
    chosen = read_scores(tmp_path / "out" / "sets" / "images.parquet").to_pylist()
    assert sorted((Path(row["path"]).name, row["time"] is None) for row in chosen) == [
        ("clip.mp4", False),
        ("clip.mp4", False),
        ("modern.WEBP", True),
        ("plain.png", True),
        ("turned.jpg", True),
    ]
    source = SetSource(tmp_path / "out", "images")
    assert len(source) == 5 and all(clip.video().shape[0] == 1 for clip in source)
    exported = export_set(tmp_path / "out", "images", "folder", tmp_path / "folder")
    assert exported.clips == 5 and not exported.failed
    sizes = sorted(Image.open(path).size for path in exported.files)
    assert sizes.count((96, 128)) == 1


def test_frame_stages_see_a_picture_file_as_one_frame(tmp_path: Path) -> None:
    Image.fromarray(scene(4)).save(tmp_path / "a.png")
    views = [View(48), View(48, fps=12, gray=True), View(48, count=4), View(96)]
    frames = ClipFrames(ClipRecord(tmp_path / "a.png", crop=(0, 0, 64, 96)), views)
    assert [frames[view].shape for view in views] == [
        (1, 48, 32, 3),
        (1, 48, 32),
        (1, 48, 32, 3),
        (1, 96, 64, 3),
    ]
    np.testing.assert_array_equal(frames[views[3]][0], scene(4)[:, :64])
    assert frames.duration == 0 and frames.size == (96, 64)
    with pytest.raises(HyError, match="too small for the crop"):
        _ = ClipFrames(ClipRecord(tmp_path / "a.png", crop=(0, 0, 640, 96)), views)[views[0]]
