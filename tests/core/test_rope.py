"""Rotary positions: only differences count, along each axis and for any size."""

from __future__ import annotations

import torch
from hy_core.dit.rope import frequencies, rotate, table
from hypothesis import given, settings
from hypothesis import strategies as st

DIMS = (4, 6, 6)
position = st.floats(-50, 50, allow_nan=False, width=32)
point = st.tuples(position, position, position)


def turn(x: torch.Tensor, at) -> torch.Tensor:
    return rotate(x[None, None], table([torch.tensor([value]) for value in at], DIMS))[0, 0]


@settings(max_examples=50, deadline=None)
@given(point, point, st.tuples(*[st.integers(-40, 40)] * 3))
def test_rope_is_relative(one, other, shift) -> None:
    """The product of a query and a key doesn't change when both move by the same amount on any axis."""
    torch.manual_seed(0)
    q, k = torch.randn(2, sum(DIMS))
    moved = [[a + b for a, b in zip(at, shift, strict=True)] for at in (one, other)]
    before = turn(q, one) @ turn(k, other)
    after = turn(q, moved[0]) @ turn(k, moved[1])
    assert torch.allclose(before, after, atol=2e-3)


def test_position_zero_turns_nothing() -> None:
    x = torch.randn(3, 16)
    assert torch.equal(rotate(x[:, None], table([torch.zeros(3), *[torch.zeros(1)] * 2], DIMS))[:, 0], x)


def test_grid_is_row_major_and_axes_keep_their_channels() -> None:
    axes = [torch.arange(2.0), torch.arange(3.0), torch.arange(4.0)]
    angles = table(axes, DIMS).angle().view(2, 3, 4, 8)
    assert torch.equal(angles[1, 0, 0] != 0, torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.bool))
    assert torch.equal(angles[0, 2, 0] != 0, torch.tensor([0, 0, 1, 1, 1, 0, 0, 0], dtype=torch.bool))
    assert torch.equal(angles[0, 0, 3] != 0, torch.tensor([0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.bool))


def test_neighbouring_channels_are_a_pair() -> None:
    """(x0, x1), (x2, x3)... turn together, as the released weights expect, and not the halves of a head."""
    x = torch.zeros(1, 1, 16)
    x[..., 0] = 1
    out = rotate(x, table([torch.tensor([1.0]), torch.zeros(1), torch.zeros(1)], DIMS))[0, 0]
    assert torch.allclose(out[:2], torch.stack((torch.tensor(1.0).cos(), torch.tensor(1.0).sin())))
    assert not out[2:].any()


def test_frequencies_of_the_released_model() -> None:
    """Temporal periods in latent frames: 6.3, 12.6, 25.1, 50.3, ...: videos of 201 frames come round again."""
    periods = 2 * torch.pi / frequencies(16)
    assert torch.allclose(periods[:4], torch.tensor([6.283, 12.566, 25.133, 50.265]), atol=1e-3)
