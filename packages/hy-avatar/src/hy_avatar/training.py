"""Avatars in training: the truth about a batch's clips becomes what the drivers of a run would say of them.

The truth of a clip is a mapping; lengths are in pixels, people (K) from left to right: `fps`, `speech` [K, N] at
`rate`, `faces` and `lips` [K, T, 4], `landmarks` [K, T, 68, 2], `joints` [K, T, 17, 2] (COCO's order) with `visible`
[K, T, 17], and `portrait` uint8 [H, W, 3], a picture of the same people. A recipe's plugin table needs only those that
its drivers read. Some may come in another form: `joints` and `visible` of 133 points (COCO-WholeBody's order, with
hands and feet); `masks` [K, T, h, w] of 0 to 1 in place of boxes to say where drivers act; and in place of sound
`heard`, features [K, T, window, layers, channels] with the name of their `encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hy_core.errors import HyError, UsageError
from torch import Tensor

from hy_avatar import masks
from hy_avatar.controls import expression_bucket, head_bucket
from hy_avatar.expression_extract import TrainedExtractor, crops, latent_of
from hy_avatar.kept import Kept, fingerprint
from hy_avatar.network import AvatarConfig, part
from hy_avatar.objective import FACE, LIPS, Dropout, left_out, loss_weights
from hy_avatar.pose import LEAST_SCORE, PoseTrack, to_openpose
from hy_avatar.reference import latents

if TYPE_CHECKING:
    from hy_core.condition import Condition

    from hy_avatar.speech import Bands, Listener

    Row = dict[str, Tensor]

HEAD = 1.5
"""Sides of a head with its hair in those of its face: what counts as face in the loss."""

_TOGETHER = 1 << 20  # pixels that are encoded together, of all frames of all clips


@dataclass(frozen=True)
class Settings:
    """The `[conditioning.avatar]` table of a recipe.

    `config` says what is attached (`network.AvatarConfig`; not given: that of the weights training goes on from).
    `face` and `lips` are how much more they count in the loss; `fix_first_frame` is the share of batches
    whose first frame is fixed and is the reference in place of the portrait; `drivers` says how often which of them
    drive a batch, as in runs that get no others, `{ speech = 3, "expression pose" = 1 }` (not given: all of them
    always); `whisper` is the folder of the encoder, for features of Whisper; `codec` the file of the face codec that
    expressions are read by, for `extractor = "codec"`; `dropout` see `Dropout`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    face: float = FACE
    lips: float = LIPS
    fix_first_frame: float = 0.1
    drivers: Mapping[str, float] = field(default_factory=dict)
    whisper: str = ""
    codec: str = ""
    dropout: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Settings:
        """Take a recipe's table; UsageError for what isn't known."""
        try:
            made = cls(**table)
            Dropout(**made.dropout)
        except TypeError as error:
            raise UsageError(f"[conditioning.avatar]: {str(error).rpartition('() ')[2]}") from None
        return made


