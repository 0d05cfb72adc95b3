"""Weights that follow all drivers, in small, and characters that drive them."""

from __future__ import annotations

import copy
import json

import torch
from hy_avatar import network, pose
from hy_avatar.clip_features import pose_track
from hy_avatar.config import AvatarConfig, Expression, Speech
from hy_avatar.drivers import Drivers
from hy_core.condition import Condition
from hy_core.data import Clip, ClipShape, SourceSpec
from hy_core.testing.tiny import randomised
from hy_core.training import TrainingBatch
from hy_core.weights import save_port_weights
from hy_world.sources.characters import CharacterSource

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
    """A clip of a character with its annotations."""
    options = {"framings": [framing], "changing": 0.0}
    return CharacterSource(SourceSpec("characters", "train", seed, 1, frames, size, size, options=options))[0]


def pose_file(path, seed=0, size=64):
    pose.save(path, pose_track(actor(seed, size=size).annotations(), size, size))
    return path


def batch(clips: list[Clip], cond: Condition, keys: str = "abcdefgh", **more) -> TrainingBatch:
    """A training batch of these clips."""
    generator = torch.Generator().manual_seed(0)
    values = {
        "latents": torch.randn(len(clips), 16, cond.frames, *cond.size, generator=generator),
        "shape": ClipShape(*clips[0].video().shape[:3]),
        "text": list(cond.text),
        "pooled": cond.pooled,
        "prompts": ["someone"] * len(clips),
        "clips": clips,
        "keys": list(keys[: len(clips)]),
        "generator": generator,
    }
    return TrainingBatch(**{**values, **more})
