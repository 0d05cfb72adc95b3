"""Avatars in training: the truth about a batch's clips becomes what the drivers of a run would say of them.

The truth of a clip is a mapping; lengths are in pixels, people (K) from left to right: `fps`, `speech` [K, N] at
`rate`, `faces` and `lips` [K, T, 4], `landmarks` [K, T, 68, 2], `joints` [K, T, 17, 2] (COCO's order) with `visible`
[K, T, 17], and `portrait` uint8 [H, W, 3], a picture of the same people. A recipe's plugin table needs only those that
its drivers read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from hy_avatar.expression_extract import latent_of
from hy_avatar.network import AvatarConfig, part
from hy_avatar.objective import FACE, LIPS, Dropout, left_out, loss_weights
from hy_avatar.pose import LEAST_SCORE, PoseTrack, to_openpose
from hy_avatar.reference import still
from hy_avatar.speakers import disjoint

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.vae import VAE

    from hy_avatar.speech import Bands, Listener

_MOST_KEPT = 1 << 30  # bytes of drivers that are kept in memory from one epoch to the next


@dataclass(frozen=True)
class Settings:
    """The `[conditioning.avatar]` table of a recipe.

    `config` says what is attached (`network.AvatarConfig`; not given: that of the weights training goes on from).
    `face` and `lips` are how much more they count in the loss; `hold` is the share of batches whose first frame is
    given as the reference; `whisper` is the folder of the encoder, for features of Whisper; `dropout` see `Dropout`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    face: float = FACE
    lips: float = LIPS
    hold: float = 0.1
    whisper: str = ""
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
    """Makes the feed of a batch, and keeps what it found out of clips that come again."""

    def __init__(self, name: str, config: AvatarConfig, settings: Settings) -> None:
        self.name, self.config, self.settings = name, config, settings
        if config.expression and config.expression.extractor != "points":
            raise UsageError(
                "[conditioning.avatar]: expressions of a face codec can't be trained from points"
            )
        self.dropout = Dropout(**settings.dropout)
        self._kept: dict[Any, dict[str, Tensor]] = {}
        self._bytes = 0

    @cached_property
    def listener(self) -> Listener | Bands:
        """What hears the speech."""
        from hy_avatar.speech import listener

        if self.config.speech is None:
            raise UsageError("these weights hear no speech")
        return listener(self.config.speech, Path(self.settings.whisper) if self.settings.whisper else None)

    def give(self, batch: Mapping[str, Any], cond: Condition) -> None:
        """Fill the condition of a batch."""
        generator, latents = batch["generator"], batch["latents"]
        rows = [self.row(key, index, batch["truth"], cond) for index, key in enumerate(batch["keys"])]
        made = {name: torch.stack([row[name].float() for row in rows]) for name in rows[0]}
        faces = made["mask"]
        feed: dict[str, Any] = {"frames": cond.frames, "reference": made["reference"]}
        if self.config.speech:
            feed["speech"] = {"features": made["speech"], "mask": faces}
        if self.config.expression:
            feed["expression"] = {"features": made["expression"], "mask": faces}
        if self.config.pose != "none":
            feed["pose"] = made["pose"]
            if self.config.expression:
                feed["pose_mask"] = 1 - faces.amax(1)
        if numbers := self.config.controls:
            feed["motion_head"] = made["head"].expand(-1, numbers)
            feed["motion_expression"] = made["lively"].expand(-1, numbers)
            feed["fps"] = made["fps"].flatten()
        held = torch.rand(1, generator=generator, device=generator.device).item() < self.settings.hold
        if held:
            shown = batch["pixels"]()[:, :, :1]
            feed["reference"] = torch.cat([still(cond.vae, one[None], cond.frames) for one in shown])
            cond.pin(self.name, [0], latents[:, :, :1])
        feed = left_out(feed, self.dropout.draw(batch["prompts"], generator))
        cond.add_context(self.name, feed["reference"][:, :, :1], [-1], "video")
        cond.feed(self.name, feed, part)
        cond.weigh(loss_weights(made["face"], made["lips"], self.settings.face, self.settings.lips))

    def row(
        self, key: Any, index: int, truth: Callable[[int], Mapping[str, Any]], cond: Condition
    ) -> dict[str, Tensor]:
        """What drives one clip, without the dimension of rows."""
        if key not in self._kept:
            try:
                found = self.read(truth(index), cond)
            except KeyError as error:
                raise UsageError(
                    f"the avatar learns from {error.args[0]!r}, which the source of the clips doesn't tell",
                    'take clips of characters: [data] source = "characters"',
                ) from None
            found = {name: value.half() for name, value in found.items()}
            size = sum(value.nbytes for value in found.values())
            if self._bytes + size > _MOST_KEPT:
                return found
            self._kept[key], self._bytes = found, self._bytes + size
        return self._kept[key]

    def read(self, truth: Mapping[str, Any], cond: Condition) -> dict[str, Tensor]:
        """Tell what drives a clip: the features, latents and masks of each driver that the config knows."""
        vae: VAE = cond.vae
        picture = torch.from_numpy(truth["portrait"]).permute(2, 0, 1)[None, :, None] / 127.5 - 1
        height, width = picture.shape[-2:]
        faces, lips = (parts(truth[name], height, width) for name in ("faces", "lips"))
        frames, grid = faces.shape[1], (cond.size[0] // 2, cond.size[1] // 2)
        drawn = np.stack([masks.from_boxes(one, height, width, self.config.area) for one in faces])
        found = {
            "reference": still(vae, picture, cond.frames)[0],
            "mask": disjoint(masks.to_latent(drawn, *grid)).flatten(2)[..., None],  # [K, F, S, 1]
            "fps": torch.tensor([float(truth["fps"])]),
        }
        for name, boxes in (("face", faces), ("lips", lips)):
            shown = np.max([masks.from_boxes(one, height, width) for one in boxes], 0)
            found[name] = masks.to_latent(shown, *cond.size)[None]  # [1, F, h, w]
        if self.config.speech:
            found["speech"] = torch.stack([self.hear(one, truth, frames) for one in truth["speech"]])
        if expression := self.config.expression:
            found["expression"] = torch.stack(
                [latent_of(one, expression.features) for one in truth["landmarks"]]
            )
        if self.config.pose != "none":
            from hy_avatar.driving import skeleton_latents

            found["pose"] = skeleton_latents(vae, poses(truth, height, width), height, width)[0]
        if self.config.controls:
            points = truth["landmarks"][0]
            apart = np.linalg.norm(points[:, 42:48].mean(1) - points[:, 36:42].mean(1), axis=1)
            found["head"] = torch.tensor([float(head_bucket(points[:, 30], apart))])
            found["lively"] = torch.tensor([float(expression_bucket(points, apart))])
        return found

    def hear(self, sound: np.ndarray, truth: Mapping[str, Any], frames: int) -> Tensor:
        """Features of one person's speech [T, window, layers, channels]."""
        from hy_avatar.sound import RATE
        from hy_avatar.speech import Span, features

        if truth["rate"] != RATE:
            raise HyError(f"speech for training comes at {RATE} Hz, not {truth['rate']}")
        return features([np.asarray(sound, np.float32)], self.listener, Span(frames, truth["fps"]))


def parts(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes [K, T, 4] in pixels in parts of the picture."""
    return np.clip(boxes / [width, height, width, height], 0, 1)


def poses(truth: Mapping[str, Any], height: int, width: int) -> PoseTrack:
    """The true joints of a clip as a track."""
    joints, faces = np.asarray(truth["joints"], np.float64), np.asarray(truth["landmarks"], np.float64)
    people, frames = joints.shape[:2]
    points, scores = np.zeros((people, frames, 133, 2)), np.zeros((people, frames, 133))
    points[:, :, :17], scores[:, :, :17] = joints, truth["visible"]
    points[:, :, 23:91], scores[:, :, 23:91] = faces, 1.0
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
