"""Write frames and sound: MP4, WebM, GIF, numbered pictures, one picture.

Every write goes to a temporary file in the same folder and appears under its name only when complete.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, PngImagePlugin

from hy_core.errors import HyError, UsageError
from hy_core.files import Existing, Staging, check_writable, writing
from hy_core.request import Sound

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Writer:
    """Takes frames as they come; the file appears at the end of the `with` block, or not at all."""

    def __init__(
        self,
        path: Path,
        fps: float,
        sound: Sound | None = None,
        comment: str | None = None,
        existing: Existing = "replace",
    ) -> None:
        self.path, self.fps, self.sound, self.comment = Path(path), fps, sound, comment
        self.staging = Staging(existing)

    @property
    def files(self) -> list[Path]:
        """The files of the clip: one, or one for each frame; their final names once the `with` block has ended."""
        return self.staging.files

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self.finish()
                self.staging.commit()
        finally:
            self.drop()
            self.staging.discard()

    def add(self, frames: Any) -> None:
        """Append `frames`: uint8 [F, H, W, 3], an array or a tensor on any device."""
        frames = as_array(frames)
        with writing(self.path):
            self.put(frames)

    def put(self, frames: np.ndarray) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Complete the temporary file."""

    def drop(self) -> None:
        """Let go of what is open after a failure."""


class VideoWriter(Writer):
    """H.264 with AAC in MP4, VP9 with Opus in WebM, 4:2:0; odd sizes gain a repeated row or column."""

    # Pocket clips are 64 pixels wide: a low CRF costs nothing there and keeps edges clean.
    CODECS = {
        ".mp4": ("libx264", {"crf": "15", "preset": "medium"}, "aac", {"movflags": "+faststart"}),
        ".webm": ("libvpx-vp9", {"crf": "20", "b": "0", "row-mt": "1"}, "libopus", {}),
    }
    container: Any = None

    def put(self, frames: np.ndarray) -> None:
        height, width = frames.shape[1:3]
        if self.container is None:
            self.open(width + width % 2, height + height % 2)
        if height % 2 or width % 2:
            frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = self.count, 1 / self.rate
            self.count += 1
            self.container.mux(self.video.encode(frame))

    def open(self, width: int, height: int) -> None:
        codec, options, sound_codec, flags = self.CODECS[self.path.suffix.lower()]
        self.count, self.rate = 0, Fraction(self.fps).limit_denominator(1001)
        self.container = av.open(address(self.staging.file(self.path)), "w", options=flags)
        self.video = self.container.add_stream(codec, rate=self.rate, options=options)
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        self.video.time_base = 1 / self.rate
        context = self.video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1
        if self.sound is not None:
            self.voice = open_sound(self.container, sound_codec, self.sound)
        if self.comment is not None:
            self.container.metadata["comment"] = self.comment

    def finish(self) -> None:
        if self.container is None:
            raise UsageError(f"no frames to write to {self.path}")
        self.container.mux(self.video.encode(None))
        if self.sound is not None:
            put_sound(self.container, self.voice, self.sound)
        self.container.close()
        self.container = None

    def drop(self) -> None:
        if self.container is not None:
            try:
                self.container.close()
            except (OSError, av.FFmpegError):
                pass  # the file is thrown away


class GifWriter(Writer):
    """A GIF with one palette for the clip; its clock counts hundredths of a second."""

    frames: list[np.ndarray]

    def put(self, frames: np.ndarray) -> None:
        self.frames = getattr(self, "frames", [])
        self.frames.extend(frames)

    def finish(self) -> None:
        if not getattr(self, "frames", None):
            raise UsageError(f"no frames to write to {self.path}")
        if self.sound is not None:
            log.warning("%s holds no sound: it was left out", self.path.name)
        ends = [round(100 * i / self.fps) for i in range(len(self.frames) + 1)]
        images = paletted(self.frames)
        extra = {} if self.comment is None else {"comment": self.comment.encode()}
        images[0].save(
            self.staging.file(self.path),
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=[max(10 * (b - a), 10) for a, b in zip(ends, ends[1:], strict=False)],
            loop=0,
            **extra,
        )


class PictureWriter(Writer):
    """One picture, or numbered ones when the name holds a number pattern such as `%03d`."""

    count = 0

    def put(self, frames: np.ndarray) -> None:
        for image in frames:
            self.count += 1
            path = Path(str(self.path) % self.count) if numbered(self.path) else self.path
            if self.count > 1 and path == self.path:
                raise UsageError(f"{path} is one picture but the clip has more frames", pattern_hint(path))
            save_picture(self.staging.file(path), image, self.comment if self.count == 1 else None)

    def finish(self) -> None:
        if not self.count:
            raise UsageError(f"no frames to write to {self.path}")
        if self.sound is not None:
            log.warning("%s holds no sound: it was left out", self.path.name)


WRITERS: dict[str, type[Writer]] = {
    ".mp4": VideoWriter,
    ".webm": VideoWriter,
    ".gif": GifWriter,
    **dict.fromkeys(PICTURES, PictureWriter),
}


