"""The task `avatar`: does a character follow speech, an actor's face, a dancer's body, and stay who it is?

The plugin is the one that the command line names. It must take the options `image`, `speech`, `mask`, `expression`,
`pose` and `pose_fit`, with pose files (see docs/reference/signals.md) for the actor and the dancer. What a model's
avatar doesn't follow is left out, and the report says so.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hy_core.errors import UsageError

from hy_world.characters import Stage
from hy_world.characters_geometry import truth
from hy_world.characters_judge import SeenCharacter, judge_stage
from hy_world.characters_render import face_masks, render_stage
from hy_world.characters_score import (
    JOINT_LIMIT,
    change,
    identity,
    joint_errors,
    mouth_correlation,
    score_stages,
)
from hy_world.report import Report
from hy_world.score import Line, compare
from hy_world.sources.characters import RATE, portrait, sample_talking
from hy_world.text_to_video import GROUPS

if TYPE_CHECKING:
    from hy_world.tasks import EvalRequest

log = logging.getLogger(__name__)

PROMPT = "a character talks to the camera"  # what drives isn't in the words
# COCO's joints in the order of OpenPose's body; the neck is made of the shoulders (5 and 6).
_BODY = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_POINTS, _FACE = 134, 24


@dataclass
class Drivers:
    """Files of what drives clips: who is in them, what is said, an actor's face, a dancer's body, where the face is."""

    folder: Path
    height: int
    width: int

    def picture(self, name: str, stage: Stage) -> Path:
        from PIL import Image

        path = self.folder / f"{name}.png"
        Image.fromarray(render_stage(stage, self.height, self.width)[0]).save(path)
        return path

    def speech(self, name: str, sound: np.ndarray) -> Path:
        """Write mono speech [n] at 16 kHz as a WAV file and return its path."""
        path = self.folder / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
        return path

    def mask(self, name: str, stage: Stage) -> Path:
        path = self.folder / f"{name}.npz"
        np.savez_compressed(path, mask=face_masks(stage, self.height, self.width)[0])
        return path

    def pose(self, name: str, stage: Stage) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(pose_file(stage, self.height, self.width)), encoding="utf-8")
        return path


def pose_file(stage: Stage, height: int, width: int) -> dict[str, Any]:
    """The first character's joints and face, as a pose file's content."""
    real = truth(stage, height, width)[0]

    def point(place: np.ndarray, seen: bool = True) -> list[float] | None:
        return [float(place[0] / width), float(place[1] / height), 1.0] if seen else None

    frames = []
    for joints, seen, face in zip(real.joints, real.visible, real.landmarks, strict=True):
        person: list[list[float] | None] = [None] * _POINTS
        for target, source in enumerate(_BODY):
            both = joints[5:7].mean(0), bool(seen[5:7].all())
            person[target] = point(*(both if source is None else (joints[source], bool(seen[source]))))
        person[_FACE : _FACE + len(face)] = [point(place) for place in face]
        frames.append([person])
    head = {"format": "hy-pose", "version": 1, "fps": stage.fps, "aspect": width / height}
    return {**head, "frames": frames}


def measure(asked: EvalRequest) -> Iterator[Report]:
    """Yield reports on speech, expression, pose, and pose with expression, for each group of combinations."""
    parts = (_speech, _expression, _pose, _hybrid)
    for group in asked.groups:
        refused: list[UsageError] = []
        for number, part in enumerate(parts):
            rng = np.random.default_rng((asked.seed, list(GROUPS).index(group), 7, number))
            with tempfile.TemporaryDirectory() as folder:
                files = Drivers(Path(folder), asked.height, asked.width)
                try:
                    yield part(asked, group, rng, files)
                except UsageError as error:
                    log.warning("left out: %s", error.message)
                    refused.append(error)
        if len(refused) == len(parts):
            raise refused[0]


def _sample(
    asked: EvalRequest, group: str, rng: np.random.Generator, framings: Sequence[str]
) -> list[tuple[Stage, np.ndarray]]:
    """Stages of a group that talk, framed in turn, with what is said; none is silent."""
    found: list[tuple[Stage, np.ndarray]] = []
    while len(found) < asked.count:
        framing = framings[len(found) % len(framings)]
        stage, sounds = sample_talking(rng, GROUPS[group][0], asked.frames, framing)
        if np.std(stage.characters[0].performance.mouth) > 0.05:
            found.append((stage, sounds[0]))
    return found


def _acted(stage: Stage, actor: Stage | None = None, dancer: Stage | None = None) -> Stage:
    """The stage with an actor's face or a dancer's body on its own character."""
    (one,) = stage.characters
    performance = one.performance
    if dancer is not None:
        performance = dancer.characters[0].performance.with_face(performance)
    if actor is not None:
        performance = performance.with_face(actor.characters[0].performance)
    return replace(stage, characters=(replace(one, performance=performance),))


def _make(asked: EvalRequest, options: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    return list(asked.make([PROMPT] * len(options), options))


def _speech(asked: EvalRequest, group: str, rng: np.random.Generator, files: Drivers) -> Report:
    """Speech alone: the mouth, and that nothing else moves with it."""
    drawn = _sample(asked, group, rng, ("face", "upper"))
    stages = [stage for stage, _ in drawn]
    given = [
        {
            "image": files.picture(f"{i}", portrait(rng, stage)),
            "mask": [files.mask(f"{i}", stage)],
            "speech": [files.speech(f"{i}", sound)],
        }
        for i, (stage, sound) in enumerate(drawn)
    ]
    clips = _make(asked, given)
    # The same noise, people and masks, but what the next one says.
    others = _make(asked, [{**one, "speech": given[i - 1]["speech"]} for i, one in enumerate(given)])
    seen, real = _judge(clips, stages), _judge(_renders(asked, stages), stages)
    made, best = score_stages(clips, stages), score_stages(_renders(asked, stages), stages)
    masks = [face_masks(stage, asked.height, asked.width)[0] for stage in stages]
    moved = [change(*three) for three in zip(clips, others, masks, strict=True)]
    inside, outside = np.mean(moved, 0)
    figures = {
        "mouth_correlation": _number(made.correlation),
        "mouth_shuffled": _number(made.shuffled),
        "real_mouth_correlation": _number(best.correlation),
        "real_mouth_shuffled": _number(best.shuffled),
        "change_inside": float(inside),
        "change_outside": float(outside),
        "outside_over_inside": float(outside / inside) if inside else None,
    }
    note = (
        f"mouth against speech: {made.correlation:.2f} (real renders {best.correlation:.2f}), against other speech: "
        f"{made.shuffled:.2f} ({best.shuffled:.2f}). With other speech the face changes by {inside:.2f} of 255, "
        f"all else by {outside:.2f}. mouth: it follows at 0.8 or better."
    )

    def follows(of: Sequence[SeenCharacter]) -> Callable[[int, int], list[bool]]:
        def holds(clip: int, stage: int) -> list[bool]:
            driver = stages[stage].characters[0].performance.mouth
            return [mouth_correlation(of[clip], driver) >= 0.8]

        return holds

    lines = [_line("mouth", follows(seen), follows(real), len(clips)), *_who(seen, real, stages)]
    return _report(group, "speech", lines, clips, figures, note)


def _expression(asked: EvalRequest, group: str, rng: np.random.Generator, files: Drivers) -> Report:
    """An actor's face, on someone else."""
    people = [stage for stage, _ in _sample(asked, group, rng, ("face", "upper"))]
    actors = [stage for stage, _ in _sample(asked, group, rng, ("face", "upper"))]
    stages = [_acted(*pair) for pair in zip(people, actors, strict=True)]
    given = [
        {
            "image": files.picture(f"{i}", portrait(rng, stage)),
            "mask": [files.mask(f"{i}", stage)],
            "expression": files.pose(f"{i}-actor", actor),
        }
        for i, (stage, actor) in enumerate(zip(stages, actors, strict=True))
    ]
    clips = _make(asked, given)
    seen, real = _judge(clips, stages), _judge(_renders(asked, stages), stages)
    lines = [_mood(seen, real, stages), *_who(seen, real, stages)]
    return _report(group, "expression", lines, clips, {}, "expression: the actor's, on any character.")


