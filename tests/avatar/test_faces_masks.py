"""Masks cover what they should, in pixels and in latent time, and are read from files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hy_avatar import faces, masks
from hy_core import media
from hy_core.errors import HyError, UsageError


def test_box_and_area_factor():
    box = np.array([[0.25, 0.25, 0.5, 0.5]])
    one = masks.from_boxes(box, 64, 64)
    assert one.sum() == 16 * 16 and one[0, 16, 16] == 1 and one[0, 15, 16] == 0
    assert masks.from_boxes(box, 64, 64, area=2.0).sum() == 32 * 32
    oval = masks.from_boxes(box, 64, 64, shape="ellipse")
    assert abs(oval.sum() - np.pi * 64) < 3
    with pytest.raises(UsageError):
        masks.from_boxes(box, 8, 8, area=0)
    with pytest.raises(UsageError):
        masks.from_boxes(box, 8, 8, shape="star")


def test_points_make_a_segmentation():
    around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = 32 + 20 * np.stack([np.cos(around), np.sin(around)], axis=-1)
    drawn = masks.from_points(np.stack([ring, np.full_like(ring, np.nan)]), 64, 64)
    assert abs(drawn[0].sum() - np.pi * 400) < 40 and drawn[1].max() == 0
    assert masks.from_points(ring[None], 64, 64, grow=0.5).sum() == pytest.approx(
        drawn[0].sum() / 4, rel=0.05
    )


def test_latent_time_takes_the_greatest_of_each_group():
    values = np.zeros((9, 4, 4), np.float32)
    values[0, 0, 0] = 1  # only the first latent frame
    values[3, 1, 1] = 1  # pixel frames 1..4 are latent frame 1
    values[5, 2, 2] = 0.5  # 5..8 are latent frame 2
    latent = masks.to_latent(values, 4, 4)
    expected = torch.zeros(3, 4, 4)
    expected[0, 0, 0], expected[1, 1, 1], expected[2, 2, 2] = 1, 1, 0.5
    assert torch.equal(latent, expected)
    assert masks.to_latent(values[None], 2, 2).shape == (1, 3, 2, 2)
    assert masks.to_latent(values, 2, 2)[1, 0, 0] == 0.25
    assert masks.to_latent(values, 2, 2, most=True)[1, 0, 0] == 1
    with pytest.raises(UsageError, match="8 frames"):
        masks.to_latent(values[:8], 4, 4)
    with pytest.raises(UsageError, match="not finite"):
        masks.to_latent(np.full((1, 4, 4), np.nan), 4, 4)


def test_a_token_is_as_open_as_its_most_open_place():
    """However little of it a small face covers, and whatever else is in it is the body's as well."""
    small = masks.from_boxes(np.tile([[0.3, 0.3, 0.4, 0.4]], (5, 1)), 64, 64)
    open_, rest = masks.to_tokens(small[None], (4, 4))
    assert open_.shape == (1, 2, 16, 1) and rest.shape == (2, 16, 1)
    assert open_[0, 0, :, 0].tolist() == [float(place == 5) for place in range(16)]
    assert (rest == 1).all()
    large = masks.from_boxes(np.tile([[0.2, 0.2, 0.8, 0.8]], (5, 1)), 64, 64)
    open_, rest = masks.to_tokens(large[None], (4, 4))
    assert (open_ == 1).all()
    inner = [place in (5, 6, 9, 10) for place in range(16)]
    assert rest[0, :, 0].tolist() == [float(not one) for one in inner]
    assert torch.equal(masks.to_tokens(large[None], (1, 1))[0], torch.ones(1, 2, 1, 1))


def test_a_token_of_two_faces_is_the_larger_part_s():
    left = masks.from_boxes(np.array([[0.0, 0.0, 0.4, 1.0]]), 64, 64)
    right = masks.from_boxes(np.array([[0.45, 0.0, 1.0, 1.0]]), 64, 64)
    open_, rest = masks.to_tokens(np.stack([left, right]), (1, 4))
    assert open_[:, 0, :, 0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert rest[0, :, 0].tolist() == [0, 1, 0, 0]


def test_the_latents_of_a_face_are_not_those_it_only_touches():
    face = masks.from_boxes(np.array([[0.1875, 0.25, 0.8125, 0.875]]), 16, 16)  # 3 to 13 across, 4 to 14 down
    wanted = torch.zeros(4, 4)
    wanted[1:4, 1:3] = 1  # a quarter of the columns at its sides, half of the row below
    assert torch.equal(masks.inner(face, (4, 4))[0], wanted)
    speck = masks.from_boxes(np.array([[0.3, 0.3, 0.4, 0.4]]), 16, 16)  # less than half of any
    assert masks.inner(speck, (4, 4)).sum() == 1
    assert not masks.inner(np.zeros((1, 16, 16), np.float32), (4, 4)).any()


def test_soft_edges_stay_inside():
    hard = masks.from_boxes(np.array([[0.25, 0.25, 0.75, 0.75]]), 64, 64)
    soft = masks.soften(hard, 4)
    assert (soft[hard == 0] == 0).all() and soft[0, 32, 32] == 1
    edge = soft[0, 32, 16:24]
    assert edge[0] < 0.3 and (np.diff(edge) >= 0).all()


def test_frames_without_the_face_are_closed():
    box = np.array([[0.25, 0.25, 0.75, 0.75]])
    track = faces.link([box] * 3 + [np.zeros((0, 4))] * 10)[0]
    drawn = masks.from_track(track, 16, 16)
    assert drawn[2].max() == 1 and drawn[3:].max() == 0


def test_masks_from_files(tmp_path):
    wanted = masks.from_boxes(np.tile([[0.25, 0.25, 0.5, 0.5]], (5, 1)), 32, 32)
    np.savez(tmp_path / "m.npz", mask=wanted)
    np.save(tmp_path / "m.npy", wanted)
    for name in ("m.npz", "m.npy"):
        np.testing.assert_array_equal(masks.read(tmp_path / name, 5, 32, 32, 25.0), wanted)
        assert masks.read(tmp_path / name, 3, 16, 16, 25.0).shape == (3, 16, 16)
    picture = (wanted[:1, ..., None] * 255).astype(np.uint8).repeat(3, -1)
    media.write(tmp_path / "m.png", picture, 1.0)
    np.testing.assert_array_equal(masks.read(tmp_path / "m.png", 4, 32, 32, 25.0), wanted[:4])
    with pytest.raises(UsageError, match="5 frames"):
        masks.read(tmp_path / "m.npy", 9, 32, 32, 25.0)


@pytest.mark.parametrize(
    "held", [np.zeros((2, 2, 2, 2)), np.full((1, 4, 4), np.nan), np.full((1, 4, 4), 7.0), np.array(["a"])]
)
def test_files_that_hold_no_masks(tmp_path, held):
    np.save(tmp_path / "bad.npy", held)
    with pytest.raises(HyError):
        masks.read(tmp_path / "bad.npy", 1, 4, 4, 25.0)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(HyError, match="is damaged or no NPZ file"):
        masks.read(tmp_path / "bad.npy", 1, 4, 4, 25.0)
