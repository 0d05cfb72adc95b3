"""hy data run beside a plain PySceneDetect and OpenCV loop, and the whole offline recipe with one and two workers.

    OMP_NUM_THREADS=1 python benchmarks/data.py [--files 2] [--height 720] [--shot 6]

Videos are montages of real clips. The loop does what such scripts do: it finds the shots, then opens and decodes each
of them again for every measure (sharpness, start, borders, flow), in one process with OpenCV's own threads. Prints a
Markdown table: clips a second of wall time, seconds of video by processor seconds, and the largest process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

import montage

SAME = ("probe", "shots", "sharp-start", "borders", "quality", "motion")
"""The stages that measure what the loop measures."""


class Run(NamedTuple):
    """What one run took: clips, seconds of wall and processor, and MB of the largest process."""

    clips: int
    wall: float
    processor: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--shot", type=float, default=6.0, help="seconds of each shot")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        for seed in range(args.files):
            span = (args.shot, args.shot)
            montage.make_montage(
                raw / f"{seed}.mp4", seed, args.height, cuts=5, dissolves=0, fades=0, seconds=span
            )
        seconds = sum(length(path) for path in raw.iterdir())
        rows = {
            "loop of PySceneDetect and OpenCV": loop(raw),
            "hy data run, same measures, 2 workers": ours(raw, Path(folder) / "same", 2, SAME),
            "hy data run, all of recipe video, 1 worker": ours(raw, Path(folder) / "one", 1),
            "hy data run, all of recipe video, 2 workers": ours(raw, Path(folder) / "two", 2),
        }
    print(f"{seconds:.0f} s of video in {args.files} files, {args.height}p\n")
    print("| Run | clips | clips/s | real time by core | largest process, MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, run in rows.items():
        speed = f"{run.clips / run.wall:.2f} | {seconds / run.processor:.2f} | {run.megabytes:.0f}"
        print(f"| {name} | {run.clips} | {speed} |")
    first, same, one, two = rows.values()
    print(
        f"\nsame measures, clips/s by the loop's: {same.clips / same.wall / (first.clips / first.wall):.2f}"
    )
    print(f"two workers by one: {one.wall / two.wall:.2f}")


def loop(folder: Path) -> Run:
    """Find shots, then decode each of them once for each measure."""
    from scenedetect import AdaptiveDetector, detect

    wall, processor, clips = time.monotonic(), time.process_time(), 0
    for path in sorted(folder.iterdir()):
        for begin, end in detect(str(path), AdaptiveDetector()):
            clips += 1
            span = begin.seconds, end.seconds
            [cv2.Laplacian(frame, cv2.CV_64F).var() for frame in grey(path, *span)]
            max(
                cv2.Laplacian(frame, cv2.CV_64F).var()
                for frame in grey(path, span[0], min(span[0] + 1, span[1]))
            )
            [(frame.min(0).max(), frame.min(1).max()) for frame in grey(path, *span)]
            dis, last = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST), None
            for number, frame in enumerate(grey(path, *span)):
                if number % 2 == 0:  # 12 of 25 frames a second, as the stage motion
                    scale = 256 / max(frame.shape)
                    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                    if last is not None:
                        np.abs(dis.calc(last, small, None)).mean()
                    last = small
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Run(clips, time.monotonic() - wall, time.process_time() - processor, usage.ru_maxrss / 1024)


def grey(path: Path, begin: float, end: float) -> Iterator[np.ndarray]:
    """Decode a span by OpenCV, as grey frames."""
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS)
    video.set(cv2.CAP_PROP_POS_FRAMES, round(begin * rate))
    for _ in range(round((end - begin) * rate)):
        read, frame = video.read()
        if not read:
            break
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    video.release()


def ours(folder: Path, out: Path, workers: int, stages: tuple[str, ...] | None = None) -> Run:
    """Run `hy data run` in a process of its own; processor time and memory are those of it and its workers."""
    recipe = "video"
    if stages:
        file = out.with_suffix(".toml")
        file.write_text(
            f"stages = {json.dumps(stages)}\n[sets.all]\nheight = 256\nwidth = 256\nframes = 65\nfps = 24\n"
        )
        recipe = str(file)
    command = [
        sys.executable,
        "-m",
        "hy_core",
        "data",
        "run",
        str(folder),
        "-o",
        str(out),
        "--recipe",
        recipe,
    ]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*command, "--workers", str(workers), "--json", "-q"], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    wall = time.monotonic() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    from hy_data.table import read_scores

    clips = read_scores(out / "scores.parquet", ["clip"]).num_rows
    return Run(clips, wall, processor, after.ru_maxrss / 1024)


def length(path: Path) -> float:
    """Seconds of a video."""
    from hy_core.media import timeline

    return float(timeline.measure(path).duration)


if __name__ == "__main__":
    main()
