"""Processor seconds of the offline visual stages for a second of clip, beside the one decoding they share.

    OMP_NUM_THREADS=1 python benchmarks/visual_stages.py VIDEO [--seconds 5] [--repeats 3]

Prints a Markdown table; the file is cut into spans of so many seconds. Medians; a real-time factor is seconds of clip
by processor seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

from hy_core.data import ClipRecord
from hy_core.media import timeline
from hy_data.frames import ClipFrames
from hy_data.stages.aesthetics import Aesthetics
from hy_data.stages.borders import Borders
from hy_data.stages.motion import Motion
from hy_data.stages.probe import Probe
from hy_data.stages.quality import Quality
from hy_data.stages.sharp_start import SharpStart
from hy_data.stages.shots import Shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    whole = ClipRecord(args.video)
    duration = timeline.measure(args.video).duration
    count = max(int(duration // args.seconds), 1)
    length = min(args.seconds, duration)
    clips = [ClipRecord(args.video, (i * length, (i + 1) * length)) for i in range(min(count, 6))]
    stages = [Borders(), Quality(), Motion(), Aesthetics()]
    spent: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, seconds: float, call: object) -> None:
        begin = time.process_time()
        call()  # type: ignore[operator]
        spent[name].append((time.process_time() - begin) / seconds)

    for _ in range(args.repeats):
        timed("probe (whole file)", duration, lambda: Probe().found(whole))
        timed("shots (whole file)", duration, lambda: Shots().detect(whole))
        for clip in clips:
            timed("sharp-start", length, lambda clip=clip: SharpStart().found(clip))
            frames = ClipFrames(clip, {view for stage in stages for view in stage.views()})
            timed("decoding for the next four", length, lambda frames=frames: frames.size)
            for stage in stages:
                timed(
                    stage.name,
                    length,
                    lambda stage=stage, frames=frames: stage.measure(frames.record, frames),
                )
    print("| Stage | CPU ms a clip second | x real time |")
    print("| --- | ---: | ---: |")
    total = 0.0
    for name, values in spent.items():
        value = statistics.median(values)
        total += value
        print(f"| {name} | {1000 * value:.1f} | {1 / max(value, 1e-9):.0f} |")
    print(f"| all | {1000 * total:.1f} | {1 / total:.1f} |")


if __name__ == "__main__":
    main()
