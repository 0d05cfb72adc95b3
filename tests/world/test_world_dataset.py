"""The dataset gives the same item for an index everywhere, and stacks into batches."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hy_core.errors import UsageError
from hy_world.dataset import WorldDataset, collate, sample
from torch.utils.data import DataLoader


def test_items_are_the_same_in_every_worker_and_run():
    dataset = WorldDataset(12, seed=3)
    alone = [dataset[index] for index in range(12)]
    loader = DataLoader(WorldDataset(12, seed=3), batch_size=4, num_workers=2, collate_fn=collate)
    together = [row for batch in loader for row in zip(batch["video"], batch["caption"], strict=True)]
    for item, (video, words) in zip(alone, together, strict=True):
        assert torch.equal(item["video"], video) and item["caption"] == words
    assert WorldDataset(12, seed=4)[0]["caption"] != alone[0]["caption"]
    assert len({item["caption"] for item in alone}) == 12


def test_videos_are_the_pixels_between_minus_one_and_one():
    item = WorldDataset(1)[0]
    assert item["video"].shape == (3, 17, 64, 64) and item["video"].dtype == torch.float32
    assert item["video"].min() >= -1 and item["video"].max() <= 1
    assert item["stated"].text == item["caption"]
    from hy_world.render import render

    pixels = ((item["video"] + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
    assert (pixels == render(item["scene"])).all()


def test_shapes_are_mixed_by_the_block():
    shapes = [(17, 64, 64), (1, 64, 64), (5, 32, 48)]
    dataset = WorldDataset(96, shapes=shapes, block=4)
    loader = DataLoader(dataset, batch_size=4, collate_fn=collate)
    drawn = {tuple(batch["video"].shape[2:]) for batch in loader}
    assert drawn == set(shapes)


def test_a_short_clip_is_a_window_of_a_whole_one():
    from hy_world.render import render

    dataset = WorldDataset(40, shapes=[(5, 64, 64)], objects=1)
    moving = 0
    for index in range(40):
        item = dataset[index]
        pixels = ((item["video"] + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
        whole = render(item["scene"])
        assert any((pixels == whole[start : start + 5]).all() for start in range(13))
        moving += (pixels[0] != pixels[-1]).any()
    assert moving > 20


def test_the_index_ends():
    dataset = WorldDataset(3)
    assert len(list(dataset)) == len(dataset) == 3
    with pytest.raises(IndexError):
        dataset[3]


def test_plain_numpy_gives_scene_and_clip():
    scene, video = sample(np.random.default_rng(0), "heldout", 9, 64, 96, objects=2)
    assert video.shape == (9, 64, 96, 3) and len(scene.things) == 2


def test_the_plugin_and_the_command_load_without_torch():
    code = (
        "import importlib, sys, hy_world.plugin, hy_world.evaluate, hy_world.dataset\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules\n"
        "names = {}\n"
        "hy_world.plugin.register_datasets(lambda name, target: names.setdefault(name, target))\n"
        "assert names['world'] == 'hy_world.dataset:WorldDataset'\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules\n"
        "for target in names.values():\n"
        "    module, _, name = target.partition(':')\n"
        "    assert callable(getattr(importlib.import_module(module), name)), target\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_some_things_are_drawn_more_often():
    dataset = WorldDataset(often={"star": 3})
    rng = np.random.default_rng(0)
    shapes = [dataset.clip(rng, "train", 1, 64, 64, 1).scene.things[0].shape for _ in range(400)]
    assert 0.42 < shapes.count("star") / 400 < 0.58  # 3 of 6
    assert {"circle", "square", "triangle"} < set(shapes)
    with pytest.raises(UsageError, match="'stars'"):
        WorldDataset(often={"stars": 3})
