"""Tensors that drive one training clip, from what is known about it.

The facts about a clip are a mapping; lengths are in pixels, people (K) from left to right: `fps`, `speech` [K, N] at
`rate`, `faces` and `lips` [K, T, 4], `landmarks` [K, T, 68, 2], `joints` [K, T, 17, 2] (COCO's order) with `visible`
[K, T, 17], and `portrait` uint8 [H, W, 3], a picture of the same people. Only those that the config's drivers need must
be there. Some have a second form: `joints` and `visible` of 133 points (COCO-WholeBody's order, with hands and feet);
`masks` [K, T, h, w] in 0..1 instead of boxes for where drivers act; and instead of sound `heard`, features
[K, T, window, layers, channels] with the name of their `encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hy_core.errors import HyError, UsageError
from torch import Tensor

from hy_avatar import masks
from hy_avatar.config import AvatarConfig
from hy_avatar.controls import expression_bucket, head_bucket
from hy_avatar.expression_extract import latent_of
from hy_avatar.face_codec import TrainedExtractor, crops
from hy_avatar.pose import LEAST_SCORE, PoseTrack, to_openpose
from hy_avatar.reference import latents

if TYPE_CHECKING:
    from hy_core.condition import Condition

    from hy_avatar.speech import MelEncoder, WhisperSpeechEncoder

Row = dict[str, Tensor]
"""A clip's tensors by name, without the dimension of rows."""
HEAD = 1.5
"""Sides of the head with hair, in sides of the face: the face of the loss weights."""
_ENCODED_PIXELS = 1 << 20  # of all frames that are encoded at a time


