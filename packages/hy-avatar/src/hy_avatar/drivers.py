"""What drives one clip: the files of the options become the feed of the network's modules."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hy_core.errors import MissingError, UsageError

from hy_avatar import driving, masks, presence, sound
from hy_avatar.network import AvatarConfig, token_mask
from hy_avatar.reference import fit, latents, pixels
from hy_avatar.speakers import Box, Choice, cropped, disjoint
from hy_avatar.speech import Span, features, listener

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.request import Request
    from PIL import Image
    from torch import Tensor

    from hy_avatar.options import Options
    from hy_avatar.pose import PoseTrack

log = logging.getLogger(__name__)

WHISPER = "whisper-tiny"
"""The folder of the speech encoder inside a released model's."""


@dataclass(frozen=True)
class Drivers:
    """The options of a clip, the picture of the character, the request, and what the weights say of themselves.

    `error` makes the error about an option: `error(name, message)`.
    """

    options: Options
    picture: Image.Image
    request: Request
    config: AvatarConfig
    error: Callable[[str, str], UsageError]

    def feed(self, cond: Condition, released: bool) -> tuple[dict[str, Any], Tensor | None]:
        """The feed: the reference's latents, and what drives mouth, face and body, with its masks.

        Beside it which latents are of a driven face [1, 1, F, h, w], if one is driven. `released`: masks are made as
        the released model's were.
        """
        options, request = self.options, self.request
        span = Span(request.frames, request.fps, cond.start_frame)
        shown = pixels(self.picture, request.width, request.height)
        feed: dict[str, Any] = {"frames": cond.frames, "reference": latents(cond.vae, shown)}
        track = self.dance(span) if options.pose else None
        mask = rest = faces = None
        if options.faces_driven:
            mask, rest, faces = self.masks(cond, track, released)
        if options.speech:
            feed["speech"] = {"features": self.hear(span, cond), "mask": mask * options.strength}
        if options.expression:
            shown = driving.expression_latents(
                options.expression, self.config.expression, options.face_codec, span
            )
            feed["expression"] = {
                "features": shown[None, None],
                "mask": mask[:, :1],
                "strength": options.expression_strength,
            }
        if track is not None:
            feed["pose"] = driving.skeleton_latents(cond.vae, track, request.height, request.width)
            feed["pose_strength"] = options.pose_strength
            if options.expression:  # the face is the actor's, all else the dancer's
                feed["pose_mask"] = rest
        return feed, faces

    def dance(self, span: Span) -> PoseTrack:
        """The dancer's poses for the frames of the clip."""
        options, request = self.options, self.request
        try:
            track = driving.dancer(options.pose, options.pose_person, options.dwpose, span)
        except UsageError as error:
            raise self.error("pose_person", error.message) from None
        if options.pose_fit:
            picture = fit(self.picture, request.width, request.height)
            track = driving.fitted(track, picture, options.dwpose)
        else:
            track = driving.placed(track, request.width / request.height)
        return driving.at_frames(track, span)

    def hear(self, span: Span, cond: Condition) -> Tensor:
        """Features of the speech of all speakers [1, K, P, 10, layers, channels]."""
        from hy_core.media import stream_sound

        options = self.options
        ears = listener(
            self.config.speech, options.whisper or (cond.folder / WHISPER if cond.folder else None)
        )
        speech_gate = options.speech_gate or self.config.speech_gate
        heard = []
        for path in options.speech:
            track = features(stream_sound(path, sound.RATE), ears, span)
            if speech_gate != "off":
                session = presence.detector() if speech_gate == "auto" and presence.available() else None
                end = math.ceil(((span.start + span.count) / span.fps + 1) * sound.RATE)
                said = presence.spoken(sound.until(stream_sound(path, sound.RATE), end), session)
                quiet = ~presence.at_frames(said, span.count, span.fps, span.start)
                track[torch.from_numpy(quiet)] = 0
            heard.append(track)
        return torch.stack(heard)[None]

    def masks(
        self, cond: Condition, track: PoseTrack | None, released: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where each driven face is [1, K, F, S, 1], no two in one place; where else a body may be [1, F, S, 1].

        At last which latents are of a driven face [1, 1, F, h, w].
        """
        drawn, found = self.drawn(cond.start_frame, track)
        shown = np.stack(drawn)
        faces = masks.inner(shown.max(0), cond.size).expand(cond.frames, -1, -1)[None, None]
        if found and released:  # as its weights have seen them: to latents, then the nearest
            small = torch.nn.functional.interpolate(torch.from_numpy(shown), cond.size, mode="bilinear")
            each = [token_mask(one[None, :, None], cond.frames, cond.size, cond.patch) for one in small]
            mask = disjoint(torch.cat(each))[None]
            return mask, 1 - mask.amax(1), faces
        mask, rest = masks.to_tokens(shown, cond.grid)
        return mask.expand(-1, cond.frames, -1, -1)[None], rest.expand(cond.frames, -1, -1)[None], faces

    def drawn(self, start: int, track: PoseTrack | None) -> tuple[list[np.ndarray], bool]:
        """A mask [F or 1, H, W] of each driven face, and whether the face was found in the picture.

        A face that dances is where its head is.
        """
        options, high, wide = self.options, self.request.height, self.request.width
        area = self.config.area if options.area is None else options.area
        if options.mask:
            end = start + self.request.frames
            return [masks.read(path, end, high, wide)[start:] for path in options.mask], False
        if track is not None and not options.speaker and options.faces_driven == 1:
            return [masks.from_boxes(driving.head_boxes(track), high, wide, area)], False
        return [masks.from_boxes([box], high, wide, area) for box in self.faces()], True

    def faces(self) -> list[Box]:
        """The face of each speaker, in parts of the picture as it is cut for the clip.

        A speaker that is given as a box needs no detector. Without any face the speech acts on the whole picture, as
        the released sampler has it.
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
        boxes = sorted(tuple(float(side) for side in one[:4]) for one in found)
        if not boxes and len(choices) == 1:
            log.warning("no face was found in %s: the driver acts on all of it", self.options.image)
            return [whole]
        if len(boxes) > 1 and not self.options.speaker and len(choices) == 1:
            log.warning("%s shows %d faces; the largest one is driven", self.options.image, len(boxes))
        chosen = [choice.pick(boxes) for choice in choices]
        if len(set(chosen)) < len(chosen):
            raise self.error("speaker", "two speeches are given to one face")
        return [cropped(boxes[index], picture.size, shape) for index in chosen]
