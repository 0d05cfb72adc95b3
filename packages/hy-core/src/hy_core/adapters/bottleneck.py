"""The bottleneck adapter: x + gate * mask * up(relu(down(x))), on the video's tokens behind a block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_core.dit.ports import add_to_video


class Bottleneck(nn.Module):
    """Down -> ReLU -> up with a learned gate, at a block's port; the identity at first, as `up` is zero (Houlsby 2019).

    It is called for every clip. Adapter inputs under its name, if a plugin sets them, are a mask [B, F, S, 1] of the
    video's tokens: where it is 0, nothing changes. `strength` multiplies the change.
    """

    #: A port calls it without adapter inputs too.
    unconditional = True

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.gate = nn.Parameter(torch.ones(1))
        self.strength = 1.0
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Change tokens x [B, F, S, D] where the mask [B, F', S, 1] isn't 0 (everywhere without one); x's shape."""
        hidden = F.layer_norm(x.to(self.down.weight.dtype), x.shape[-1:])
        change: Tensor = self.up(F.relu(self.down(hidden))) * (self.gate * self.strength)
        if mask is None:
            return x + change.to(x.dtype)
        return add_to_video(x, change[:, change.shape[1] - mask.shape[1] :], mask)