class Teacher:
    """Makes the feed of a batch, and keeps what it found out of clips that come again; on disk, given a folder."""

    def __init__(self, name: str, config: AvatarConfig, settings: Settings) -> None:
        self.name, self.config, self.settings = name, config, settings
        coded = config.expression is not None and config.expression.extractor == "codec"
        if coded and not settings.codec:
            raise UsageError(
                "[conditioning.avatar]: these expressions are a face codec's", 'name its file: codec = "FILE"'
            )
        if settings.codec and not coded:
            raise UsageError(
                '[conditioning.avatar]: codec is given, but no expression has extractor = "codec"'
            )
        self.dropout = Dropout(**settings.dropout)
        self.choices = choices(config, settings.drivers)
        self._kept: dict[Any, Kept] = {}

    @cached_property
    def listener(self) -> Listener | Bands:
        """What hears the speech."""
        from hy_avatar.speech import listener

        if self.config.speech is None:
            raise UsageError("these weights hear no speech")
        return listener(self.config.speech, Path(self.settings.whisper) if self.settings.whisper else None)

    @cached_property
    def extractor(self) -> TrainedExtractor | None:
        """What reads expressions from pixels; None if points of the face do."""
        if not self.settings.codec:
            return None
        found = TrainedExtractor.load(self.settings.codec)
        if found.dimension != self.config.expression.features:
            raise UsageError(
                f"{self.settings.codec} gives {found.dimension} numbers a frame, not {self.config.expression.features}",
                "say so in [conditioning.avatar.config.expression]: features",
            )
        return found

    def give(self, batch: Mapping[str, Any], cond: Condition) -> None:
        """Fill the condition of a batch."""
        generator, rows = batch["generator"], self.rows(batch, cond)
        made = {name: torch.stack([row[name].float() for row in rows]) for name in rows[0]}
        faces, driven = made["mask"], self.driven(generator)
        feed: dict[str, Any] = {"frames": cond.frames, "reference": made["reference"]}
        if "speech" in driven:
            feed["speech"] = {"features": made["speech"], "mask": faces}
        if "expression" in driven:
            feed["expression"] = {"features": made["expression"], "mask": faces}
        if "pose" in driven:
            feed["pose"] = made["pose"]
            if "expression" in driven:
                feed["pose_mask"] = made["rest"]
        if numbers := self.config.controls:
            feed["motion_head"] = made["head"].expand(-1, numbers)
            feed["motion_expression"] = made["lively"].expand(-1, numbers)
            feed["fps"] = made["fps"].flatten()
        if torch.rand(1, generator=generator, device=generator.device).item() < self.settings.fix_first_frame:
            feed["reference"] = made["first"]
            cond.fix_frames(self.name, [0], batch["latents"][:, :, :1])
        feed = left_out(feed, self.dropout.draw(batch["prompts"], generator, self.config.guided))
        cond.add_context(self.name, feed["reference"][:, :, :1], [-1], "video")
        cond.set_adapter_inputs(self.name, feed, part)
        weights = loss_weights(made["face"], made["lips"], self.settings.face, self.settings.lips)
        # A close-up counts no more than a whole body.
        cond.weigh(weights / weights.mean((2, 3, 4), keepdim=True))

    def driven(self, generator: torch.Generator) -> Sequence[str]:
        """Draw which drivers a batch has; what it hasn't isn't in its feed at all."""
        shares = torch.tensor(list(self.choices.values()), device=generator.device)
        return list(self.choices)[torch.multinomial(shares, 1, generator=generator).item()]

    def rows(self, batch: Mapping[str, Any], cond: Condition) -> list[Row]:
        """What drives each clip of a batch, without the dimension of rows: found out where it isn't kept."""
        kept = self.kept(batch.get("folder"), cond)
        rows = kept.find(batch["keys"])
        new = {key: index for index, key in enumerate(batch["keys"]) if key not in rows}
        if new:
            wanted = self.settings.fix_first_frame or self.extractor
            shown = batch["pixels"]()[list(new.values())] if wanted else None
            first = shown[:, :, :1] if self.settings.fix_first_frame else None
            try:
                truths = [batch["truth"](index) for index in new.values()]
                found = self.read(truths, cond, first)
                if self.extractor:
                    for row, truth, one in zip(found, truths, shown, strict=True):
                        row["expression"] = self.coded(one, truth)
            except KeyError as error:
                raise UsageError(
                    f"the avatar learns from {error.args[0]!r}, which the source of the clips doesn't tell",
                    'take clips of characters: [data] source = "characters", or run the stage that finds it',
                ) from None
            half = [{name: value.half() for name, value in row.items()} for row in found]
            made = dict(zip(new, half, strict=True))
            kept.put(made)
            rows |= made
        return [rows[key] for key in batch["keys"]]

    def kept(self, folder: Path | None, cond: Condition) -> Kept:
        """What was found out of clips of this size, by these settings and this VAE."""
        shape = cond.frames, *cond.size, *cond.patch
        if shape not in self._kept:
            place = None
            if folder is not None:
                settings = [self.settings.whisper, self.settings.fix_first_frame > 0, self.config.area, HEAD]
                if self.extractor:
                    settings.append(fingerprint([], self.extractor.codec))
                place = folder / "avatar" / fingerprint([shape, settings, self.config.modules()], cond.vae)
            self._kept[shape] = Kept(place)
        return self._kept[shape]

    def read(
        self, truths: Sequence[Mapping[str, Any]], cond: Condition, first: Tensor | None = None
    ) -> list[Row]:
        """Tell what drives clips: the features, latents and masks of each driver that the config knows.

        `first` are the first frames [N, 3, 1, H, W] in -1..1, for clips that begin with the reference.
        """
        rows = [self.facts(truth, cond) for truth in truths]
        portraits = [torch.from_numpy(truth["portrait"]).permute(2, 0, 1)[None, :, None] for truth in truths]
        pictures = {"reference": torch.cat(portraits) / 127.5 - 1}
        if first is not None:
            pictures["first"] = first
        if self.config.pose != "none":
            from hy_avatar.driving import skeleton_video

            height, width = pictures["reference"].shape[-2:]
            drawn = [skeleton_video(poses(truth, height, width), height, width) for truth in truths]
            pictures["pose"] = torch.cat(drawn)
        for name, shown in pictures.items():
            count = max(_TOGETHER // shown[0, 0].numel(), 1)
            encoded = torch.cat([latents(cond.vae, part) for part in shown.split(count)])
            for row, one in zip(rows, encoded, strict=True):
                row[name] = one
        return rows

    def facts(self, truth: Mapping[str, Any], cond: Condition) -> Row:
        """What of a clip's drivers needs no VAE."""
        height, width = truth["portrait"].shape[:2]
        faces, lips = (parts(truth[name], height, width) for name in ("faces", "lips"))
        if "masks" in truth:
            drawn = np.asarray(truth["masks"], np.float32)
        else:
            drawn = np.stack([masks.from_boxes(one, height, width, self.config.area) for one in faces])
        mask, rest = masks.to_tokens(drawn, cond.grid)  # [K, F, S, 1], [F, S, 1]
        found = {"mask": mask, "rest": rest, "fps": torch.tensor([float(truth["fps"])])}
        for name, boxes, sides in (("face", faces, HEAD), ("lips", lips, 1.0)):
            shown = np.max([masks.from_boxes(one, height, width, sides) for one in boxes], 0)
            found[name] = masks.to_latent(shown, *cond.size)[None]  # [1, F, h, w]
        if self.config.speech:
            found["speech"] = self.heard(truth, faces.shape[1])
        expression = self.config.expression
        if expression and expression.extractor == "points":
            found["expression"] = torch.stack(
                [latent_of(one, expression.features) for one in truth["landmarks"]]
            )
        if self.config.controls:
            points = truth["landmarks"][0]
            apart = np.linalg.norm(points[:, 42:48].mean(1) - points[:, 36:42].mean(1), axis=1)
            found["head"] = torch.tensor([float(head_bucket(points[:, 30], apart))])
            found["lively"] = torch.tensor([float(expression_bucket(points, apart))])
        return found

    def coded(self, shown: Tensor, truth: Mapping[str, Any]) -> Tensor:
        """Expressions [K, T, D_e] of a clip's faces by the codec, from its pixels [3, T, H, W] in -1..1."""
        frames = ((shown.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        frames = frames.permute(1, 2, 3, 0).numpy()
        boxes = parts(truth["faces"], *frames.shape[1:3])
        size, area = self.extractor.codec.size, self.extractor.area
        return torch.stack([self.extractor.codes(crops(frames, size, one, area)) for one in boxes])

    def heard(self, truth: Mapping[str, Any], frames: int) -> Tensor:
        """Features of all people's speech [K, T, window, layers, channels]: those that were found before, if any."""
        speech = self.config.speech
        if "heard" not in truth:
            return torch.stack([self.hear(one, truth, frames) for one in truth["speech"]])
        found = torch.as_tensor(truth["heard"]).float()
        given, wanted = (
            (truth["encoder"], *found.shape[2:]),
            (speech.encoder, speech.window, speech.layers, speech.channels),
        )
        if given != wanted:
            raise UsageError(
                f"the clips' speech features are {' '.join(map(str, given))}, the avatar reads"
                f" {' '.join(map(str, wanted))} (encoder, window, layers, channels)",
                "run speech-features with the encoder that [conditioning.avatar.config.speech] names",
            )
        return found

    def hear(self, sound: np.ndarray, truth: Mapping[str, Any], frames: int) -> Tensor:
        """Features of one person's speech [T, window, layers, channels]."""
        from hy_avatar.sound import RATE
        from hy_avatar.speech import Span, features

        if truth["rate"] != RATE:
            raise HyError(f"speech for training comes at {RATE} Hz, not {truth['rate']}")
        with torch.autocast("cpu", enabled=False):  # as in a run, and as NumPy can take it
            return features([np.asarray(sound, np.float32)], self.listener, Span(frames, truth["fps"]))


def choices(config: AvatarConfig, shares: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    """How often which drivers drive together, from the recipe's table; UsageError for what these weights don't know."""
    there = {"speech": config.speech, "expression": config.expression, "pose": config.pose != "none"}
    known = tuple(name for name, one in there.items() if one)
    where = "[conditioning.avatar]: drivers"
    if not isinstance(shares, Mapping):
        raise UsageError(f"{where} = {shares!r} is no table", "give shares, as { speech = 3, pose = 1 }")
    for names, share in shares.items():
        if strange := sorted(set(names.split()) - set(known)):
            raise UsageError(
                f"{where}: {strange[0]!r} drives nothing here", f"name some of {' '.join(known)}"
            )
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < math.inf:
            raise UsageError(f"{where}: {names!r} = {share!r} is no share", "give a number, as 1 or 0.5")
    if shares and not any(shares.values()):
        raise UsageError(f"{where}: all shares are 0", "leave drivers out to have all of them always")
    return {tuple(names.split()): float(share) for names, share in shares.items()} or {known: 1.0}


def parts(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes [K, T, 4] in pixels in parts of the picture."""
    return np.clip(boxes / [width, height, width, height], 0, 1)


def poses(truth: Mapping[str, Any], height: int, width: int) -> PoseTrack:
    """The true joints of a clip as a track."""
    joints = np.asarray(truth["joints"], np.float64)
    people, frames, known = joints.shape[:3]
    points, scores = np.zeros((people, frames, 133, 2)), np.zeros((people, frames, 133))
    points[:, :, :known], scores[:, :, :known] = joints, truth["visible"]
    if known == 17:  # else the face is among them
        points[:, :, 23:91], scores[:, :, 23:91] = truth["landmarks"], 1.0
    ordered, marks = to_openpose(points.reshape(-1, 133, 2), scores.reshape(-1, 133))
    ordered = ordered / [width, height]
    ordered[marks < LEAST_SCORE] = np.nan
    shape = (people, frames, 134)
    return PoseTrack(
        ordered.reshape(*shape, 2).swapaxes(0, 1),
        marks.reshape(shape).swapaxes(0, 1),
        float(truth["fps"]),
        width / height,
    )