class ClipFeatures:
    """Makes the tensors of clips; `whisper` is the folder of the Whisper model, if the config's encoder is Whisper."""

    def __init__(self, config: AvatarConfig, whisper: Path | None = None) -> None:
        self.config, self.whisper = config, whisper

    @cached_property
    def encoder(self) -> WhisperSpeechEncoder | MelEncoder:
        """The speech encoder, loaded at first use."""
        from hy_avatar.speech import speech_encoder

        if self.config.speech is None:
            raise UsageError("these weights have no modules for speech")
        return speech_encoder(self.config.speech, self.whisper)

    def read(
        self, truths: Sequence[Mapping[str, Any]], cond: Condition, first: Tensor | None = None
    ) -> list[Row]:
        """Return features, latents and masks of each driver of the config, a row for each clip.

        `first` are the first frames [N, 3, 1, H, W] in -1..1, for clips that start with the reference.
        """
        if cond.encoding.vae is None:
            raise ValueError("the condition has no VAE")
        rows = [self.read_without_vae(truth, cond) for truth in truths]
        portraits = [torch.from_numpy(truth["portrait"]).permute(2, 0, 1)[None, :, None] for truth in truths]
        videos = {"reference": torch.cat(portraits) / 127.5 - 1}
        if first is not None:
            videos["first"] = first
        if self.config.pose != "none":
            from hy_avatar.driving import skeleton_video

            height, width = videos["reference"].shape[-2:]
            drawn = [skeleton_video(pose_track(truth, height, width), height, width) for truth in truths]
            videos["pose"] = torch.cat(drawn)
        for name, video in videos.items():
            count = max(_ENCODED_PIXELS // video[0, 0].numel(), 1)
            encoded = torch.cat([latents(cond.encoding.vae, part) for part in video.split(count)])
            for row, one in zip(rows, encoded, strict=True):
                row[name] = one
        return rows

    def read_without_vae(self, truth: Mapping[str, Any], cond: Condition) -> Row:
        """Return a clip's features and masks, which need no VAE."""
        height, width = truth["portrait"].shape[:2]
        faces, lips = (relative_boxes(truth[name], height, width) for name in ("faces", "lips"))
        if "masks" in truth:
            drawn = np.asarray(truth["masks"], np.float32)
        else:
            drawn = np.stack([masks.from_boxes(one, height, width, self.config.area) for one in faces])
        mask, rest = masks.to_tokens(drawn, cond.grid)  # [K, F, S, 1], [F, S, 1]
        row = {"mask": mask, "rest": rest, "fps": torch.tensor([float(truth["fps"])])}
        for name, boxes, sides in (("face", faces, HEAD), ("lips", lips, 1.0)):
            union = np.max([masks.from_boxes(one, height, width, sides) for one in boxes], 0)
            row[name] = masks.to_latent(union, *cond.size)[None]  # [1, F, h, w]
        if self.config.speech:
            row["speech"] = self.speech_features(truth, faces.shape[1])
        expression = self.config.expression
        if expression and expression.extractor == "points":
            row["expression"] = torch.stack(
                [latent_of(one, expression.features) for one in truth["landmarks"]]
            )
        if self.config.controls:
            points = truth["landmarks"][0]
            eyes = np.linalg.norm(points[:, 42:48].mean(1) - points[:, 36:42].mean(1), axis=1)
            row["head"] = torch.tensor([float(head_bucket(points[:, 30], eyes))])
            row["lively"] = torch.tensor([float(expression_bucket(points, eyes))])
        return row

    def speech_features(self, truth: Mapping[str, Any], frames: int) -> Tensor:
        """Return features of all people's speech [K, T, window, layers, channels], ready ones where there are any."""
        speech = self.config.speech
        if speech is None:
            raise UsageError("these weights have no modules for speech")
        if "heard" not in truth:
            return torch.stack([self.encode_speech(one, truth, frames) for one in truth["speech"]])
        found = torch.as_tensor(truth["heard"]).float()
        kind = truth["encoder"], *found.shape[2:]
        wanted = speech.encoder, speech.window, speech.layers, speech.channels
        if kind != wanted:
            raise UsageError(
                f"the clips' speech features are {' '.join(map(str, kind))}, the avatar takes"
                f" {' '.join(map(str, wanted))} (encoder, window, layers, channels)",
                "run speech-features with the encoder that [conditioning.avatar.config.speech] names",
            )
        return found

    def encode_speech(self, samples: np.ndarray, truth: Mapping[str, Any], frames: int) -> Tensor:
        """Return features of one person's speech [T, window, layers, channels], float32."""
        from hy_avatar.sound import RATE
        from hy_avatar.speech import Span, features

        if truth["rate"] != RATE:
            raise HyError(f"speech for training must be at {RATE} Hz, not {truth['rate']}")
        with torch.autocast("cpu", enabled=False):  # as in generation; NumPy has no bfloat16
            return features([np.asarray(samples, np.float32)], self.encoder, Span(frames, truth["fps"]))


def codec_latents(extractor: TrainedExtractor, video: Tensor, truth: Mapping[str, Any]) -> Tensor:
    """Return expression latents [K, T, D_e] of a clip's faces by a face codec, from pixels [3, T, H, W] in -1..1."""
    values = ((video.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    frames = values.permute(1, 2, 3, 0).numpy()
    boxes = relative_boxes(truth["faces"], *frames.shape[1:3])
    size, area = extractor.codec.size, extractor.area
    return torch.stack([extractor.codes(crops(frames, size, one, area)) for one in boxes])


def relative_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return boxes [K, T, 4] in pixels as parts of the picture, 0 to 1."""
    return np.asarray(np.clip(boxes / [width, height, width, height], 0, 1))


def pose_track(truth: Mapping[str, Any], height: int, width: int) -> PoseTrack:
    """Return the known joints of a clip as a track."""
    joints = np.asarray(truth["joints"], np.float64)
    people, frames, count = joints.shape[:3]
    points, scores = np.zeros((people, frames, 133, 2)), np.zeros((people, frames, 133))
    points[:, :, :count], scores[:, :, :count] = joints, truth["visible"]
    if count == 17:  # with 133 points the face is among them
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
