"""Tiles of the VAE: how they are cut and blended, that they stream, and what they cost."""

from __future__ import annotations

import pytest
import torch
from core.vae_small import Memory, make, rand
from hy_core.errors import UsageError
from hy_core.vae import Axis, Tiling, VAEConfig
from hy_core.vae.layers import enlarge
from hy_core.vae.tiling import decode_tiles, encode_tiles
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = VAEConfig()
TILES = Tiling(Axis(8, 4), Axis(16, 8), Axis(24, 16))


@st.composite
def tilings(draw):
    def axis(factor):
        tile = draw(st.integers(1, 6))
        return Axis(tile * factor, draw(st.integers(1, tile)) * factor)

    time = axis(4) if draw(st.booleans()) else None
    return Tiling(time, axis(8), axis(8)) if draw(st.booleans()) else Tiling(time)


@settings(max_examples=60, deadline=None)
@given(tiling=tilings(), size=st.tuples(st.integers(1, 14), st.integers(1, 9), st.integers(1, 9)))
def test_tiles_of_a_local_map_join_without_a_trace(tiling, size):
    """What doesn't depend on its surroundings is the same from any tile, so blending must give it back."""

    def paint(z):
        return enlarge(enlarge(z, (2, 8, 8)), (2, 1, 1)).clone()

    def sample(x):
        return x[:, :, ::4, ::8, ::8].clone()

    z = rand(1, 2, *size)
    pixels = torch.cat(list(decode_tiles(paint, z, tiling, CONFIG)), 2)
    torch.testing.assert_close(pixels, paint(z))
    torch.testing.assert_close(encode_tiles(sample, paint(z), tiling, CONFIG), z)


def test_a_seam_is_a_ramp_from_the_earlier_tile():
    """Tiles that are each one constant: the overlap starts at the earlier value and nears the later one."""
    count = iter(range(9))

    def paint(z):
        return torch.full((1, 1, 1, 8 * z.shape[3], 8 * z.shape[4]), float(next(count)))

    row = Tiling(height=Axis(16, 8), width=Axis(16, 8))
    pixels = torch.cat(list(decode_tiles(paint, rand(1, 1, 1, 2, 3), row, CONFIG)), 2)
    assert pixels[0, 0, 0, 0].tolist() == [0] * 8 + [i / 8 for i in range(8)] + [1 + i / 8 for i in range(8)]


def test_published_worked_case():
    """720x1280, 129 frames: 84 calls of the decoder, and frames kept 49 + 48 + 32."""
    shapes = []

    def paint(z):
        shapes.append(tuple(z.shape[2:]))
        return z.new_empty(1, 3, 4 * z.shape[2] - 3, 8 * z.shape[3], 8 * z.shape[4])

    z = torch.empty(1, 16, 33, 90, 160, device="meta")
    chunks = [tuple(c.shape[2:]) for c in decode_tiles(paint, z, Tiling.OFFICIAL, CONFIG)]
    assert chunks == [(49, 720, 1280), (48, 720, 1280), (32, 720, 1280)]
    assert len(shapes) == 84
    assert [shapes[i][0] for i in (0, 28, 56)] == [17, 17, 9]
    assert max(shape[1:] for shape in shapes) == (32, 32)


def test_a_last_tile_of_one_latent_is_not_decoded():
    calls = []

    def paint(z):
        calls.append(z.shape[2])
        return enlarge(enlarge(z, (2, 8, 8)), (2, 1, 1)).clone()

    chunks = list(decode_tiles(paint, rand(1, 1, 25, 1, 1), Tiling.OFFICIAL, CONFIG))
    assert calls == [17, 13] and sum(c.shape[2] for c in chunks) == 97


@pytest.mark.parametrize("frames", [1, 5])
def test_one_tile_is_no_tiling(frames):
    vae, x = make(), rand(1, 3, frames, 16, 24)
    with torch.no_grad():
        moments = vae.moments(x)
        assert torch.equal(vae.moments(x, TILES), moments)
        z = moments[:, :4]
        assert torch.equal(vae.decode(z, TILES), vae.decode(z))


def test_tiles_are_another_result_and_presets_differ():
    """Each tile is normalised by its own statistics, so which tiling ran matters (core facts, trap 4)."""
    vae, z = make(), rand(1, 4, 18, 1, 1)
    with torch.no_grad():
        whole, official, diffusers = (vae.decode(z, t) for t in (None, Tiling.OFFICIAL, Tiling.DIFFUSERS))
    assert whole.shape == official.shape == diffusers.shape
    assert min((a - b).abs().max() for a, b in [(whole, official), (official, diffusers)]) > 1e-3


@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)))
def test_stream_is_decode(size):
    vae, z = make(), rand(1, 4, *size)
    with torch.no_grad():
        chunks = list(vae.stream(z, TILES))
        assert torch.equal(torch.cat(chunks, 2), vae.decode_inference(z, TILES))
    assert len(chunks) == (1 if size[0] <= 2 else size[0] - 1)


def test_stream_holds_a_tile_not_the_clip():
    vae = make()

    def peak(frames):
        z = rand(1, 4, frames, 1, 4)
        with torch.no_grad(), Memory() as memory:
            for chunk in vae.stream(z, TILES):
                del chunk
        return memory.peak

    assert peak(7) <= peak(4)


def test_stream_comes_as_it_is_made():
    vae, calls = make(), []
    whole = vae._decode_tile_inference
    vae._decode_tile_inference = lambda z: calls.append(z.shape[2]) or whole(z)
    with torch.no_grad():
        stream = vae.stream(rand(1, 4, 6, 1, 1), TILES)
        assert calls == []
        assert next(stream).shape[2] == 5 and calls == [3]
        assert next(stream).shape[2] == 4 and calls == [3, 3]


def test_tiles_can_be_trained_through():
    vae = make()
    z = rand(1, 4, 4, 3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(vae.decode(z, TILES).square().mean(), z)
    assert grad.abs().amin((0, 1)).min() > 0


def test_presets():
    assert Tiling.OFFICIAL == Tiling(Axis(64, 48), Axis(256, 192), Axis(256, 192))
    assert Tiling.named("official", VAEConfig(sample_size=32, sample_frames=16)) == Tiling(
        Axis(16, 12), Axis(32, 24), Axis(32, 24)
    )
    assert Tiling.named("diffusers", CONFIG) == Tiling(Axis(16, 12), Axis(256, 192), Axis(256, 192))
    assert Tiling.named("off", CONFIG) is None
    with pytest.raises(UsageError, match="unknown tiling 'big'"):
        Tiling.named("big", CONFIG)


def test_tilings_that_make_no_sense():
    with pytest.raises(UsageError, match="advance by 20"):
        Tiling(time=Axis(16, 20))
    with pytest.raises(UsageError, match="both height and width"):
        Tiling(height=Axis(16, 8))
    with pytest.raises(UsageError, match="cut through a latent") as error:
        make().decode(rand(1, 4, 1, 1, 1), Tiling(height=Axis(20, 8), width=Axis(16, 8)))
    assert "multiples of 8" in error.value.hint