def _pose(asked: EvalRequest, group: str, rng: np.random.Generator, files: Drivers) -> Report:
    """A dancer's body, on someone else."""
    people = [stage for stage, _ in _sample(asked, group, rng, ("full",))]
    dancers = [stage for stage, _ in _sample(asked, group, rng, ("full",))]
    stages = [_acted(one, dancer=dancer) for one, dancer in zip(people, dancers, strict=True)]
    given = [
        {
            "image": files.picture(f"{i}", portrait(rng, stage)),
            "pose": files.pose(f"{i}-dancer", dancer),
            "pose_fit": False,  # all characters have one build
        }
        for i, (stage, dancer) in enumerate(zip(stages, dancers, strict=True))
    ]
    clips = _make(asked, given)
    seen, real = _judge(clips, stages), _judge(_renders(asked, stages), stages)
    lines = [_joints(seen, real, stages, asked), *_who(seen, real, stages)]
    return _report(group, "pose", lines, clips, {}, _JOINTS)


def _hybrid(asked: EvalRequest, group: str, rng: np.random.Generator, files: Drivers) -> Report:
    """A dancer's body and an actor's face, from two others, on one."""
    people, actors, dancers = (
        [stage for stage, _ in _sample(asked, group, rng, ("full",))] for _ in range(3)
    )
    stages = [_acted(*three) for three in zip(people, actors, dancers, strict=True)]
    given = [
        {
            "image": files.picture(f"{i}", portrait(rng, stage)),
            "expression": files.pose(f"{i}-actor", actor),
            "pose": files.pose(f"{i}-dancer", dancer),
            "pose_fit": False,
        }
        for i, (stage, actor, dancer) in enumerate(zip(stages, actors, dancers, strict=True))
    ]
    clips = _make(asked, given)
    seen, real = _judge(clips, stages), _judge(_renders(asked, stages), stages)
    lines = [_mood(seen, real, stages), _joints(seen, real, stages, asked), *_who(seen, real, stages)]
    return _report(group, "pose and expression", lines, clips, {}, _JOINTS)


