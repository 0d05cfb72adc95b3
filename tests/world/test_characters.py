"""Characters: their truth is what is drawn, splits don't overlap, and everything is the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hy_core.data import SourceSpec
from hy_core.errors import UsageError
from hy_world.characters import EXPRESSIONS, FRAMINGS, SKINS, is_heldout, perform, sample_stage
from hy_world.characters_captions import WORDINGS, describe
from hy_world.characters_geometry import truth
from hy_world.characters_render import MOUTH, face_masks, render_stage
from hy_world.sources.characters import CharacterSource


def spec(count: int, seed: int = 0, options: dict | None = None) -> SourceSpec:
    return SourceSpec("characters", "train", seed, count, 5, 32, 32, options=options or {})


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (48, 128), (20, 33)])
def test_any_size_and_length(framing, size):
    rng = np.random.default_rng(0)
    for frames in (1, 2, 21):
        stage = sample_stage(rng, "all", frames, framing)
        video = render_stage(stage, *size)
        assert video.shape == (frames, *size, 3)
        real = truth(stage, *size)[0]
        assert real.joints.shape == (frames, 17, 2) and real.landmarks.shape == (frames, 68, 2)
        assert np.isfinite(real.joints).all() and np.isfinite(real.landmarks).all()


def test_face_box_is_the_box_of_the_mask():
    rng = np.random.default_rng(1)
    for framing in FRAMINGS:
        stage = sample_stage(rng, "all", 5, framing)
        mask = face_masks(stage, 128, 128)[0] > 0.5
        for drawn, box in zip(mask, truth(stage, 128, 128)[0].face, strict=True):
            rows, columns = np.nonzero(drawn)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(found, np.clip(box, 0, 128), atol=1.2)


def test_mouth_landmarks_enclose_the_mouth():
    rng = np.random.default_rng(2)
    for _ in range(5):
        stage = sample_stage(rng, "all", 5, "face", mouth=np.linspace(0, 1, 5))
        video = render_stage(stage, 256, 256).astype(int)
        lips = truth(stage, 256, 256)[0].landmarks[:, 48:60]
        for frame, points in zip(video, lips, strict=True):
            rows, columns = np.nonzero(np.abs(frame - MOUTH).sum(-1) < 30)
            low, high = points.min(0), points.max(0)
            assert abs(columns.min() - low[0]) < 4 and abs(columns.max() - high[0]) < 4
            assert abs(rows.min() - low[1]) < 6 and abs(rows.max() - high[1]) < 6


def test_joints_lie_on_the_body():
    """At a wrist the picture has the trousers' colour: forearms wear it."""
    from hy_world.attributes import COLOURS

    rng = np.random.default_rng(3)
    for _ in range(10):
        stage = sample_stage(rng, "all", 9, "full")
        video = render_stage(stage, 128, 128).astype(int)
        real, look = truth(stage, 128, 128)[0], stage.characters[0].look
        for joint in (9, 10):
            for frame, place in zip(video, real.joints[:, joint], strict=True):
                x, y = np.floor(place).astype(int)
                assert np.abs(frame[y, x] - COLOURS[look.trousers]).max() <= 1


def test_only_the_mouth_moves_when_only_the_mouth_is_driven():
    rng = np.random.default_rng(4)
    stage = sample_stage(rng, "all", 9, "upper")
    one = stage.characters[0]
    from dataclasses import replace

    shut = replace(one.performance, mouth=np.zeros(9))
    other = replace(stage, characters=(replace(one, performance=shut),))
    differs = (render_stage(stage) != render_stage(other)).any(-1)
    lips = truth(stage)[0].lips
    rows, columns = np.arange(64)[None, :, None] + 0.5, np.arange(64)[None, None, :] + 0.5
    left, top, right, bottom = lips.T[..., None, None]
    inside = (columns > left - 1) & (columns < right + 1) & (rows > top - 1) & (rows < bottom + 1)
    assert differs.any() and not (differs & ~inside).any()


def test_a_face_moves_to_another_body():
    rng = np.random.default_rng(5)
    body, face = (perform(rng, 9, action, ("happy", "happy")) for action in ("wave", "stand"))
    mixed = body.with_face(face)
    assert (mixed.limbs == body.limbs).all() and (mixed.mouth == face.mouth).all()
    with pytest.raises(UsageError, match="5 frames"):
        body.with_face(perform(rng, 5))


