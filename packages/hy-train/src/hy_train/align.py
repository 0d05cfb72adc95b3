"""Representation alignment (REPA, arXiv 2410.06940): tokens inside a DiT learn what a teacher knows of their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from hy_core.dit import DiT
from hy_core.errors import UsageError
from hy_core.imports import import_target
from torch import Tensor, nn

NAME = "align"
"""What the module is called at its port; it is no plugin's, and no file has it."""

Teacher = Callable[[Mapping[str, Any], tuple[int, int, int]], Tensor]
"""From a batch and the grid of tokens (F, rows, columns) to features [B, F, rows * columns, n], of a spread of 1."""


class Align(nn.Module):
    """At the port after a block: tells a teacher's features from tokens [B, F, S, D], which it leaves as they are.

    The feed is the features [B, F, S, n]; `loss` is the mean squared error of the last call.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, features)
        )
        self.loss: Tensor | None = None

    def forward(self, x: Tensor, feed: Tensor) -> Tensor:
        video = x[:, x.shape[1] - feed.shape[1] :]  # context frames stand before
        self.loss = F.mse_loss(self.head(video).float(), feed.to(x.device))
        return x


def find_teacher(text: str) -> Teacher:
    """The teacher "module:attribute"; UsageError or MissingError if there is none."""
    teacher: Teacher = import_target(text, "options.teacher")
    return teacher


def attach(dit: DiT, block: int, features: int) -> Align:
    """Put an `Align` behind block number `block`, from 1 on, of both kinds; UsageError if there are fewer."""
    blocks = [*dit.double_blocks, *dit.single_blocks]
    if not 0 < block <= len(blocks):
        raise UsageError(f"options.tap = {block}: the network has {len(blocks)} blocks")
    align = Align(dit.width, features)
    blocks[block - 1].after.attach(NAME, align)
    return align


@torch.no_grad()
def taught(teacher: Teacher, batch: Mapping[str, Any], dit: DiT) -> Tensor:
    """What the teacher says of a batch's latents, for the tokens of a network. Returns [B, F, S, n]."""
    t, h, w = dit.config.patch
    _, _, frames, height, width = batch["latents"].shape
    return teacher(batch, (frames // t, height // h, width // w))