_JOINTS = f"joints: limb joints within {JOINT_LIMIT:.0%} of body height of the dancer's."


def _report(
    group: str, driven: str, lines: list[Line], clips: list[np.ndarray], figures: dict[str, Any], note: str
) -> Report:
    prompts = [PROMPT] * len(clips)
    return Report(
        group,
        f"driven by {driven}, {GROUPS[group][0]} people",
        lines,
        {"driven": driven, **figures},
        note,
        prompts,
        clips,
    )


def _renders(asked: EvalRequest, stages: Sequence[Stage]) -> list[np.ndarray]:
    return [render_stage(stage, asked.height, asked.width) for stage in stages]


def _judge(clips: Sequence[np.ndarray], stages: Sequence[Stage]) -> list[SeenCharacter]:
    return [judge_stage(clip, stage.framing)[0] for clip, stage in zip(clips, stages, strict=True)]


Holds = Callable[[int, int], list[bool]]


def _line(name: str, made: Holds, real: Holds, count: int) -> Line:
    """One line: what holds of clips, by chance, and of real renders."""
    return compare(name, count, made, [value for i in range(count) for value in real(i, i)])


def _who(seen: list[SeenCharacter], real: list[SeenCharacter], stages: Sequence[Stage]) -> list[Line]:
    """Whether people stay who they are, and where they are."""

    def same(of: list[SeenCharacter]) -> Holds:
        def holds(clip: int, stage: int) -> list[bool]:
            character = stages[stage].characters[0]
            return [all(identity(of[clip], character, stages[stage].framing).values())]

        return holds

    def place(of: list[SeenCharacter]) -> Holds:
        return lambda clip, stage: [of[clip].background == stages[stage].background]

    return [
        _line("identity", same(seen), same(real), len(stages)),
        _line("background", place(seen), place(real), len(stages)),
    ]


def _mood(seen: list[SeenCharacter], real: list[SeenCharacter], stages: Sequence[Stage]) -> Line:
    def wears(of: list[SeenCharacter]) -> Holds:
        def holds(clip: int, stage: int) -> list[bool]:
            return [of[clip].expression == stages[stage].characters[0].performance.expressions[0]]

        return holds

    return _line("expression", wears(seen), wears(real), len(stages))


def _joints(
    seen: list[SeenCharacter], real: list[SeenCharacter], stages: Sequence[Stage], asked: EvalRequest
) -> Line:
    facts = [truth(stage, asked.height, asked.width)[0] for stage in stages]

    def near(of: list[SeenCharacter]) -> Holds:
        def holds(clip: int, stage: int) -> list[bool]:
            errors = joint_errors(of[clip], facts[stage], stages[stage].framing)
            return [bool(error <= JOINT_LIMIT) for error in errors[~np.isnan(errors)]]

        return holds

    return _line("joints", near(seen), near(real), len(stages))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
