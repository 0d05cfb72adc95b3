"""Read frames and sound, robustly: a file is a stranger's until it has been read."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hy_core.errors import HyError, MissingError
from hy_core.media.writing import PICTURES
from hy_core.request import Sound

log = logging.getLogger(__name__)

# Containers only: playlists (HLS, concat) name other files and addresses, which a media file must not do.
CONTAINERS = (
    "mov,mp4,matroska,webm,gif,avi,flv,mpeg,mpegts,ogg,apng,asf,wav,mp3,flac,aac,y4m,yuv4mpegpipe,ivf"
)
MOST_SIDE = 16384
MOST_PIXELS = MOST_SIDE * MOST_SIDE
HEIC = (".heic", ".heif", ".hif")
MOST_BYTES = 8 << 30
COMMENT_BYTES = 1 << 20


@dataclass
class Clip:
    """What a file holds: `frames` uint8 [F, H, W, 3], `fps`, and the sound if any."""

    frames: np.ndarray
    fps: float
    sound: Sound | None = None


@dataclass(frozen=True)
class Info:
    """What a file says of itself without decoding: sizes in pixels, `frames` None when unknown."""

    width: int
    height: int
    fps: float
    frames: int | None
    sound: bool
    comment: str | None


def probe(path: Path | str) -> Info:
    """Sizes, rate and comment of a file; one-line `HyError` for what is no video or picture."""
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        with open_picture(path) as picture:
            return Info(*picture.size, 1.0, 1, False, picture_comment(picture))
    with open_media(path) as box:
        if not box.streams.video:
            raise HyError(f"{path} has no picture stream")
        video = box.streams.video[0]
        rate = float(video.average_rate or video.guessed_rate or 0) or 1.0
        comment = gif_comment(path) if path.suffix.lower() == ".gif" else box_comment(box)
        return Info(video.width, video.height, rate, video.frames or None, bool(box.streams.audio), comment)


def read(path: Path | str, most: int | None = None) -> Clip:
    """The whole clip (or its first `most` frames) with its sound, or one picture as one frame.

    A file that breaks off gives what came before and a warning; one that gives nothing is a `HyError`.
    """
    path = Path(path)
    frames, held = [], 0
    for image in stream(path):
        held += image.nbytes
        if held > MOST_BYTES:
            raise HyError(f"{path} is too long to hold: more than {MOST_BYTES >> 30} GB of frames")
        frames.append(image)
        if most is not None and len(frames) == most:
            break
    if path.suffix.lower() in PICTURES:
        return Clip(np.stack(frames), 1.0)
    return Clip(np.stack(frames), probe(path).fps, read_sound(path))


def stream(path: Path | str) -> Iterator[np.ndarray]:
    """Yield the frames of a video or picture one by one: uint8 [H, W, 3], upright, all of one size."""
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        with open_picture(path) as picture:
            yield np.asarray(picture.convert("RGB"))
        return
    count, shape = 0, None
    with open_media(path) as box:
        if not box.streams.video:
            raise HyError(f"{path} has no picture stream")
        box.streams.video[0].thread_type = "AUTO"
        try:
            for frame in box.decode(video=0):
                image = frame.to_ndarray(format="rgb24")
                if frame.rotation % 360:
                    image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))
                if shape not in (None, image.shape):
                    raise HyError(f"{path} changes its size from {shape[1]}x{shape[0]} at frame {count}")
                shape, count = image.shape, count + 1
                yield image
        except (av.FFmpegError, OSError) as problem:
            if not count:
                raise HyError(f"{path} cannot be read as a video ({problem.strerror})") from problem
            log.warning("%s is damaged after frame %d (%s)", path, count, problem.strerror)
    if not count:
        raise HyError(f"{path} has no frames")


def read_picture(path: Path | str) -> Image.Image:
    """A picture as one would see it: mode RGB, upright, 8 bits; of an animated one the first frame.

    What is transparent becomes white, 16 bits become 8, numbers that are no integers are taken as 0 to 1. Any format
    that Pillow reads, and HEIC with pillow-heif. One-line `HyError` for what is damaged, too large (16384 pixels a
    side) or no picture.
    """
    path = Path(path)
    if path.suffix.lower() in HEIC:
        try:
            import pillow_heif
        except ImportError:
            raise MissingError(
                f"{path}: HEIC pictures need pillow-heif", 'pip install "hy-core[heic]"'
            ) from None
        pillow_heif.register_heif_opener()
    with open_picture(path) as picture:
        if max(picture.size) > MOST_SIDE:
            raise HyError(
                f"{path} is {picture.width}x{picture.height}; at most {MOST_SIDE} pixels a side are read"
            )
        try:
            upright = ImageOps.exif_transpose(picture)
        except Exception:  # a broken orientation tag is no reason to refuse a good picture
            upright = picture.copy()
    return in_colour(upright)


def in_colour(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB with 8 bits."""
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, np.float64)
        most = 1.0 if picture.mode == "F" else 65535.0
        grey = np.nan_to_num(values / most).clip(0, 1) * 255
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def read_sound(path: Path | str) -> Sound | None:
    """The first sound stream as float32 [channels, count]; None if the file has none."""
    path = Path(path)
    with open_media(path) as box:
        if not box.streams.audio:
            return None
        voice = box.streams.audio[0]
        rate, layout = voice.rate, "mono" if voice.channels == 1 else "stereo"
        change, pieces = av.AudioResampler("fltp", layout, rate), []
        try:
            for frame in box.decode(audio=0):
                pieces += [piece.to_ndarray() for piece in change.resample(frame)]
        except (av.FFmpegError, OSError) as problem:
            log.warning("the sound of %s is damaged (%s)", path, problem.strerror)
        pieces += [piece.to_ndarray() for piece in change.resample(None)] if pieces else []
        return Sound(np.concatenate(pieces, axis=1), rate) if pieces else None


