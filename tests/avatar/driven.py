"""Weights that follow all drivers, in small, and characters that drive them."""

from __future__ import annotations

import copy
import json

import numpy as np
import torch
from hy_avatar import network, pose
from hy_avatar.clip_features import pose_track
from hy_avatar.config import AvatarConfig, Expression, Speech
from hy_avatar.drivers import Drivers
from hy_core.condition import Condition
from hy_core.testing.tiny import randomised
from hy_core.weights import save_port_weights
from hy_world.characters_dataset import CharacterDataset, StageClip

CONFIG = AvatarConfig(
    speech=Speech(layers=1, channels=20, hidden=8, inner=8, encoder="mel", every=1),
    expression=Expression(features=12, hidden=8, tokens=3, inner=8, every_double=1, every_single=1),
    pose="guided",
    area=1.5,
)


def drivers(avatar, request):
    """What drives a clip by the options of an avatar, without a model."""
    return Drivers(avatar.options, avatar.picture(), request, CONFIG, avatar.error)


def weights(tiny, path, config=CONFIG):
    """A file with modules that do something."""
    dit = copy.deepcopy(tiny.dit)
    network.attach_modules(dit, "avatar", config)
    for module in (
        dit.adapter_inputs,
        dit.embed,
        dit.time,
        *(b.after for b in (*dit.double_blocks, *dit.single_blocks)),
    ):
        randomised(module, 1)
    save_port_weights(dit, "avatar", path, {"config": json.dumps(config.to_json())})
    return path


def actor(seed=0, frames=9, framing="full", size=64):
    """A clip of a character with the truth about it."""
    dataset = CharacterDataset(framings=(framing,), changing=0.0)
    return dataset.clip(np.random.default_rng(seed), "train", frames, size, size)


def pose_file(path, seed=0, size=64):
    pose.save(path, pose_track(actor(seed, size=size).truth(), size, size))
    return path


def batch(clips: list[StageClip], cond: Condition, keys: str = "abcdefgh", **more) -> dict:
    """What training says of a batch of these clips."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.stack([torch.from_numpy(clip.pixels()).permute(3, 0, 1, 2) / 127.5 - 1 for clip in clips])
    return {
        "latents": torch.randn(len(clips), 16, cond.frames, *cond.size, generator=generator),
        "pixels": lambda: pixels,
        "truth": lambda row: clips[row].truth(),
        "keys": list(keys[: len(clips)]),
        "prompts": ["someone"] * len(clips),
        "generator": generator,
        **more,
    }
