"""The size of a video that starts from a picture."""

from __future__ import annotations

import pytest
from hy_core import Conditioner
from hy_core.conditioner import suggested
from hy_core.errors import ConflictError
from hy_i2v.plugin import I2V
from hy_i2v.sizes import CLASSES, buckets, class_of, nearest, official
from PIL import Image

LARGE = {"width": 1280, "height": 720}


def picture(tmp_path, width, height):
    Image.new("RGB", (width, height), (9, 99, 199)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.mark.parametrize(("name", "count"), [("720p", 91), ("540p", 67), ("360p", 43)])
def test_the_list_of_a_class(name, count):
    sizes = buckets(CLASSES[name])
    assert len(sizes) == len(set(sizes)) == count
    for height, width in sizes:
        assert height % 32 == width % 32 == 0 and height * width <= CLASSES[name] ** 2
        assert max(height, width) <= 4 * min(height, width) and (width, height) in sizes


@pytest.mark.parametrize("name", ["720p", "540p", "360p"])
@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((720, 1280), {"720p": (704, 1248), "540p": (544, 928), "360p": (352, 608)}),
        ((1080, 1920), {"720p": (704, 1248), "540p": (544, 928), "360p": (352, 608)}),
        ((1280, 720), {"720p": (1248, 704), "540p": (928, 544), "360p": (608, 352)}),
        ((1024, 1024), {"720p": (960, 960), "540p": (704, 704), "360p": (480, 480)}),
        ((768, 1024), {"720p": (832, 1088), "540p": (608, 800), "360p": (416, 544)}),
    ],
)
def test_the_official_rule(size, wanted, name):
    """Every row of core.md's section 5.4; a class of 540p has half a step on its side (720 / 32 = 22.5)."""
    assert official(*size, buckets(CLASSES[name])) == wanted[name]


def test_trap_10_a_wide_picture_at_720p_is_not_1280x720():
    assert official(1080, 1920, buckets(CLASSES["720p"])) == (704, 1248)


def test_the_official_rule_moves_some_of_its_own_sizes_and_ours_none():
    for base, moved in ((960, 36), (720, None), (480, None)):
        sizes = buckets(base)
        assert all(nearest(*size, sizes) == size for size in sizes)
        if moved is not None:
            assert sum(official(*size, sizes) != size for size in sizes) == moved
    assert official(704, 1248, buckets(960)) == (736, 1248)


def test_extreme_pictures_get_the_most_extreme_size():
    sizes = buckets(960)
    for rule in (nearest, official):
        assert rule(16000, 20, sizes) == (1920, 480) and rule(20, 16000, sizes) == (480, 1920)


def test_the_class_of_a_model():
    assert class_of(720, 1280) == "720p" and class_of(544, 960) == "540p" and class_of(480, 480) == "360p"
    assert class_of(64, 64) is None


def test_a_large_model_takes_the_pictures_shape_and_pocket_its_own_size(tmp_path):
    plugin = I2V(image=picture(tmp_path, 896, 1344))
    assert plugin.defaults(LARGE) == {"width": 768, "height": 1152}
    assert plugin.defaults({"width": 64, "height": 64}) == {}
    assert I2V(image=tmp_path / "x.png", resolution="model").defaults(LARGE) == {}
    assert I2V(image=tmp_path / "x.png", resolution="360p").defaults({"width": 64, "height": 64}) == {
        "width": 384,
        "height": 576,
    }


def test_the_official_rule_on_request(tmp_path):
    path = picture(tmp_path, 1248, 704)
    assert I2V(image=path).defaults(LARGE) == {"width": 1248, "height": 704}
    assert I2V(image=path, official_size=True).defaults(LARGE) == {"width": 1248, "height": 736}


def test_size_on_the_command_line_wins(tmp_path, hy):
    path = picture(tmp_path, 100, 100)
    words = (
        "generate",
        "it bounces",
        "-p",
        "i2v",
        "--i2v-image",
        path,
        "--i2v-resolution",
        "360p",
        "--dry-run",
    )
    assert "480" in hy(*words).stdout
    shown = hy(*words, "--size", "96x64").stdout
    assert "96" in shown and "480" not in shown.split("options")[0].split("it bounces")[-1].split("frames")[0]


def test_two_plugins_that_want_different_sizes(tmp_path):
    class Other(Conditioner):
        def defaults(self, model):
            return {"width": 999}

    with pytest.raises(ConflictError, match="i2v suggests width 960, other suggests 999"):
        suggested([I2V(image=picture(tmp_path, 64, 64)), Other()], LARGE)