def open_writer(
    path: Path | str,
    fps: float,
    sound: Sound | None = None,
    comment: str | None = None,
    existing: Existing = "replace",
) -> Writer:
    """The writer that the name's suffix asks for."""
    path = Path(path)
    check_suffix(path, WRITERS)
    return WRITERS[path.suffix.lower()](path, fps, sound, comment, existing)


def check_suffix(path: Path, known: Iterable[str]) -> None:
    """Raise `UsageError` if no writer has the name's suffix."""
    if path.suffix.lower() not in known:
        kind = path.suffix or "a name without suffix"
        raise UsageError(f"{path}: no writer for {kind}", f"use one of {' '.join(known)}")


def write(
    path: Path | str, frames: Any, fps: float, sound: Sound | None = None, comment: str | None = None
) -> Path:
    """Write a whole clip; returns the path. Nothing is left behind when it fails."""
    with open_writer(path, fps, sound, comment) as out:
        out.add(frames)
    return Path(path)


def address(path: Path) -> str:
    """A file's name for FFmpeg, which takes `tcp:1.mp4` for an address."""
    return f"file:{path}"


def check_target(path: Path | str, frames: int, more: Iterable[str] = ()) -> None:
    """Raise `UsageError` now if a clip of `frames` frames could not be written to `path` later.

    `more` are suffixes that plugins write.
    """
    path = Path(path)
    check_suffix(path, [*WRITERS, *more])
    if path.suffix.lower() in PICTURES and path.suffix.lower() not in more and frames > 1:
        if not numbered(path):
            raise UsageError(f"{path} is one picture but the clip has {frames} frames", pattern_hint(path))
        if Path(str(path) % 1).parent != path.parent:
            raise UsageError(f"{path}: the number belongs in the file's name, not in a folder's")
    check_writable(path)


def as_array(frames: Any) -> np.ndarray:
    """uint8 [F, H, W, 3] from an array, a tensor or one picture [H, W, 3]."""
    if hasattr(frames, "detach"):
        frames = frames.detach().cpu().numpy()
    frames = np.asarray(frames)
    if frames.ndim == 3:
        frames = frames[None]
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise HyError(f"frames must be uint8 [F, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    return frames


def numbered(path: Path) -> bool:
    """Whether the name holds exactly one number pattern, such as `%03d`."""
    try:
        return path.suffix.lower() in PICTURES and (str(path) % 1) != (str(path) % 2)
    except (TypeError, ValueError):
        return False


def pattern_hint(path: Path) -> str:
    return f"use {path.stem}-%03d{path.suffix} for numbered pictures, .mp4 for a video, or --frames 1"


def save_picture(path: Path, image: np.ndarray, comment: str | None = None) -> None:
    """One picture [H, W, 3] uint8 under this very name, with its comment where the format has one."""
    picture, extra = Image.fromarray(image), {}
    suffix = path.suffix.lower()
    if suffix == ".png" and comment is not None:
        extra["pnginfo"] = PngImagePlugin.PngInfo()
        extra["pnginfo"].add_itxt("comment", comment)
    elif suffix in (".jpg", ".jpeg"):
        extra |= {"quality": 95, "subsampling": 0}
        if comment is not None and len(comment.encode()) < 65000:  # one JPEG segment holds no more
            extra["comment"] = comment.encode()
    elif suffix == ".webp":
        extra |= {"lossless": True}
        if comment is not None:
            extra["xmp"] = comment.encode()
    picture.save(path, **extra)


def paletted(frames: list[np.ndarray]) -> list[Image.Image]:
    """The frames on one palette of 255 colours chosen from the whole clip."""
    step = max(len(frames) // 16, 1)
    # Rows of every chosen frame at a stride that keeps the sample near a million pixels.
    sample = np.concatenate(frames[::step], axis=0)
    stride = max(math.isqrt(sample.shape[0] * sample.shape[1] // 1_000_000), 1)
    palette = Image.fromarray(np.ascontiguousarray(sample[::stride, ::stride])).quantize(
        255, method=Image.Quantize.MEDIANCUT, kmeans=1
    )
    return [
        Image.fromarray(np.ascontiguousarray(frame)).quantize(
            palette=palette, dither=Image.Dither.FLOYDSTEINBERG
        )
        for frame in frames
    ]


def open_sound(container: Any, codec: str, sound: Sound) -> Any:
    """Add a sound stream; rates that the codec lacks become 48 kHz."""
    rates = (48000,) if codec == "libopus" else (8000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
    stream = container.add_stream(codec, rate=sound.rate if sound.rate in rates else 48000)
    stream.layout = "mono" if sound.samples.shape[0] == 1 else "stereo"
    stream.bit_rate = 96000 * min(sound.samples.shape[0], 2)
    return stream


def put_sound(container: Any, stream: Any, sound: Sound) -> None:
    samples = np.ascontiguousarray(np.clip(sound.samples[:2], -1, 1), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = sound.rate, 0, Fraction(1, sound.rate)
    context = stream.codec_context
    change = av.AudioResampler(
        context.format, stream.layout, stream.rate, frame_size=context.frame_size or None
    )
    for piece in [*change.resample(frame), *change.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
