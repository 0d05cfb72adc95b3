"""Real pictures: every size and mode becomes RGB of the video's size, and what is none is one clear line."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hy_core import HyError, MissingError
from hy_core.media import read_picture
from hy_i2v import pictures
from hy_i2v.plugin import I2V
from PIL import Image, features

LEFT, RIGHT = (220, 30, 30), (30, 30, 220)


@pytest.fixture
def halves():
    """Red on the left, blue on the right, 60 x 40."""
    picture = Image.new("RGB", (60, 40), LEFT)
    picture.paste(RIGHT, (30, 0, 60, 40))
    return picture


def colours(picture, size=(60, 40)):
    assert picture.mode == "RGB" and picture.size == size
    return picture.getpixel((5, 20)), picture.getpixel((55, 20))


def near(found, wanted, most=12):
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= most


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff", "avif"])
def test_formats(halves, tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    halves.save(tmp_path / f"x.{suffix}")
    left, right = colours(read_picture(tmp_path / f"x.{suffix}"))
    assert near(left, LEFT) and near(right, RIGHT)


def test_heic_with_its_plugin_or_a_hint(halves, tmp_path):
    path = tmp_path / "x.heic"
    try:
        import pillow_heif
    except ImportError:
        path.write_bytes(b"\0\0\0\x18ftypheic")
        with pytest.raises(MissingError, match="need pillow-heif") as caught:
            read_picture(path)
        assert caught.value.hint == 'pip install "hy-core[heic]"'
    else:
        pillow_heif.from_pillow(halves).save(path)
        left, right = colours(read_picture(path))
        assert near(left, LEFT, 25) and near(right, RIGHT, 25)


@pytest.mark.parametrize(
    "mode", ["CMYK", "L", "P", "LA", "1", "YCbCr", "LAB", "HSV", "RGBA", "I", "F", "I;16"]
)
def test_modes(halves, tmp_path, mode):
    suffix = "tiff" if mode in ("CMYK", "YCbCr", "LAB", "I", "F", "I;16") else "png"
    if mode == "HSV":  # no format keeps it
        from hy_core.media.pictures import to_rgb

        found = to_rgb(halves.convert("HSV"))
    elif mode in ("I", "F", "I;16"):
        grey = np.asarray(halves.convert("L"), np.float64) / 255
        values = {"I": (grey * 65535).astype(np.int32), "F": grey.astype(np.float32)}
        Image.fromarray(values.get(mode, (grey * 65535).astype(np.uint16))).save(tmp_path / "x.tiff")
        found = read_picture(tmp_path / "x.tiff")
    else:
        if mode == "LAB":
            from PIL import ImageCms

            lab = ImageCms.buildTransform(
                ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
            )
            ImageCms.applyTransform(halves, lab).save(tmp_path / "x.tiff")
        else:
            halves.convert(mode).save(tmp_path / f"x.{suffix}")
        found = read_picture(tmp_path / f"x.{suffix}")
    left, right = colours(found)
    if mode in ("CMYK", "P", "YCbCr", "HSV", "RGBA", "LAB"):
        assert near(left, LEFT, 40) and near(right, RIGHT, 40)
    elif mode != "1":
        assert near(left, [halves.convert("L").getpixel((5, 20))] * 3, 2)


def test_sixteen_bits_a_channel(tmp_path):
    """A PNG of 16 bits is scaled, not cut off at white."""
    values = np.full((40, 60), 32768, np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert near(read_picture(tmp_path / "x.png").getpixel((5, 5)), (128, 128, 128), 1)


def test_what_is_transparent_becomes_white(halves, tmp_path):
    clear = halves.convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    clear.save(tmp_path / "x.png")
    assert colours(read_picture(tmp_path / "x.png")) == ((255, 255, 255),) * 2
    palette = halves.quantize(2)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((5, 5)))
    left, right = colours(read_picture(tmp_path / "p.png"))
    assert left == (255, 255, 255) and near(right, RIGHT, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_it_upright(halves, tmp_path, orientation):
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpositions that undo each
    stored = halves
    if orientation > 1:
        undo = [Image.Transpose(value) for value in range(7)]
        stored = halves.transpose(undo[back[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.jpg", exif=exif, quality=95)
    left, right = colours(read_picture(tmp_path / "x.jpg"))
    assert near(left, LEFT) and near(right, RIGHT)


def test_of_an_animation_the_first_frame(halves, tmp_path):
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"x.{suffix}"
        halves.save(
            path, save_all=True, append_images=[Image.new("RGB", halves.size, (0, 255, 0))], duration=100
        )
        left, right = colours(read_picture(path))
        assert near(left, LEFT) and near(right, RIGHT)


def png(width, height):
    """A PNG that claims to be very large, in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def jpeg(cut):
    held = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(held, "JPEG")
    return held.getvalue()[:cut]


BAD = {
    "empty.png": b"",
    "text.png": b"not a picture at all",
    "video.mp4": b"\0\0\0\x18ftypmp42" + b"\0" * 50,
    "cut.jpg": jpeg(3000),
    "head.jpg": jpeg(20),
    "bomb.png": png(60000, 60000),
    "cut.png": png(300, 300),
    "script.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_one_line(tiny, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(HyError) as caught:
        I2V(image=path).validate(tiny.request)
    assert "\n" not in caught.value.message and name in caught.value.message


@pytest.mark.parametrize(
    ("size", "said"),
    [((1, 1), "only 1x1"), ((20000, 10), "20000x10; at most 16384"), ((40, 15), "only 40x15")],
)
def test_sizes_that_show_nothing_or_too_much(tiny, tmp_path, size, said):
    Image.new("RGB", size).save(tmp_path / "x.png")
    with pytest.raises(HyError, match=said):
        I2V(image=tmp_path / "x.png").validate(tiny.request)


def test_a_folder_is_no_picture(tiny, tmp_path):
    with pytest.raises(HyError):
        I2V(image=tmp_path).validate(tiny.request)


# To the size of the video


@pytest.mark.parametrize("size", [(90, 70), (64, 64), (300, 40), (17, 200), (64, 48), (1000, 1001)])
def test_crop_fills_and_pad_shows_all(size):
    picture = Image.new("RGB", size, (255, 255, 255))
    assert np.asarray(pictures.resize(picture, 64, 48, "crop")).min() == 255
    padded = np.asarray(pictures.resize(picture, 64, 48, "pad"))
    assert padded.shape == (48, 64, 3)
    seen = (padded[..., 0] > 127).nonzero()
    high, wide = np.ptp(seen[0]) + 1, np.ptp(seen[1]) + 1
    assert (high == 48 or wide == 64) and abs(wide / high - size[0] / size[1]) < 0.1 * size[0] / size[
        1
    ] + 0.05


def test_crop_is_the_official_preparation(tmp_path):
    """Shorter side to the bucket's, bilinear, then the middle: torchvision's rules of rounding."""
    noise = np.random.default_rng(0).integers(0, 256, (72, 128, 3), np.uint8)
    picture = Image.fromarray(noise)
    found = np.asarray(pictures.resize(picture, 104, 64, "crop"))
    whole = picture.resize((int(64 * 128 / 72), 64), Image.Resampling.BILINEAR)  # 113 x 64
    left = int(round((113 - 104) / 2.0))
    assert np.array_equal(found, np.asarray(whole)[:, left : left + 104])
