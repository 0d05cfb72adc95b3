"""Targets of representation alignment: what stands at every place of a clip, known from its scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hy_world.attributes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES
from hy_world.render import coverage
from hy_world.scene import Scene, Thing, Track

if TYPE_CHECKING:
    from hy_core.training import TrainingBatch
    from torch import Tensor

_GROUP = 4  # frames of a latent frame; the first has one
_FINE = 4  # parts of a place, across and down, for each of which the covered share is a target


def repa_targets(batch: TrainingBatch, grid: tuple[int, int, int]) -> Tensor:
    """Targets of the REPA loss: features [B, F, rows * columns, n] of a batch's scenes, for a grid of tokens.

    Every number has a spread of about 1.
    """
    import torch

    rows = [features(clip.annotations()["scene"], *batch.shape, grid) for clip in batch.clips]
    return torch.from_numpy(np.stack(rows)).flatten(2, 3)


def features(scene: Scene, frames: int, height: int, width: int, grid: tuple[int, int, int]) -> np.ndarray:
    """Features float32 [F, rows, columns, n] of the thing that is nearest to each place of a grid, and the background.

    How far away it is in both directions, whether the place lies in it, its size, speed and angle, its shape, colour
    and motion; times are latent frames. Last, how much of each part of the place things cover, its parts row by row.
    """
    count, rows, columns = grid
    unit = scene.unit(height, width)
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) / rows * height, (np.arange(columns) + 0.5) / columns * width, indexing="ij"
    )
    found, nearest = None, np.full((count, rows, columns), np.inf)
    covered = np.zeros((count, rows, columns, _FINE * _FINE))
    for thing, track in zip(scene.things, scene.tracks(frames, height, width), strict=True):
        covered += _covered(thing, track, height, width, (rows, columns))
        path = np.stack([track.x, track.y, track.radius, np.sin(track.angle), np.cos(track.angle)])  # [5, T]
        speed = np.gradient(path[:2], axis=1) if frames > 1 else np.zeros((2, 1))
        centre_x, centre_y, radius, sine, cosine, *speed = grouped(np.concatenate([path, speed]))[
            ..., None, None
        ]
        away_x, away_y = (centre_x - x) / unit, (centre_y - y) / unit  # [F, rows, columns]
        distance = np.hypot(away_x, away_y)
        numbers = [
            np.clip(4 * away_x, -2, 2),
            np.clip(4 * away_y, -2, 2),
            np.clip((radius / unit - distance) * 16, -1, 1),
            radius / unit * 16 - 2,
            *(64 / unit * part for part in speed),
            sine,
            cosine,
        ]
        names = [
            *one_hot(thing.shape, SHAPES),
            *one_hot(thing.colour, tuple(COLOURS)),
            *one_hot(thing.motion, MOTIONS),
        ]
        mine = np.stack(np.broadcast_arrays(*numbers, *names, distance)[:-1], -1)
        closer = distance < nearest
        found = mine if found is None else np.where(closer[..., None], mine, found)
        nearest = np.minimum(distance, nearest)
    ground = np.broadcast_to(one_hot(scene.background, BACKGROUNDS), (*nearest.shape, len(BACKGROUNDS)))
    return np.concatenate([found, ground, 4 * covered - 0.25], -1).astype(np.float32)


def _covered(thing: Thing, track: Track, height: int, width: int, grid: tuple[int, int]) -> np.ndarray:
    """How much of each part of each place a thing covers, 0..1, [F, rows, columns, parts]."""
    rows, columns = grid
    down, across = height / rows / _FINE, width / columns / _FINE  # pixels of a part
    y = (np.arange(rows * _FINE) + 0.5) * down
    x = (np.arange(columns * _FINE) + 0.5) * across
    dx, dy = x - track.x[:, None], y - track.y[:, None]  # [T, columns * parts], [T, rows * parts]
    unit = (down + across) / 2  # `coverage` draws in pixels: here a part is one
    share = coverage(
        thing.shape,
        dx[:, None, :] / unit,
        dy[:, :, None] / unit,
        track.radius[:, None, None] / unit,
        track.angle[:, None, None],
    )
    share = grouped(share.reshape(len(share), -1).T).T  # [F, rows * parts * columns * parts]
    share = share.reshape(-1, rows, _FINE, columns, _FINE).transpose(0, 1, 3, 2, 4)
    return share.reshape(*share.shape[:3], -1)


def one_hot(name: str, names: tuple[str, ...]) -> np.ndarray:
    """A name of several as numbers [n] with mean 0 and spread 1, if all are as frequent."""
    share = 1 / len(names)
    return (np.array([float(one == name) for one in names]) - share) / np.sqrt(share * (1 - share))


def grouped(path: np.ndarray) -> np.ndarray:
    """Means of [n, T] over the frames of each latent frame: [n, F]; the first frame stands alone."""
    rest = path[:, 1:].reshape(len(path), -1, _GROUP).mean(2)
    return np.concatenate([path[:, :1], rest], 1)
