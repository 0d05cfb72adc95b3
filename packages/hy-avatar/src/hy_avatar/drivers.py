"""A clip's drivers: the files of the options become the inputs of the network's modules."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hy_core.errors import MissingError, UsageError
from hy_core.media import vad

from hy_avatar import driving, masks, sound
from hy_avatar.config import AvatarConfig
from hy_avatar.latent_inputs import token_mask
from hy_avatar.reference import fit, latents, pixels
from hy_avatar.speakers import Box, Choice, cropped, disjoint
from hy_avatar.speech import Span, features, speech_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from hy_core.condition import Condition
    from hy_core.request import Request
    from PIL import Image
    from torch import Tensor

    from hy_avatar.options import AvatarOptions
    from hy_avatar.pose import PoseTrack

log = logging.getLogger(__name__)

WHISPER = "whisper-tiny"
"""The folder of the speech encoder inside a released model's."""


@dataclass(frozen=True)
class Drivers:
    """Options, reference picture, request and config of one clip.

    `error` makes a UsageError about an option: `error(option, message)`.
    """

    options: AvatarOptions
    picture: Image.Image
    request: Request
    config: AvatarConfig
    error: Callable[[str, str], UsageError]

    def inputs(self, cond: Condition, as_released: bool) -> tuple[dict[str, Any], Tensor | None]:
        """Return the adapter inputs, and a mask of the driven faces' latents [1, 1, F, h, w], None without any.

        The inputs: `frames` (latent frames), `reference` latents [1, C, 1, h, w], `speech` and `expression` with
        features and masks, `pose` latents [1, C, F, h, w]. `as_released`: masks are made as in the released sampler.
        """
        if cond.encoding.vae is None:
            raise ValueError("the condition has no VAE")
        options, request = self.options, self.request
        span = Span(request.frames, request.fps, cond.encoding.start_frame)
        picture = pixels(self.picture, request.width, request.height)
        inputs: dict[str, Any] = {"frames": cond.frames, "reference": latents(cond.encoding.vae, picture)}
        track = self.pose_track(options.pose, span) if options.pose else None
        if track is not None:
            inputs["pose"] = driving.skeleton_latents(cond.encoding.vae, track, request.height, request.width)
            inputs["pose_strength"] = options.pose_strength
        if not options.faces_driven:
            return inputs, None
        mask, rest, faces = self.masks(cond, track, as_released)
        if options.speech:
            inputs["speech"] = {"features": self.speech_features(span, cond), "mask": mask * options.strength}
        if options.expression and self.config.expression:
            values = driving.expression_latents(
                options.expression, self.config.expression, options.face_codec, span
            )
            inputs["expression"] = {
                "features": values[None, None],
                "mask": mask[:, :1],
                "strength": options.expression_strength,
            }
            if track is not None:  # the expression drives the face, the pose all else
                inputs["pose_mask"] = rest
        return inputs, faces

    def pose_track(self, path: Path, span: Span) -> PoseTrack:
        """Return the poses of --avatar-pose at the clip's frames, in the place of the picture's person."""
        options, request = self.options, self.request
        try:
            track = driving.pose_track(path, options.pose_person, options.dwpose, span)
        except UsageError as error:
            raise self.error("pose_person", error.message) from None
        if options.pose_fit:
            picture = fit(self.picture, request.width, request.height)
            track = driving.fit_to_person(track, picture, options.dwpose)
        else:
            track = driving.placed(track, request.width / request.height)
        return driving.at_frames(track, span)

    def speech_features(self, span: Span, cond: Condition) -> Tensor:
        """Return features of all speakers' speech [1, K, P, 10, layers, channels], zero where nobody speaks."""
        from hy_core.media import stream_sound

        options = self.options
        if self.config.speech is None:
            raise UsageError("these weights have no modules for speech")
        encoder = speech_encoder(
            self.config.speech,
            options.whisper or (cond.encoding.folder / WHISPER if cond.encoding.folder else None),
        )
        speech_gate = options.speech_gate or self.config.speech_gate
        found = []
        for path in options.speech:
            track = features(stream_sound(path, sound.RATE), encoder, span)
            if speech_gate != "off":
                detector = vad.Silero.load() if speech_gate == "auto" and vad.Silero.is_installed() else None
                end = math.ceil(((span.start + span.count) / span.fps + 1) * sound.RATE)
                speech = vad.detect_speech(sound.until(stream_sound(path, sound.RATE), end), detector)
                is_speech = vad.speech_of_frames(speech, span.count, span.fps, span.start)
                track[torch.from_numpy(~is_speech)] = 0
            found.append(track)
        return torch.stack(found)[None]

    def masks(
        self, cond: Condition, track: PoseTrack | None, as_released: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return disjoint masks of the driven faces [1, K, F, S, 1] and a mask of all else [1, F, S, 1] on tokens.

        The third is a mask of the driven faces' latents [1, 1, F, h, w].
        """
        drawn, from_picture = self.face_masks(cond.encoding.start_frame, track)
        shown = np.stack(drawn)
        faces = masks.inner(shown.max(0), cond.size).expand(cond.frames, -1, -1)[None, None]
        if from_picture and as_released:  # bilinear to latents, then nearest, as in training
            small = torch.nn.functional.interpolate(torch.from_numpy(shown), cond.size, mode="bilinear")
            each = [token_mask(one[None, :, None], cond.frames, cond.size, cond.patch) for one in small]
            mask = disjoint(torch.cat(each))[None]
            return mask, 1 - mask.amax(1), faces
        mask, rest = masks.to_tokens(shown, cond.grid)
        return mask.expand(-1, cond.frames, -1, -1)[None], rest.expand(cond.frames, -1, -1)[None], faces

    def face_masks(self, start: int, track: PoseTrack | None) -> tuple[list[np.ndarray], bool]:
        """Return a mask [F or 1, H, W] of each driven face, and whether it comes from a face in the picture.

        With a pose video the mask follows the head.
        """
        options, high, wide = self.options, self.request.height, self.request.width
        area = self.config.area if options.area is None else options.area
        if options.mask:
            end = start + self.request.frames
            return [
                masks.read(path, end, high, wide, self.request.fps)[start:] for path in options.mask
            ], False
        if track is not None and not options.speaker and options.faces_driven == 1:
            return [masks.from_boxes(driving.head_boxes(track), high, wide, area)], False
        return [masks.from_boxes(np.array([box]), high, wide, area) for box in self.faces()], True

    def faces(self) -> list[Box]:
        """Return the face of each speaker, in parts of the picture as it is cut for the clip.

        A speaker given as a box needs no detector. Without any face speech acts on the whole picture, as in the
        released sampler.
        """
        from hy_avatar.faces import detector

        picture, shape = self.picture, (self.request.width, self.request.height)
        choices = [Choice.read(text) for text in self.options.speaker]
        if not choices:
            count = self.options.faces_driven
            choices = [Choice()] if count == 1 else [Choice(index=index) for index in range(count)]
        if all(choice.box for choice in choices):
            return [cropped(choice.box, picture.size, shape) for choice in choices if choice.box]
        whole = (0.0, 0.0, 1.0, 1.0)
        try:
            found = detector().detect(np.asarray(picture.convert("RGB")))
        except MissingError as error:
            if self.options.speaker or len(choices) > 1:
                raise
            log.warning("the driver acts on all of the picture: %s (%s)", error.message, error.hint)
            return [whole]
        boxes: list[Box] = sorted(
            (float(left), float(top), float(right), float(bottom))
            for left, top, right, bottom in found[:, :4]
        )
        if not boxes and len(choices) == 1:
            log.warning("no face was found in %s: the driver acts on all of it", self.options.image)
            return [whole]
        if len(boxes) > 1 and not self.options.speaker and len(choices) == 1:
            log.warning("%s shows %d faces; the largest one is driven", self.options.image, len(boxes))
        chosen = [choice.pick(boxes) for choice in choices]
        if len(set(chosen)) < len(chosen):
            raise self.error("speaker", "two speeches drive one face")
        return [cropped(boxes[index], picture.size, shape) for index in chosen]