def test_splits_are_disjoint_and_both_hold_everything():
    rng = np.random.default_rng(6)
    for split, kept in (("train", False), ("heldout", True)):
        skins, faces = set(), set()
        for _ in range(60):
            one = sample_stage(rng, split, 1).characters[0]
            assert is_heldout(one.look, one.performance.expressions[0], one.performance.action) == kept
            skins.add(one.look.skin)
            faces.add(one.performance.expressions[0])
        assert skins == set(SKINS) and faces == set(EXPRESSIONS)


def test_two_people_have_each_their_slot_and_mouth():
    rng = np.random.default_rng(7)
    driven = np.stack([np.linspace(0, 1, 5), np.linspace(1, 0, 5)])
    stage = sample_stage(rng, "all", 5, "upper", people=2, mouth=driven)
    one, other = truth(stage, 64, 128)
    assert (one.face[:, 2] < 64).all() and (other.face[:, 0] > 64).all()
    np.testing.assert_array_equal(one.mouth, driven[0])
    assert face_masks(stage, 64, 128)[0][:, :, 64:].max() == 0


def test_what_cannot_be_is_said():
    rng = np.random.default_rng(0)
    for bad in ({"split": "test"}, {"framing": "wide"}, {"mouth": np.zeros(3), "frames": 4}):
        with pytest.raises(UsageError):
            sample_stage(rng, **bad)
    with pytest.raises(UsageError, match="too small"):
        render_stage(sample_stage(rng, people=2), 16, 16)


def test_captions_say_what_they_state():
    rng = np.random.default_rng(8)
    texts = set()
    for wording in WORDINGS:
        for _ in range(100):
            stage = sample_stage(rng, "all", 5)
            words = describe(rng, stage, wording)
            look = stage.characters[0].look
            for part in ("skin", "hair", "shirt", "trousers"):
                if part in words.stated[0]:
                    assert getattr(look, part) in words.text
            assert "{" not in words.text and "  " not in words.text
            texts.add(words.text)
    assert len(texts) > 180
    everything = describe(rng, sample_stage(rng, "all", 5, "full"), full=True)
    assert {"skin", "hair", "style", "face", "shirt", "trousers", "action", "expression", "talk"} == set(
        everything.stated[0]
    )


def test_plain_captions_leave_looks_and_deeds_to_the_drivers():
    rng = np.random.default_rng(9)
    looks = ("hair", "shirt", "skin", "trousers", "face", "wall", "background", "looking")
    for plain, least, most in ((0.0, 0.95, 1.0), (1.0, 0.0, 0.0), (0.5, 0.3, 0.7)):
        source = CharacterSource(spec(80, options={"generic_caption_prob": plain}))
        texts = [source[index].caption(rng) for index in range(80)]
        told = np.mean([any(word in text for word in looks) for text in texts])
        assert least <= told <= most
    plain = {text for text in texts if not any(word in text for word in looks)}
    assert any("talks" in text for text in plain) and any("speaks" in text for text in plain)
    words = describe(rng, sample_stage(rng, "all", 5, people=2), plain=True)
    assert words.stated == (frozenset({"talk"}),) * 2 and " and " in words.text and not words.background


def test_clips_are_the_same_every_time():
    one, other = CharacterSource(spec(8, seed=1)), CharacterSource(spec(8, seed=1))
    for index in (0, 5):
        first, second = one[index], other[index]
        assert (first.video() == second.video()).all() and (
            first.sound().samples == second.sound().samples
        ).all()
        words = [clip.caption(np.random.default_rng(0)) for clip in (first, second)]
        assert words[0] == words[1]
        known = first.annotations()
        assert known["faces"].shape == (1, 5, 4) and known["landmarks"].shape == (1, 5, 68, 2)
    assert one.fingerprint == other.fingerprint != CharacterSource(spec(8, seed=2)).fingerprint
    assert one.shape(3) == (5, 32, 32) == first.video().shape[:3]
    with pytest.raises(IndexError):
        one[8]
