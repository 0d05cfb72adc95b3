"""Pose and expression from files: a skeleton video's latents for the body, expression latents for the face.

Both come from a video or a pose file (`pose.save`) of any frame rate and are resampled to the clip's frames; after the
end the last value is repeated.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import timeline
from torch import Tensor

from hy_avatar import pose, pose_motion, reference, skeleton
from hy_avatar.expression_extract import latent_of
from hy_avatar.face_codec import TrainedExtractor, crops
from hy_avatar.pose import FACE, PoseTrack

if TYPE_CHECKING:
    from hy_core.vae import VAE
    from PIL import Image

    from hy_avatar.config import Expression
    from hy_avatar.expression_extract import Landmarker
    from hy_avatar.pose import PoseDetector
    from hy_avatar.speech import Span

log = logging.getLogger(__name__)

DWPOSE = "dw-ll_ucoco_384.onnx", "yolox_l.onnx"
_HEAD = [0, 14, 15, 16, 17, *range(FACE.start, FACE.stop)]
_AROUND = 1.25  # of the way from the head's middle to its farthest point: points lie inside of the outline


def pose_detector(folder: Path | None) -> PoseDetector:
    """DWPose from a folder with its ONNX files, or MediaPipe."""
    from hy_avatar.pose_detectors import DWPose, MediaPipePose

    if folder is None:
        return MediaPipePose()
    person = folder / DWPOSE[1]
    return DWPose(folder / DWPOSE[0], person if person.is_file() else None)


def pose_track(path: Path, person: int, folder: Path | None, span: Span) -> PoseTrack:
    """Return one person's poses from a video or a pose file, gaps filled and smoothed.

    `person` counts from 0, left to right; UsageError if there are fewer. No more is read than the clip needs.
    """
    detector = None if pose.is_file(path) else pose_detector(folder)
    track = pose.load(path, detector, (span.start + span.count) / span.fps, pose_motion.AHEAD)
    if person >= track.people:
        raise UsageError(f"there is no person {person} in {path}: {track.people} found, numbered from 0")
    if track.people > 1:
        log.warning("%s shows %d people; person %d is followed", path, track.people, person)
    return pose_motion.smooth(pose_motion.fill(track.only(person)))


def fit_to_person(track: PoseTrack, picture: Image.Image, folder: Path | None = None) -> PoseTrack:
    """Return the poses with limb lengths and place of the person in a picture; only `placed` if nobody is found."""
    aspect = picture.width / picture.height
    try:
        found = pose.extract([np.asarray(picture.convert("RGB"))], pose_detector(folder), 1.0, "the picture")
        return pose_motion.retarget(track, found.points[0, 0], aspect=aspect)
    except HyError as error:
        log.warning("the pose keeps its own proportions: %s", error.message)
        return placed(track, aspect)


def placed(track: PoseTrack, aspect: float) -> PoseTrack:
    """Return the poses for a picture of aspect ratio `aspect`: centred, with unchanged proportions."""
    points = track.points.copy()
    points[..., 0] = (points[..., 0] - 0.5) * track.aspect / aspect + 0.5
    return PoseTrack(points, track.scores, track.fps, aspect)


def at_frames(track: PoseTrack, span: Span) -> PoseTrack:
    """Return the poses at the times of a clip's frames."""
    whole = pose_motion.resample(track, span.start + span.count, span.fps)
    return PoseTrack(whole.points[span.start :], whole.scores[span.start :], span.fps, whole.aspect)


def skeleton_video(track: PoseTrack, height: int, width: int) -> Tensor:
    """Draw a track as a skeleton: float32 [1, 3, F, H, W] in -1..1.

    Points of the face are left out: they carry the driver's identity, and an expression drives the face.
    """
    drawn = skeleton.draw(track, height, width, skeleton.scale_for(height, width), face=False)
    return torch.from_numpy(drawn).permute(3, 0, 1, 2)[None] / 127.5 - 1


def skeleton_latents(vae: VAE, track: PoseTrack, height: int, width: int) -> Tensor:
    """Return latents [1, C, F, h, w], in the model's scale, of a track drawn as a skeleton."""
    return reference.latents(vae, skeleton_video(track, height, width))