def stream_sound(path: Path | str, rate: int) -> Iterator[np.ndarray]:
    """Yield the first sound stream piece by piece as one channel, their mean: float32 [count] at `rate` Hz.

    Whatever the file's rate, depth and number of channels; a long file never is in memory whole. One-line `HyError`
    for a file without sound, or with samples that are not numbers.
    """
    path = Path(path)
    with open_media(path) as box:
        if not box.streams.audio:
            raise HyError(f"{path} has no sound stream")
        # Channels side by side ("flt"): PyAV 18 crashes when it gives eight planes as an array.
        change, count = av.AudioResampler("flt", rate=rate), 0

        def mono(frames: Any) -> Iterator[np.ndarray]:
            nonlocal count
            for frame in frames:
                piece = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(1, dtype=np.float32)
                if not np.isfinite(piece).all():
                    raise HyError(f"the sound of {path} has samples that are not numbers (NaN or infinity)")
                count += len(piece)
                yield piece

        try:
            for frame in box.decode(audio=0):
                yield from mono(change.resample(frame))
        except (av.FFmpegError, OSError) as problem:
            if not count:
                raise HyError(f"the sound of {path} cannot be read ({problem.strerror})") from problem
            log.warning("the sound of %s is damaged after %.1f s (%s)", path, count / rate, problem.strerror)
        if count:
            yield from mono(change.resample(None))
        if not count:
            raise HyError(f"the sound of {path} is empty")


@contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """A container for reading, from an opened file: no addresses, no patterns, no playlists."""
    with open_file(path) as file:
        try:
            box = av.open(file, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or "not a known container"
            raise HyError(f"{path} cannot be read as a video ({reason})") from problem
        with box:
            for video in box.streams.video:
                if video.width * video.height > MOST_PIXELS:
                    raise HyError(f"{path} claims {video.width}x{video.height} pixels, too many")
            yield box


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    with open_file(path) as file:
        try:
            picture = Image.open(file)
            if picture.width * picture.height > MOST_PIXELS:
                raise HyError(f"{path} claims {picture.width}x{picture.height} pixels, too many")
            picture.load()
        except Image.DecompressionBombError as problem:
            raise HyError(f"{path} claims too many pixels") from problem
        except UnidentifiedImageError as problem:
            raise HyError(f"{path} is not a picture, or of a format that isn't known") from problem
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            IndexError,
            OverflowError,
            struct.error,
        ) as problem:
            raise HyError(f"{path} cannot be read as a picture ({str(problem)[:80]})") from problem
        yield picture


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = open(path, "rb")
    except FileNotFoundError as problem:
        raise MissingError(f"no such file: {path}") from problem
    except OSError as problem:
        raise HyError(f"cannot open {path}: {problem.strerror}") from problem
    with file:
        yield file


# -- comments --------------------------------------------------------------------------------------------


def box_comment(box: Any) -> str | None:
    """The comment tag of MP4 or Matroska (whose tags are upper case)."""
    for name, value in box.metadata.items():
        if name.lower() == "comment" and len(value) <= COMMENT_BYTES:
            return value
    return None


def gif_comment(path: Path) -> str | None:
    with open_picture(path) as picture:
        return decoded(picture.info.get("comment"))


def picture_comment(picture: Image.Image) -> str | None:
    return decoded(picture.info.get("comment")) or decoded(picture.info.get("xmp"))


def decoded(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value) if value and len(value) <= COMMENT_BYTES else None
