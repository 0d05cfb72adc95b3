"""Text, overlays, sensitive content and faces on real clips: how much is found, what is found falsely, what it costs.

    python benchmarks/data_detect.py text FOLDER           # burned-in subtitles found and cropped away
    python benchmarks/data_detect.py overlay FOLDER        # burned-in logos found
    python benchmarks/data_detect.py sensitive FOLDER      # harmless frames that count as sensitive
    python benchmarks/data_detect.py cost FOLDER           # CPU seconds of each stage

FOLDER holds harmless videos of any kind without subtitles or logos of their own; of each, 60 s at most are used.
Times are CPU seconds of one thread; run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import matplotlib
import numpy as np
import scenedetect
import skimage.data
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_core.media import timeline
from hy_data.frames import ClipFrames, FrameStage, View
from hy_data.stages.faces import Faces
from hy_data.stages.overlay import Overlay
from hy_data.stages.sensitive import Sensitive
from hy_data.stages.text import Text
from PIL import Image, ImageDraw, ImageFont

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
SUFFIXES = {".mp4", ".avi", ".mpg", ".mpeg", ".webm", ".mkv", ".mov"}
LINES = (
    "I thought we had more time.",
    "Where are you going tonight?",
    "He said the bridge was closed,\nso we walked along the river.",
    "No.",
    "Я не знаю, что сказать.",
    "That is 42 miles from here!",
    "¿Dónde está la estación?",
    "Please don't leave me here\nwith all of these people.",
)


def videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def spans(folder: Path, seconds: float, most: int) -> Iterator[tuple[Path, float, float]]:
    """Up to `most` parts of each video, with their starts and stops."""
    for path in videos(folder):
        try:
            whole = min(timeline.measure(path).duration, 60.0)
        except HyError:
            continue
        count = max(1, min(most, int(whole / seconds)))
        for start in np.linspace(0, max(0.0, whole - seconds), count):
            yield path, float(start), float(min(start + seconds, whole))


def decoded(path: Path, start: float, stop: float) -> list[np.ndarray]:
    """Frames with even sides, at most 15 a second."""
    frames = list(timeline.frames_at(path, 15.0, span=(start, stop)))
    return [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]


def write(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(
            "libx264", rate=15, options={"crf": "23", "preset": "veryfast", "threads": "1"}
        )
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        out.mux(stream.encode(None))


def drawn(
    size: tuple[int, int], text: str, rng: np.random.Generator, top: bool
) -> tuple[Image.Image, np.ndarray]:
    """A picture with alpha of one subtitle in one of four looks, and where it is opaque, bool [H, W]."""
    height, width = size
    name = rng.choice(["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf"])
    share = rng.uniform(0.04, 0.06)
    font = ImageFont.truetype(str(FONTS / str(name)), max(9, round(height * share)))
    look = rng.integers(4)
    picture = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(picture)
    stroke = max(1, round(height * 0.004)) if look in (0, 1) else 0
    box = pen.multiline_textbbox((0, 0), text, font=font, stroke_width=stroke, align="center")
    while box[2] - box[0] > width * 0.94:
        font = font.font_variant(size=font.size * 0.9)
        box = pen.multiline_textbbox((0, 0), text, font=font, stroke_width=stroke, align="center")
    left = (width - box[2] + box[0]) / 2 - box[0]
    gap = height * rng.uniform(0.02, 0.04)
    above = gap - box[1] if top else height - gap - box[3]
    if look == 3:
        edge = height * 0.01
        pen.rectangle(
            (left + box[0] - edge, above + box[1] - edge, left + box[2] + edge, above + box[3] + edge),
            (0, 0, 0, 160),
        )
    colour = (255, 230, 60, 255) if look == 1 else (255, 255, 255, 255)
    if look == 2:
        pen.multiline_text((left + 1, above + 1), text, (0, 0, 0, 255), font, align="center")
    pen.multiline_text(
        (left, above), text, colour, font, align="center", stroke_width=stroke, stroke_fill=(0, 0, 0, 255)
    )
    return picture, np.asarray(picture)[..., 3] > 0


def burned(
    frames: list[np.ndarray], kind: str, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames with subtitles, all of the time (`whole`), changing twice, or for 25% of it (`part`); where they are."""
    size, top = frames[0].shape[:2], rng.random() < 0.2
    count = len(frames)
    cues = {
        "whole": [(0, count)],
        "changing": [(0, count // 3), (count // 3, 2 * count // 3), (2 * count // 3, count)],
        "part": [(first := int(rng.uniform(0, 0.75) * count), first + int(0.25 * count))],
    }[kind]
    shown, where = list(frames), np.zeros(size, bool)
    for start, stop in cues:
        layer, mask = drawn(size, LINES[rng.integers(len(LINES))], rng, top)
        where |= mask
        for index in range(start, stop):
            base = Image.fromarray(frames[index]).convert("RGBA")
            shown[index] = np.asarray(Image.alpha_composite(base, layer).convert("RGB"))
    return shown, where


def text(folder: Path, arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    stage = Text(frames=arguments.frames, height=arguments.height)
    totals = {kind: np.zeros(4) for kind in ("none", "whole", "changing", "part")}
    kept: list[float] = []
    spent = 0.0
    with tempfile.TemporaryDirectory() as home:
        for number, (path, start, stop) in enumerate(spans(folder, arguments.seconds, arguments.most)):
            frames = decoded(path, start, stop)
            for kind, total in totals.items():
                shown, where = (
                    (frames, np.zeros(frames[0].shape[:2], bool))
                    if kind == "none"
                    else burned(frames, kind, rng)
                )
                file = Path(home) / "clip.mp4"
                write(file, shown)
                began = time.process_time()
                (record,) = stage.run(ClipRecord(file))
                spent += time.process_time() - began
                crop = record.crop or (0, 0, where.shape[1], where.shape[0])
                left = int(where[crop[1] : crop[3], crop[0] : crop[2]].sum())
                share = (crop[2] - crop[0]) * (crop[3] - crop[1]) / where.size
                found = bool(record.results["subtitles"])
                total += [1, found, record.crop is not None, left == 0]
                kept.append(share)
                if kind != "none" and left or kind == "none" and found:
                    what = f"found {found}, {left} of {where.sum()} pixels left, {share:.2f} kept"
                    print(f"{number:3} {path.name} {start:.1f} {kind}: {what}")
    clips = sum(total[0] for total in totals.values())
    print("\n| subtitles | clips | found | cropped | nothing left |\n| --- | --- | --- | --- | --- |")
    for kind, (count, *shares) in totals.items():
        print(f"| {kind} | {count:.0f} | " + " | ".join(f"{one / count:.1%}" for one in shares) + " |")
    print(f"\nsmallest share kept {min(kept):.3f}; {spent / clips:.2f} CPU s per clip")


def harmless(folder: Path, height: int) -> Iterator[tuple[str, np.ndarray]]:
    """24 frames of each video as the stage sees them, and the colour photographs and charts of scikit-image."""
    view = View(height, count=24)
    for path in videos(folder):
        span = (0.0, min(timeline.measure(path).duration, 60.0))
        for frame in ClipFrames(ClipRecord(path, span), [view])[view]:
            yield path.name, frame
    for name in (
        "astronaut",
        "chelsea",
        "coffee",
        "colorwheel",
        "rocket",
        "logo",
        "immunohistochemistry",
        "retina",
    ):
        yield name, np.ascontiguousarray(getattr(skimage.data, name)()[..., :3])


def sensitive(folder: Path, arguments: argparse.Namespace) -> None:
    stage = Sensitive()
    classifier, detector = stage._models
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for name, frame in harmless(folder, stage.options.height):
        chance = float(classifier.score(frame[None])[0])
        both = stage._agreement(chance, detector, frame)
        scores.setdefault(name, []).append((chance, detector.score(frame), both))
    rows = np.concatenate([np.asarray(one) for one in scores.values()])
    clips = [
        np.sort(np.asarray(one)[part::6, 2])[-2:][0]
        for one in scores.values()
        for part in range(6)
        if len(one) > 20
    ]
    for name, one in scores.items():
        high = np.asarray(one).max(0)
        print(f"{name}: Open-NSFW at most {high[0]:.2f}, NudeNet {high[1]:.2f}, both {high[2]:.2f}")
    print("\n| rule | harmless frames | over the limit |\n| --- | --- | --- |")
    nsfw, nudity = stage.options.nsfw, stage.options.nudity
    print(f"| Open-NSFW alone | {len(rows)} | {(rows[:, 0] >= nsfw).mean():.2%} |")
    print(f"| NudeNet alone | {len(rows)} | {(rows[:, 1] >= nudity).mean():.2%} |")
    print(f"| both | {len(rows)} | {(rows[:, 2] >= 1).mean():.2%} |")
    print(f"| both, two of four frames | {len(clips)} clips | {np.mean(np.asarray(clips) >= 1):.2%} |")


def overlay(folder: Path, arguments: argparse.Namespace) -> None:
    rng, stage = np.random.default_rng(0), Overlay()
    totals = {opacity: np.zeros(4, int) for opacity in (0, 90, 150, 255)}
    with tempfile.TemporaryDirectory() as home:
        for path in videos(folder):
            for start, stop in shots(path):
                frames = decoded(path, start, stop)
                for opacity, total in totals.items():
                    layer, box = logo(frames[0].shape[:2], opacity, rng)
                    file = Path(home) / "clip.mp4"
                    bases = [Image.fromarray(frame).convert("RGBA") for frame in frames]
                    write(
                        file,
                        [np.asarray(Image.alpha_composite(base, layer).convert("RGB")) for base in bases],
                    )
                    (record,) = stage.run(ClipRecord(file))
                    found = np.asarray(record.results.get("overlay_box", [1, 1, 0, 0]), float)
                    middle = (box[:2] + box[2:]) / 2
                    hit = (found[:2] - 0.02 <= middle).all() and (middle <= found[2:] + 0.02).all()
                    kind = record.results["overlay"]
                    total += [kind == "unknown", kind != "unknown", kind == "logo", kind == "logo" and hit]
    print(
        "\n| opacity | static camera: unknown | moving | logo found | at its place |\n| --- | --- | --- | --- | --- |"
    )
    for opacity, (unknown, moving, found, hit) in totals.items():
        print(f"| {opacity / 255:.0%} | {unknown} | {moving} | {found / moving:.0%} | {hit / moving:.0%} |")


def shots(path: Path) -> list[tuple[float, float]]:
    """Up to five parts of at most 4 s, without cuts, of a video."""
    found = scenedetect.detect(str(path), scenedetect.AdaptiveDetector(), start_in_scene=True)
    ends = [(first.seconds + 0.1, last.seconds - 0.1) for first, last in found]
    starts = [(at, min(at + 4, stop)) for start, stop in ends for at in np.arange(start, stop - 1, 4)]
    return starts[:5]


def logo(size: tuple[int, int], opacity: int, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A picture with alpha of a word in a corner, and its box in shares of the picture."""
    height, width = size
    picture = Image.new("RGBA", (width, height))
    font = ImageFont.truetype(
        str(FONTS / "DejaVuSans-Bold.ttf"), max(9, round(height * rng.uniform(0.04, 0.08)))
    )
    word = str(rng.choice(["HYTV", "NEWS 24", "@clips", "stock.example", "LIVE"]))
    pen = ImageDraw.Draw(picture)
    box = np.asarray(pen.textbbox((0, 0), word, font=font))
    gap, corner = height * 0.04, rng.integers(2, size=2)
    place = np.where(corner == 0, gap, np.asarray([width, height]) - gap - (box[2:] - box[:2]))
    pen.text(tuple(place - box[:2]), word, (255, 255, 255, opacity), font)
    return picture, np.concatenate([place, place + box[2:] - box[:2]]) / [width, height, width, height]


def cost(folder: Path, arguments: argparse.Namespace) -> None:
    stages: list[FrameStage] = [Text(), Overlay(), Faces(), Sensitive()]
    for stage in stages:
        stage.setup()
    spent = {stage.name: list[float]() for stage in stages}
    for path, start, stop in spans(folder, arguments.seconds, arguments.most):
        record = ClipRecord(path, (start, stop))
        frames = ClipFrames(record, [view for stage in stages for view in stage.views()])
        _ = frames.size, frames[stages[0].views()[0]]
        for stage in stages:
            began = time.process_time()
            stage.measure(record, frames)
            spent[stage.name].append(time.process_time() - began)
    print("| stage | frames | clips | CPU s per clip, median |\n| --- | --- | --- | --- |")
    for stage in stages:
        times = spent[stage.name]
        print(f"| {stage.name} | {stage.options.frames} | {len(times)} | {np.median(times):.2f} |")


def main() -> None:
    commands: dict[str, Callable[[Path, argparse.Namespace], None]] = {
        "text": text, "overlay": overlay, "sensitive": sensitive, "cost": cost
    }  # fmt: skip
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=commands)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=3, help="parts of each video")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a part")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--height", type=int, default=360)
    arguments = parser.parse_args()
    commands[arguments.what](arguments.folder, arguments)


if __name__ == "__main__":
    main()
