"""How well and how fast the stage `shots` finds transitions: montages of real clips with 12 cuts, 5 dissolves, 2 fades.

    OMP_NUM_THREADS=1 python benchmarks/shots.py                          # 10 montages at 360 pixels
    # speed on shots of 10 s
    OMP_NUM_THREADS=1 python benchmarks/shots.py --height 720 --shot 10 --seeds 1 --transitions 3 2 1
    python benchmarks/shots.py --clips FOLDER                             # with the single shots of a folder

Prints a Markdown table. A transition is found if it is within 2 frames. Speed is seconds of video by processor seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from hy_core.data import ClipRecord
from hy_data.stages.shots import Shots

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

import montage

KINDS: dict[str, dict[str, str]] = {
    "adaptive": {},
    "content": {"backend": "content"},
    "adaptive, crosscheck = changes": {"crosscheck": "changes"},
    "adaptive, crosscheck = all": {"crosscheck": "all"},
    "transnetv2": {"backend": "transnetv2"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--shot", type=float, help="length of all shots in seconds; 1 to 3.2 without")
    parser.add_argument(
        "--transitions", type=int, nargs=3, default=(12, 5, 2), help="cuts, dissolves and fades of a montage"
    )
    parser.add_argument("--clips", type=Path, help="folder of more single shots")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS), metavar="KIND")
    args = parser.parse_args()
    seconds = (args.shot, args.shot) if args.shot else (1.0, 3.2)
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for seed in range(args.first, args.first + args.seeds):
            path = Path(folder) / f"{seed}.mp4"
            cuts, dissolves, fades = args.transitions
            truth = montage.make_montage(
                path,
                seed,
                args.height,
                cuts=cuts,
                dissolves=dissolves,
                fades=fades,
                seconds=seconds,
                folder=args.clips,
            )
            made.append((path, truth))
        print("| Options | F1 | False | Missed | Dissolves found | x real time |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for kind in args.kinds:
            stage, result, video, spent = Shots(**KINDS[kind]), montage.Agreement(), 0.0, 0.0
            stage.setup()
            for path, truth in made:
                begin = time.process_time()
                found = stage.detect(ClipRecord(path))
                spent += time.process_time() - begin
                video += found.end
                result.add(truth, [(one.first, one.stop) for one in found.transitions])
            print(
                f"| {kind} | {result.f1:.3f} | {result.false} | {result.missed} |"
                f" {result.dissolves[0]} of {result.dissolves[1]} | {video / spent:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
