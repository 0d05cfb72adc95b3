"""Representation alignment (REPA, arXiv 2410.06940): tokens inside a DiT learn to predict features of their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hy_core.dit import DiT
from hy_core.errors import UsageError
from hy_core.imports import import_target
from hy_core.training import TrainingBatch
from torch import Tensor, nn

NAME = "repa"
"""The name of the module at its port. No plugin has it, and no file stores the module."""

RepaTargets = Callable[[TrainingBatch, tuple[int, int, int]], Tensor]
"""From a batch and the grid of tokens (F, rows, columns) to features [B, F, rows * columns, n] of unit variance."""


class RepaHead(nn.Module):
    """At the port after a block: predicts features from tokens [B, F, S, D], which it returns unchanged.

    The adapter input is the target features [B, F, S, n]; `loss` is the mean squared error of the last call.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, features)
        )
        self.loss: Tensor | None = None

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        video = x[:, x.shape[1] - target.shape[1] :]  # context frames stand before the video
        self.loss = F.mse_loss(self.head(video).float(), target.to(x.device))
        return x


def find_targets(name: str) -> RepaTargets:
    """Import the function "module:attribute"; `UsageError` or `MissingError` if there is none."""
    targets: Any = import_target(name, "options.repa_targets")
    if not callable(targets):
        raise UsageError(f"options.repa_targets = {name!r} is not a function of (batch, grid)")
    found: RepaTargets = targets
    return found


def attach(dit: DiT, block: int, features: int) -> RepaHead:
    """Attach a `RepaHead` after a block, counted from 1 over double and single blocks; `UsageError` for no such."""
    blocks = [*dit.double_blocks, *dit.single_blocks]
    if not 0 < block <= len(blocks):
        raise UsageError(f"options.repa_block = {block}: the network has {len(blocks)} blocks")
    head = RepaHead(dit.width, features)
    blocks[block - 1].after.attach(NAME, head)
    return head


def head(dit: DiT, block: int) -> RepaHead:
    """Return the head that `attach` attached after a block."""
    found = [*dit.double_blocks, *dit.single_blocks][block - 1].after[NAME]
    assert isinstance(found, RepaHead)
    return found


@torch.no_grad()
def target_features(targets: RepaTargets, batch: TrainingBatch, dit: DiT) -> Tensor:
    """Return the target features of a batch for the tokens of a network, [B, F, S, n]."""
    t, h, w = dit.config.patch
    _, _, frames, height, width = batch.latents.shape
    return targets(batch, (frames // t, height // h, width // w))
