"""The world's sources: the clip at an index is the same everywhere, and says what it shows."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hy_core.data import SourceSpec
from hy_core.errors import UsageError
from hy_world.render import backdrop, render
from hy_world.sources.scenes import WorldSource, sample
from hy_world.sources.sounding import SoundingSource


def world(
    count: int = 12, seed: int = 0, shape: tuple[int, int, int] = (17, 64, 64), **options
) -> WorldSource:
    return WorldSource(SourceSpec("world", "train", seed, count, *shape, options=options))


def test_clips_are_the_same_in_every_process_and_run():
    code = (
        "import numpy as np\nfrom hy_core.data import SourceSpec\nfrom hy_world.sources.scenes import WorldSource\n"
        "source = WorldSource(SourceSpec('world', seed=3, count=12))\n"
        "print(source.fingerprint, [source[i].caption(np.random.default_rng(0)) for i in range(12)],"
        " int(source[5].video().sum()))"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    source = world(seed=3)
    words = [source[index].caption(np.random.default_rng(0)) for index in range(12)]
    assert elsewhere == f"{source.fingerprint} {words} {int(source[5].video().sum())}\n"
    assert len(set(words)) == 12
    assert world(seed=4)[0].scene != source[0].scene


def test_a_clip_is_its_scene():
    clip = world()[1]
    assert (clip.video() == render(clip.scene)).all()
    assert (clip.background() == backdrop(clip.scene.background, 64, 64)).all()
    assert clip.annotations()["scene"] == clip.scene and clip.fps == 8.0
    sound = clip.sound()
    assert sound.rate == 16_000 and sound.samples.shape == (1, round(17 / 8 * 16_000))


def test_shapes_are_told_without_rendering():
    source = world(shape=(5, 32, 48))
    assert source.shape(0) == (5, 32, 48) == source[0].video().shape[:3]


def test_fingerprints_change_with_what_is_asked_for():
    asked = [world(), world(seed=1), world(count=13), world(shape=(5, 64, 64)), world(objects=1)]
    assert len({one.fingerprint for one in asked}) == len(asked)
    assert world().fingerprint == asked[0].fingerprint


def test_the_source_ends():
    source = world(3)
    assert len(list(source)) == len(source) == 3
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(UsageError, match="clips = 0"):
        world(0)


def test_sounding_clips_are_windows_of_whole_scenes():
    source = SoundingSource(SourceSpec("world-sound", seed=1, count=40, group=4, options={"objects": 1}))
    windows = 0
    for index in range(40):
        clip = source[index]
        known = clip.annotations()
        whole = render(clip.scene, known["whole"], 64, 64)
        start = known["start"]
        assert (clip.video() == whole[start : start + clip.frames]).all()
        windows += clip.frames < known["whole"]
        seconds = clip.frames / clip.fps
        assert clip.sound().samples.shape[1] == pytest.approx(seconds * 16_000, abs=1)
        first = source[index - index % 4]
        assert seconds == pytest.approx(first.frames / first.fps)  # a group lasts equally long
    assert 8 < windows < 32


def test_plain_numpy_gives_scene_and_clip():
    scene, video = sample(np.random.default_rng(0), "heldout", 9, 64, 96, objects=2)
    assert video.shape == (9, 64, 96, 3) and len(scene.things) == 2


def test_the_plugin_and_the_command_load_without_torch():
    code = (
        "import importlib, sys, hy_world.plugin, hy_world.evaluate, hy_world.sources.scenes\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules\n"
        "names = {}\n"
        "hy_world.plugin.register_datasets(lambda name, target: names.setdefault(name, target))\n"
        "assert names['world'] == 'hy_world.sources.scenes:WorldSource'\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules\n"
        "for target in names.values():\n"
        "    module, _, name = target.partition(':')\n"
        "    assert callable(getattr(importlib.import_module(module), name)), target\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_some_values_are_drawn_more_often():
    source = world(400, shape=(1, 64, 64), objects=1, oversample={"star": 3})
    shapes = [source[index].scene.things[0].shape for index in range(400)]
    assert 0.42 < shapes.count("star") / 400 < 0.58  # 3 of 6
    assert {"circle", "square", "triangle"} < set(shapes)
    with pytest.raises(UsageError, match="'stars'"):
        world(oversample={"stars": 3})
