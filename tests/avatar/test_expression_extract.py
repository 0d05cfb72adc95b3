"""Expression without identity: landmark residuals, and a codec that learns from the world's faces."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_avatar.expression_extract import LandmarkExtractor, residuals
from hy_avatar.expression_extract_train import losses, train
from hy_avatar.face_codec import FaceCodec, TrainedExtractor, crops, load_codec, save_codec
from hy_core.errors import HyError, MissingError, UsageError
from hy_world.characters import Character, Stage, perform, sample_stage
from hy_world.characters_geometry import truth
from hy_world.characters_render import render_stage


def actors(rng, count, frames=9):
    """Two people each play the same faces; (points of one, of the other, expressions) for each play."""
    plays = []
    for _ in range(count):
        cast = [sample_stage(rng, "all", frames, "face").characters[0].look for _ in range(2)]
        acting = perform(rng, frames, "stand", tuple(rng.choice(["happy", "sad", "angry", "surprised"], 2)))
        stages = [Stage("gray", (Character(look, acting),), "face") for look in cast]
        plays.append([truth(stage, 256, 256)[0] for stage in stages])
    return plays


class Given:
    """A landmarker that knows the answer."""

    def __init__(self, points):
        self.points = points

    def landmarks(self, frames):
        return self.points


def test_residuals_have_no_place_size_or_turn():
    rng = np.random.default_rng(0)
    points = actors(rng, 1)[0][0].landmarks
    angle = 0.3
    turned = 1.7 * points @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) + [
        5,
        -40,
    ]
    np.testing.assert_allclose(residuals(points), residuals(turned), atol=1e-9)


def test_two_people_with_one_expression_are_nearer_than_one_person_with_two():
    rng = np.random.default_rng(1)
    nearer = []
    for one, other in actors(rng, 12):
        if one.expressions[0] == one.expressions[-1]:
            continue
        mine = residuals(one.landmarks).reshape(9, -1)
        theirs = residuals(other.landmarks).reshape(9, -1)
        nearer.append(np.linalg.norm(mine[-1] - theirs[-1]) < np.linalg.norm(mine[-1] - mine[0]))
    assert len(nearer) > 5 and np.mean(nearer) > 0.9


def test_landmark_extractor_fills_gaps_and_refuses_no_face():
    rng = np.random.default_rng(2)
    points = actors(rng, 1)[0][0].landmarks.copy()
    points[4] = np.nan
    frames = np.zeros((9, 8, 8, 3), np.uint8)
    made = LandmarkExtractor(Given(points)).extract(frames)
    assert made.shape == (9, 128) and torch.isfinite(made).all()
    between = torch.minimum(made[3], made[5]) - 1e-2, torch.maximum(made[3], made[5]) + 1e-2
    assert ((made[4] > between[0]) & (made[4] < between[1])).float().mean() > 0.9
    again = LandmarkExtractor(Given(points)).extract(frames)
    assert torch.equal(made, again)
    assert LandmarkExtractor(Given(points), dimension=16).extract(frames).shape == (9, 16)
    with pytest.raises(HyError, match="no face"):
        LandmarkExtractor(Given(np.full((9, 68, 2), np.nan))).extract(frames)


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="MediaPipe is not installed")
@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image has the photograph")
def test_mediapipe_landmarks_make_an_expression():
    from hy_avatar.faces_mediapipe import MediaPipeLandmarks
    from PIL import Image

    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    photo = np.asarray(Image.open(folder / "astronaut.png").convert("RGB"))
    made = LandmarkExtractor(MediaPipeLandmarks()).extract(np.stack([photo, photo]))
    assert made.shape == (2, 128) and torch.isfinite(made).all()


def clips(rng, count):
    """The first and the last frame of `count` clips of faces, [2, count, 3, 32, 32] in -1..1."""
    drawn = [render_stage(sample_stage(rng, "all", 6, "face", changing=True), 32, 32) for _ in range(count)]
    both = np.stack([clip[[0, 5]] for clip in drawn], axis=1)
    return torch.from_numpy(both).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


def batches(both, rng, size=8):
    while True:
        some = rng.integers(both.shape[1], size=size)
        yield both[0, some], both[1, some]


def test_training_lowers_the_losses():
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    codec = FaceCodec(size=32, width=8, dimension=16)
    fresh = clips(rng, 16)

    def measured():
        with torch.no_grad():
            return losses(codec, *fresh)

    before = measured()
    history = train(codec, batches(clips(rng, 48), rng), 60)
    assert len(history) == 60
    after = measured()
    mean = {
        name: [float(getattr(each, name)) for each in (before, after)]
        for name in ("rebuilt", "transfer", "identity")
    }
    assert mean["rebuilt"][1] < 0.85 * mean["rebuilt"][0]
    # An untrained codec draws every face alike, so that transfer starts near 0 and may not run away.
    assert mean["transfer"][1] < 0.5 * mean["rebuilt"][1]
    assert mean["identity"][1] < 0.2


def test_transfer_and_identity_are_zero_where_they_should_be():
    torch.manual_seed(0)
    codec = FaceCodec(size=32, width=8, dimension=16)
    picture = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        same = losses(codec, picture, picture)
    assert float(same.transfer) < 1e-6  # one frame twice: both ways are one picture
    with torch.no_grad():
        differing = losses(codec, picture, picture.flip(0))
        alone = losses(codec, picture[:1], picture[:1])
        perfect = losses(codec, picture, picture, identify=lambda one: one.new_ones(len(one), 4))
    assert float(differing.transfer) > 1e-6
    assert float(alone.identity) == 0
    assert abs(float(perfect.identity)) < 1e-6


def test_the_identity_term_does_not_dull_the_identity_code():
    torch.manual_seed(0)
    codec = FaceCodec(size=32, width=8, dimension=16)
    one, other = torch.rand(2, 4, 3, 32, 32) * 2 - 1
    losses(codec, one, other).identity.backward()
    through_features = [part.grad for part in codec.paint.parameters()]
    assert all(grad is not None and grad.abs().max() > 0 for grad in through_features)


def test_a_codec_is_saved_and_extracts(tmp_path):
    torch.manual_seed(0)
    codec = FaceCodec(size=32, width=8, dimension=24)
    save_codec(tmp_path / "face.safetensors", codec)
    again = TrainedExtractor.load(tmp_path / "face.safetensors")
    frames = render_stage(sample_stage(np.random.default_rng(0), "all", 5, "face"), 48, 64)
    made = again.extract(frames)
    assert made.shape == (5, 24)
    torch.testing.assert_close(made, TrainedExtractor(codec).extract(frames))
    with pytest.raises(MissingError):
        load_codec(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(HyError, match="no face codec"):
        load_codec(tmp_path / "bad.safetensors")
    with pytest.raises(UsageError):
        FaceCodec(size=30)


class Corner:
    def detect(self, frame):
        return np.array([[0.5, 0.5, 1.0, 1.0, 1.0]]) if frame.max() else np.zeros((0, 5))


def test_the_face_is_cut_out_and_no_face_is_said():
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    frames[:, 32:, 32:] = 255
    cut = crops(frames, 16, np.tile([0.5, 0.5, 1.0, 1.0], (3, 1)), area=1.0)
    assert cut.shape == (3, 3, 16, 16) and cut.min() > 0.99
    codec = FaceCodec(size=32, width=8, dimension=8)
    assert TrainedExtractor(codec, Corner()).extract(frames).shape == (3, 8)
    with pytest.raises(HyError, match="no face"):
        TrainedExtractor(codec, Corner()).extract(np.zeros_like(frames))
