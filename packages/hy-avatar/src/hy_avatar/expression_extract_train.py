"""Train a `FaceCodec` so that its dynamics code holds expression alone: VASA-1's losses (facts, section 1.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from hy_avatar.face_codec import FaceCodec

Identify = Callable[[Tensor], Tensor]  # pictures [N, 3, S, S] -> features [N, D]


@dataclass(frozen=True)
class Losses:
    """Each term of the objective, scalars."""

    rebuilt: Tensor
    transfer: Tensor
    identity: Tensor

    def total(self, transfer: float = 1.0, identity: float = 0.1) -> Tensor:
        """Return the weighted sum that is minimised. Returns a scalar tensor."""
        return self.rebuilt + transfer * self.transfer + identity * self.identity


def losses(codec: FaceCodec, one: Tensor, other: Tensor, identify: Identify | None = None) -> Losses:
    """Compute the losses of a batch of pairs: `one` and `other`, [N, 3, S, S], are two frames of the same clip each.

    * rebuilt: appearance and identity of `one` with pose and dynamics of `other` must draw `other`, and each frame's
      own codes must draw itself.
    * transfer: (appearance, identity of `other`; pose of `one`; dynamics of `other`) and (appearance, identity of
      `one`; pose of `one`; dynamics of `other`) must be one picture: pose and dynamics each say only their own part.
    * identity: a face that takes pose and dynamics from the next clip's person must stay the same person: one minus the
      cosine of the identity features of the source and of the result. `identify` makes the features; without it the
      codec's own identity code does, held fixed for this term so that it can't be dulled to please it.

    N must be at least 2 for the last one; it is 0 for one pair.
    """
    a, b = codec.encode(one), codec.encode(other)
    own = codec.render(a["appearance"], a["identity"], a["pose"], a["dynamics"])
    driven = codec.render(a["appearance"], a["identity"], b["pose"], b["dynamics"])
    rebuilt = functional.l1_loss(own, one) + functional.l1_loss(driven, other)
    left = codec.render(b["appearance"], b["identity"], a["pose"], b["dynamics"])
    right = codec.render(a["appearance"], a["identity"], a["pose"], b["dynamics"])
    transfer = functional.l1_loss(left, right)
    if len(one) < 2:
        return Losses(rebuilt, transfer, rebuilt.new_zeros(()))
    crossed = codec.render(a["appearance"], a["identity"], b["pose"].roll(1, 0), b["dynamics"].roll(1, 0))
    features = identify or _fixed_identity(codec)
    with torch.no_grad():
        source = features(one)
    identity = 1 - functional.cosine_similarity(source, features(crossed), dim=-1).mean()
    return Losses(rebuilt, transfer, identity)


def _fixed_identity(codec: FaceCodec) -> Identify:
    weights = {key: value.detach() for key, value in codec.identity.state_dict().items()}
    return lambda pictures: functional_call(codec.identity, weights, (pictures,))


def train(
    codec: FaceCodec,
    pairs: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    rate: float = 2e-3,
    identify: Identify | None = None,
) -> list[Losses]:
    """Train on batches of pairs (see `losses`), and return each step's losses, detached.

    Batches are pairs of pictures [B, 3, H, W] in [-1, 1].
    """
    optimiser = torch.optim.AdamW(codec.parameters(), lr=rate, weight_decay=0.01)
    codec.train()
    history = []
    for _ in range(steps):
        one, other = next(pairs)
        now = losses(codec, one, other, identify)
        optimiser.zero_grad(set_to_none=True)
        now.total().backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
        history.append(Losses(now.rebuilt.detach(), now.transfer.detach(), now.identity.detach()))
    codec.eval()
    return history