def head_boxes(track: PoseTrack) -> np.ndarray:
    """Return boxes of the first person's head, [F, 4] in parts of the picture; HyError if none is ever seen.

    Frames without a head are interpolated in time.
    """
    points = track.points[:, 0, _HEAD] * [track.aspect, 1.0]
    seen = np.isfinite(points).all(-1)
    boxes = np.full((len(points), 4), np.nan)
    for frame in np.flatnonzero(seen.sum(1) > 1):
        there = points[frame, seen[frame]]
        middle = (there.min(0) + there.max(0)) / 2
        half = _AROUND * np.linalg.norm(there - middle, axis=1).max()
        boxes[frame] = [*(middle - half), *(middle + half)]
    known = np.flatnonzero(np.isfinite(boxes[:, 0]))
    if not len(known):
        raise HyError("the pose shows no head", "say where the face is: --avatar-mask or --avatar-speaker")
    boxes = np.stack([np.interp(np.arange(len(boxes)), known, boxes[known, side]) for side in range(4)], 1)
    return np.clip(boxes / [track.aspect, 1.0, track.aspect, 1.0], 0, 1)


def expression_latents(path: Path, config: Expression, codec: Path | None, span: Span) -> Tensor:
    """Return expression latents [count, D_e] of a clip's frames, from a video of a face or a pose file with one.

    HyError if no face is found; MissingError or UsageError if `codec` doesn't fit the weights' extractor.
    """
    if config.extractor == "codec" and codec is None:
        raise MissingError("these weights need a face codec", "name its file: --avatar-face-codec FILE")
    if config.extractor == "points" and codec is not None:
        raise UsageError("--avatar-face-codec: these weights take the points of a face, no codec")
    if pose.is_file(path):
        if codec is not None:
            raise UsageError(f"{path} holds poses, and a face codec reads a video")
        track = pose.load(path)
        found = latent_of(track.points[:, 0, FACE] * [track.aspect, 1.0], config.features)
        return resampled(found, track.fps, span)
    fps = timeline.even_rate(path)
    # The video may be much longer than the clip.
    count = math.ceil((span.start + span.count) / span.fps * fps) + 1
    if codec is None:
        from hy_avatar.faces_mediapipe import MediaPipeLandmarks

        points = face_points(batches(path, count), MediaPipeLandmarks(), str(path))
        return resampled(latent_of(points, config.features), fps, span)
    from hy_avatar import faces

    extractor = TrainedExtractor.load(codec)
    if extractor.dimension != config.features:
        raise UsageError(
            f"{codec} gives {extractor.dimension} numbers a frame, these weights take {config.features}",
            "use the face codec that they were trained with",
        )
    tracks = faces.track(timeline.frames_at(path, count=count), faces.detector())
    if not tracks:
        raise HyError(f"no face was found in {path}", "an expression is taken from a video that shows a face")
    boxes = faces.one_face(tracks, len(tracks[0].boxes), str(path)).boxes
    codes, at = [], 0
    for shown in batches(path, count):
        around = boxes[at : at + len(shown)]
        codes.append(extractor.codes(crops(shown, extractor.codec.size, around, extractor.area)))
        at += len(shown)
    return resampled(torch.cat(codes), fps, span)


def batches(path: Path, count: int, size: int = 32) -> Iterator[np.ndarray]:
    """Yield the first `count` frames of a video in batches, uint8 [at most `size`, H, W, 3]."""
    frames = timeline.frames_at(path, count=count)
    while batch := list(itertools.islice(frames, size)):
        yield np.stack(batch)


def face_points(shown: Iterable[np.ndarray], landmarker: Landmarker, name: str) -> np.ndarray:
    """Return the points of a face [F, P, 2] in a video that comes in batches; NaN where it isn't seen.

    Warns of several faces, and of one that leaves the picture; HyError if no face is ever seen.
    """
    points = np.concatenate([landmarker.landmarks(frames) for frames in shown])
    seen = np.isfinite(points).all((1, 2))
    if not seen.any():
        raise HyError(f"no face was found in {name}", "an expression is taken from a video that shows a face")
    if crowded := getattr(landmarker, "crowded", 0):
        log.warning(
            "%s shows several faces in %d of %d frames; the one that is largest at first is followed",
            name, crowded, len(points),
        )  # fmt: skip
    if not seen.all():
        away, sights = int((~seen).sum()), np.flatnonzero(seen)
        inside = int((~seen[sights[0] : sights[-1]]).sum())
        log.warning(
            "the face leaves %s for %d of %d frames; %s",
            name, away, len(points),
            "its last expression is repeated" if not inside else "its expression is interpolated",
        )  # fmt: skip
    return points


def resampled(values: Tensor, fps: float, span: Span) -> Tensor:
    """Interpolate values [F, n] at `fps` linearly at a clip's frames; the last value is repeated."""
    times = (span.start + torch.arange(span.count, dtype=torch.float64)) / span.fps * fps
    times = times.clamp(max=len(values) - 1)
    before = times.floor().long()
    after = (before + 1).clamp(max=len(values) - 1)
    share = (times - before)[:, None].to(values.dtype)
    return values[before] + share * (values[after] - values[before])
