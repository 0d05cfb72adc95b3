"""Working on a clip tile by tile, with the overlaps blended as the original project and diffusers do.

Tiles have normalisation statistics and attention of their own: a tiled result is another result than the
whole one, not a rounding of it. The arithmetic (tiles at every stride, time outside space, a linear ramp that
starts at the earlier tile, neighbours that see tiles already blended) is the one both projects use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hy_core.errors import UsageError
from hy_core.vae.config import VAEConfig


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis, as (tile, stride) counted in pixels or frames of the clip."""

    tile: int
    stride: int


@dataclass(frozen=True)
class Tiling:
    """Which axes are tiled and how. None: that axis is taken whole (height and width go together).

    A clip no longer than `time.tile` frames is not tiled in time; one that fits `height.tile` x `width.tile`
    is not tiled in space, but a clip that exceeds one of them is tiled along both.
    """

    time: Axis | None = None
    height: Axis | None = None
    width: Axis | None = None

    OFFICIAL: ClassVar[Tiling]
    DIFFUSERS: ClassVar[Tiling]
    DIFFUSERS_DEFAULT: ClassVar[Tiling]

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            raise UsageError("tiling needs both height and width", hint="give both, or neither")
        for axis in (self.time, self.height, self.width):
            if axis and not 0 < axis.stride <= axis.tile:
                raise UsageError(
                    f"tiles of {axis.tile} cannot advance by {axis.stride}",
                    hint="use a stride of 1 to the tile size",
                )

    @classmethod
    def official(cls, config: VAEConfig) -> Tiling:
        """Tiles of the config's sample size with a quarter of overlap, as the original project cuts them."""
        space = Axis(config.sample_size, config.sample_size * 3 // 4)
        return cls(Axis(config.sample_frames, config.sample_frames * 3 // 4), space, space)

    @classmethod
    def named(cls, name: str, config: VAEConfig) -> Tiling | None:
        """`official` (from the config), `diffusers` (after its `enable_tiling()`), or `off`."""
        if name == "off":
            return None
        if name == "official":
            return cls.official(config)
        if name == "diffusers":
            return cls.DIFFUSERS
        raise UsageError(f"unknown tiling '{name}'", hint="use official, diffusers or off")


Tiling.OFFICIAL = Tiling.official(VAEConfig())
Tiling.DIFFUSERS = Tiling(Axis(16, 12), Axis(256, 192), Axis(256, 192))
#: What diffusers does as constructed, without `enable_tiling()`.
Tiling.DIFFUSERS_DEFAULT = Tiling(Axis(16, 12))
WHOLE = Tiling()


def encode_tiles(run: Callable[[Tensor], Tensor], x: Tensor, tiling: Tiling, config: VAEConfig) -> Tensor:
    """Moments of pixels [B, 3, T, H, W], `run` making those of a tile."""
    plan = tuple(
        _Plan.to_latents(axis, factor)
        for axis, factor in zip(
            (tiling.time, tiling.height, tiling.width), (config.time, config.space, config.space), strict=True
        )
    )
    return torch.cat(list(_over_time(run, x, *plan)), dim=2)


def decode_tiles(
    run: Callable[[Tensor], Tensor], z: Tensor, tiling: Tiling, config: VAEConfig
) -> Iterator[Tensor]:
    """Pixels of latents [B, C, t, h, w] in chunks of frames, first to last, `run` decoding a tile.

    Holds one temporal tile of pixels and the frames it shares with the next.
    """
    plan = tuple(
        _Plan.to_pixels(axis, factor)
        for axis, factor in zip(
            (tiling.time, tiling.height, tiling.width), (config.time, config.space, config.space), strict=True
        )
    )
    return _over_time(run, z, *plan)


@dataclass(frozen=True)
class _Plan:
    """An axis in the units of what goes in and what comes out."""

    tile: int
    stride: int
    kept: int
    blend: int

    @classmethod
    def to_latents(cls, axis: Axis | None, factor: int) -> _Plan | None:
        small = cls.to_pixels(axis, factor)
        if axis is None or small is None:
            return None
        return cls(axis.tile, axis.stride, small.stride, small.tile - small.stride)

    @classmethod
    def to_pixels(cls, axis: Axis | None, factor: int) -> _Plan | None:
        if axis is None:
            return None
        if axis.tile % factor or axis.stride % factor:
            raise UsageError(
                f"tiles of {axis.tile} with stride {axis.stride} cut through a latent",
                hint=f"use multiples of {factor}",
            )
        return cls(axis.tile // factor, axis.stride // factor, axis.stride, axis.tile - axis.stride)


def _over_time(
    run: Callable[[Tensor], Tensor], x: Tensor, time: _Plan | None, rows: _Plan | None, columns: _Plan | None
) -> Iterator[Tensor]:
    frames = x.shape[2]
    if time is None or frames <= time.tile:
        yield _over_space(run, x, rows, columns)
        return
    tail = None
    for start in range(0, frames, time.stride):
        # A tile brings one frame more than its size, and all but the first give it up again: the first frame
        # a decoder sees becomes a single frame of pixels.
        part = x[:, :, start : start + time.tile + 1]
        if tail is None:
            tile, kept = _over_space(run, part, rows, columns), time.kept + 1
        elif part.shape[2] > 1:
            tile, kept = _over_space(run, part, rows, columns)[:, :, 1:], time.kept
            _blend(tail, tile, 2, time.blend)
        else:
            return
        tail = tile[:, :, max(tile.shape[2] - time.blend, 0) :].clone()
        yield tile[:, :, :kept]


def _over_space(
    run: Callable[[Tensor], Tensor], x: Tensor, rows: _Plan | None, columns: _Plan | None
) -> Tensor:
    height, width = x.shape[3:]
    if rows is None or columns is None or (height <= rows.tile and width <= columns.tile):
        return run(x)
    out: Tensor | None = None
    above: list[Tensor] = []
    for i, top in enumerate(range(0, height, rows.stride)):
        below, left = [], None
        for j, start in enumerate(range(0, width, columns.stride)):
            tile = run(x[:, :, :, top : top + rows.tile, start : start + columns.tile])
            if above:
                _blend(above[j], tile, 3, rows.blend)
            if left is not None:
                _blend(left, tile, 4, columns.blend)
            left = tile[..., max(tile.shape[4] - columns.blend, 0) :]
            below.append(tile[:, :, :, max(tile.shape[3] - rows.blend, 0) :].clone())
            if out is None:
                size = height * rows.kept // rows.stride, width * columns.kept // columns.stride
                out = tile.new_empty(*tile.shape[:3], *size)
            place = out[:, :, :, i * rows.kept :, j * columns.kept :]
            place = place[:, :, :, : min(rows.kept, tile.shape[3]), : min(columns.kept, tile.shape[4])]
            place.copy_(tile[:, :, :, : rows.kept, : columns.kept])
        above = below
    assert out is not None  # there is at least one tile
    return out


def _blend(before: Tensor, tile: Tensor, dim: int, extent: int) -> None:
    """Fade from the end of `before` into the start of `tile`, in place."""
    extent = min(extent, before.shape[dim], tile.shape[dim])
    if not extent:
        return
    shape = [1] * tile.ndim
    shape[dim] = extent
    ramp = (torch.arange(extent, device=tile.device) / extent).to(tile.dtype).view(shape)
    start = tile.narrow(dim, 0, extent)
    start.mul_(ramp).add_(before.narrow(dim, before.shape[dim] - extent, extent) * (1 - ramp))
