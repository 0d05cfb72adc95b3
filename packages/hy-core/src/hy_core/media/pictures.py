"""Read pictures: upright, RGB, 8 bits, within limits of size."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hy_core.errors import HyError, MissingError
from hy_core.files import open_regular
from hy_core.media.container import COMMENT_BYTES

FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA"),
    *("JPEG2000", "AVIF", "HEIF", "QOI", "ICO"),
)
"""Pillow's formats that are read: none that runs another program (EPS runs Ghostscript)."""
MAX_SIDE = 16384
MAX_PIXELS = 40_000_000
"""Pixels of a picture that are held; larger JPEGs are read at a half, a quarter or an eighth of their size."""
HEIC = (".heic", ".heif", ".hif")


def read_picture(path: Path | str) -> Image.Image:
    """Read a picture as it is shown: mode RGB, upright; of an animated one the first frame.

    Transparency is put over white, 16 bits become 8, floats are clipped to 0..1. HEIC needs pillow-heif
    (`MissingError`). `HyError` for what is damaged, no picture, or too large: 16384 pixels a side, 40 million in all.
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
        return to_rgb(upright(picture))


def upright(picture: Image.Image) -> Image.Image:
    """Turn a picture by its orientation tag; a broken tag is ignored."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # whatever Pillow raises for a broken tag, the picture itself is good
        return picture.copy()


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB with 8 bits."""
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        most = 1.0 if picture.mode == "F" else 65535.0
        values = np.asarray(picture)
        grey = np.empty(values.shape, np.uint8)
        for row in range(0, len(values), 256):
            part = np.nan_to_num(values[row : row + 256].astype(np.float64) / most).clip(0, 1) * 255
            grey[row : row + 256] = part.round()
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def picture_comment(picture: Image.Image) -> str | None:
    """Return the comment of a picture: a JPEG or GIF comment, a PNG text chunk, or a WebP's XMP."""
    return _text(picture.info.get("comment")) or _text(picture.info.get("xmp"))


@contextmanager
def open_picture(path: Path | str, pixels: bool = True) -> Iterator[Image.Image]:
    """Open a picture with Pillow, its pixels loaded unless only its header is wanted.

    `HyError` for what is no picture of `FORMATS`, damaged or too large.
    """
    path = Path(path)
    with open_regular(path) as file:
        try:
            picture = Image.open(file, formats=_known_formats())
            width, height = picture.size
            if max(width, height) > MAX_SIDE:
                raise HyError(f"{path} is {width}x{height}; at most {MAX_SIDE} pixels a side are read")
            if pixels:
                while picture.format in ("JPEG", "MPO") and picture.width * picture.height > MAX_PIXELS:
                    before = picture.size
                    picture.draft("RGB", (picture.width // 2, picture.height // 2))
                    if picture.size == before:
                        break
                if picture.width * picture.height > MAX_PIXELS:
                    raise HyError(
                        f"{path} is {width}x{height}; at most {MAX_PIXELS // 10**6} million pixels are read",
                        "make it smaller, or save it as JPEG",
                    )
                picture.load()
        except Image.DecompressionBombError as problem:
            raise HyError(f"{path} claims too many pixels") from problem
        except UnidentifiedImageError as problem:
            raise HyError(f"{path} is not a picture, or of a format that isn't known") from problem
        except (*_DAMAGE, MemoryError) as problem:
            raise HyError(f"{path} cannot be read as a picture ({str(problem)[:80]})") from problem
        yield picture


_DAMAGE = (OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, OverflowError, struct.error)


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value) if value and len(value) <= COMMENT_BYTES else None
