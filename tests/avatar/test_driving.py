"""Pose and expression from files: what the network is fed, where it acts, and what can't be done."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from avatar.driven import CONFIG, actor, drivers, pose_file, weights
from hy_avatar import driving, network, pose
from hy_avatar.clip_features import pose_track
from hy_avatar.config import AvatarConfig
from hy_avatar.expression_extract import neutral_difference
from hy_avatar.plugin import Avatar
from hy_avatar.speech import Span
from hy_core import generate, media
from hy_core.condition import window
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.flow.denoise import Denoiser
from hy_core.media import vad
from PIL import Image


@pytest.fixture
def options(tiny, tmp_path, face):
    return {"image": face, "weights": weights(tiny, tmp_path / "a.safetensors"), "pose_fit": False}


@pytest.fixture
def fed(tiny, options):
    """The feed of a run with further options."""

    def fed(request=tiny.request, negative=False, **more):
        avatar = Avatar(**(options | more))
        avatar.validate(request)
        cond = tiny.condition(request)
        cond.negative = negative
        avatar.encode(request, cond)
        return cond.adapter_inputs["avatar"]

    return fed


def test_body_and_face_follow_different_people(tiny, fed, tmp_path):
    body, mime = pose_file(tmp_path / "body.json", 1), pose_file(tmp_path / "mime.npz", 2)
    feed = fed(pose=body, expression=mime)
    assert feed["pose"].shape == (1, 16, 3, 4, 4)
    assert feed["expression"]["features"].shape == (1, 1, 9, 12)
    large = fed(replace(tiny.request, width=64, height=64), pose=body, expression=mime, area=1.0)
    mask, rest = large["expression"]["mask"][:, 0], large["pose_mask"]
    assert mask.shape == rest.shape == (1, 3, 16, 1)
    assert 0 < mask.mean() < 0.6 and (rest == 1).all()  # no token is all face: each has room for a body
    head = actor(1).annotations()["faces"][0, 0] / 64
    row, column = (int(4 * (head[side] + head[side + 2]) / 2) for side in (1, 0))
    assert mask[0, 0].reshape(4, 4)[row, column] == 1  # the face is where the dancer's head is
    assert torch.equal(fed(pose=body, expression=body)["pose"], feed["pose"])
    other = fed(pose=body, expression=pose_file(tmp_path / "other.json", 3))
    assert not torch.equal(other["expression"]["features"], feed["expression"]["features"])
    assert "pose_mask" not in fed(pose=body) and "expression" not in fed(pose=body)


@pytest.mark.parametrize("nobody", [False, True])
def test_guidance_goes_against_nothing_that_drives(tiny, options, tmp_path, nobody):
    """And, of weights that say so, against nobody in particular; a frame that is given stays given."""
    config = replace(CONFIG, guide_reference=nobody)
    options["weights"] = weights(tiny, tmp_path / "b.safetensors", config)
    both = {"pose": pose_file(tmp_path / "a.json"), "expression": pose_file(tmp_path / "b.json")}

    def encoded(negative):
        cond = tiny.condition()
        cond.negative = negative
        Avatar(**options, **both, fix_first_frame=True).encode(tiny.request, cond)
        return cond

    cond, feed = encoded(True), encoded(True).adapter_inputs["avatar"]
    assert not feed["pose"].any() and not feed["expression"]["features"].any()
    assert (feed["pose_mask"] == 1).all()
    assert feed["reference"].any() == cond.contexts[0].latents.any() == (not nobody)
    driven = encoded(False)
    assert driven.adapter_inputs["avatar"]["reference"].any() and driven.contexts[0].latents.any()
    assert torch.equal(cond.fixed_frames[0].latent, driven.fixed_frames[0].latent)


@pytest.mark.parametrize(
    ("own", "given", "asked"),
    [
        ("silence", None, 0),
        ("auto", None, 1),
        ("silence", "auto", 1),
        ("auto", "silence", 0),
        ("auto", "off", 0),
    ],
)
def test_what_keeps_a_mouth_shut(tiny, options, tmp_path, talk, monkeypatch, own, given, asked):
    """What the weights say, unless the run says something else: a detector of speech, or loudness."""
    count = []
    monkeypatch.setattr(vad.Silero, "is_installed", lambda: True)
    monkeypatch.setattr(vad.Silero, "load", lambda: count.append(1))
    options["weights"] = weights(tiny, tmp_path / "b.safetensors", replace(CONFIG, speech_gate=own))
    Avatar(**options, speech=[talk], speech_gate=given).encode(tiny.request, tiny.condition())
    assert len(count) == asked


def test_a_way_to_keep_a_mouth_shut_that_isnt_there():
    with pytest.raises(UsageError, match="speech_gate: 'music'"):
        AvatarConfig(speech_gate="music")


def test_a_whole_clip(tiny, options, tmp_path, talk):
    body, mime = pose_file(tmp_path / "body.json", 1), pose_file(tmp_path / "mime.json", 2)
    request = replace(tiny.request, cfg=2.0, negative="noise")

    def clip(**more):
        avatar = Avatar(**options, speech=[talk], speech_gate="off", **more)
        avatar.validate(request)
        return generate(request, [avatar], model=tiny.model).frames.astype(int)

    both = clip(pose=body, expression=mime)
    assert np.abs(both - clip(pose=body, expression=mime, pose_strength=0.0)).max() > 0
    assert np.abs(both - clip(pose=body, expression=mime, expression_strength=0.0)).max() > 0
    assert np.array_equal(both, clip(pose=body, expression=mime))


def test_latents_that_are_added_to_the_noisy_ones(tiny):
    """The paper's pose: the network sees z_t + z_pose, and no weight is new."""
    config = AvatarConfig(speech=None, controls=0, reference="none", pose="paper")
    dit = copy.deepcopy(tiny.dit)
    network.attach_modules(dit, "avatar", config)
    dit = copy.deepcopy(dit)  # what it shares with the network it shares in a copy too
    assert set(dit.state_dict()) == set(tiny.dit.state_dict())
    assert dit.embed["avatar"].base[0] is dit.img_in
    z, cond = tiny.latents(seed=8), tiny.condition()
    cond.set_adapter_inputs("avatar", {"frames": 3, "pose": z, "pose_strength": 0.5})
    with torch.no_grad():
        found = Denoiser(dit, cond)(tiny.latents(), 0.6)
        wanted = Denoiser(tiny.dit, tiny.condition())(tiny.latents() + 0.5 * z, 0.6)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_video_of_a_dancer(fed, tiny, tmp_path, monkeypatch):
    """Its rate is another than the clip's, a detector finds the joints, and nobody is stretched."""
    clip = actor(4, frames=17)
    truth = clip.annotations()
    media.write(tmp_path / "dance.mp4", clip.video(), 16.0)
    track = pose_track(truth, 64, 64)
    made = []

    class Detector:
        def detect(self, frame):
            points, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
            points[0, :17], scores[0, :17] = truth["joints"][0, len(made)], truth["visible"][0, len(made)]
            made.append(frame.shape)
            return points, scores

    monkeypatch.setattr(driving, "pose_detector", lambda folder: Detector())
    feed = fed(pose=tmp_path / "dance.mp4")
    assert made == [(64, 64, 3)] * 17
    pose.save(tmp_path / "dance.json", replace(track, fps=16.0))
    again = fed(pose=tmp_path / "dance.json")
    assert (feed["pose"] - again["pose"]).abs().mean() < 0.1 * again["pose"].abs().mean()
    found = driving.at_frames(track, Span(5, 4.0, 2))  # at half the rate, from its third frame on
    np.testing.assert_allclose(found.points[:, 0, :8], track.points[[4, 6, 8, 10, 12], 0, :8], atol=1e-9)


def test_no_more_of_a_dance_is_watched_than_the_clip_shows(fed, tiny, tmp_path, monkeypatch):
    truth, made = actor(4, frames=17).annotations(), []

    class Detector:
        def detect(self, frame):
            points, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
            at = len(made) % 17
            points[0, :17], scores[0, :17] = truth["joints"][0, at], truth["visible"][0, at]
            made.append(at)
            return points, scores

    monkeypatch.setattr(driving, "pose_detector", lambda folder: Detector())
    adapter_inputs = []
    for name, frames in (("short.mp4", 40), ("long.mp4", 400)):
        media.write(tmp_path / name, np.zeros((frames, 64, 64, 3), np.uint8), tiny.request.fps)
        made.clear()
        adapter_inputs.append(fed(pose=tmp_path / name)["pose"])
        assert tiny.request.frames < len(made) < 40
    assert torch.equal(*adapter_inputs)


def test_fitting_a_dancer_to_the_picture(fed, tmp_path, monkeypatch, caplog):
    body = pose_file(tmp_path / "body.json", 1)
    plain = fed(pose=body)["pose"]

    class Nobody:
        def detect(self, frame):
            return np.zeros((0, 133, 2)), np.zeros((0, 133))

    monkeypatch.setattr(driving, "pose_detector", lambda folder: Nobody())
    assert torch.equal(fed(pose=body, pose_fit=True)["pose"], plain)
    assert "keeps its own proportions" in caplog.text

    class Small:
        def detect(self, frame):
            truth = actor(5).annotations()
            points, scores = np.zeros((1, 133, 2)), np.ones((1, 133))
            points[0, :17] = truth["joints"][0, 0] / 64 * [frame.shape[1], frame.shape[0]] / 2
            scores[0, 17:] = 0
            return points, scores

    monkeypatch.setattr(driving, "pose_detector", lambda folder: Small())
    assert not torch.equal(fed(pose=body, pose_fit=True)["pose"], plain)


def test_nobody_is_stretched_in_a_clip_of_another_shape():
    track = pose_track(actor().annotations(), 64, 64)
    wide = driving.placed(track, 2.0)
    limb = [np.linalg.norm(((p[:, 0, 2] - p[:, 0, 3]) * [a, 1.0]), axis=1)
            for p, a in ((track.points, 1.0), (wide.points, 2.0))]  # fmt: skip
    np.testing.assert_allclose(*limb)


def test_heads_are_followed_where_they_are_seen():
    track = pose_track(actor(6).annotations(), 64, 64)
    boxes = driving.head_boxes(track) * 64
    for box, real in zip(boxes, actor(6).annotations()["faces"][0], strict=True):
        middle = (real[:2] + real[2:]) / 2
        assert (box[:2] < middle).all() and (middle < box[2:]).all()
        assert 0.6 < (box[2] - box[0]) / (real[2] - real[0]) < 1.8
    points = track.points.copy()
    points[2:5] = np.nan
    held = driving.head_boxes(replace(track, points=points)) * 64
    assert np.abs(held - boxes).max() < 6
    points[:] = np.nan
    with pytest.raises(HyError, match="no head"):
        driving.head_boxes(replace(track, points=points))


def test_a_mood_that_lasts_is_seen_whoever_wears_it():
    """A face that smiles all the time isn't calm, and who it is matters less than what it shows."""
    rng = np.random.default_rng(0)
    found = {}
    for seed in range(400):
        clip = actor(seed, frames=3, framing="face")
        mood = clip.stage.characters[0].performance.expressions[0]
        if len(found.setdefault(mood, [])) < 12:
            values = neutral_difference(clip.annotations()["landmarks"][0])[
                :, 17:27
            ]  # brows: no mouth that talks
            found[mood].append(values.mean(0).ravel())
    middles = {mood: np.mean(values[:6], 0) for mood, values in found.items()}
    right = [
        min(middles, key=lambda other: np.linalg.norm(value - middles[other])) == mood
        for mood, values in found.items()
        for value in values[6:]
    ]
    assert len(right) == 30 and np.mean(right) > 0.75
    points = actor(3, framing="face").annotations()["landmarks"][0]
    turned = 2 * points @ np.array([[0.96, 0.28], [-0.28, 0.96]]) + rng.normal(size=2)
    np.testing.assert_allclose(neutral_difference(points), neutral_difference(turned), atol=1e-6)


def test_a_face_codec_must_be_the_one(tiny, fed, options, tmp_path):
    mime = pose_file(tmp_path / "mime.json")
    (tmp_path / "codec.safetensors").write_bytes(b"x")
    with pytest.raises(UsageError, match="no codec"):
        fed(expression=mime, face_codec=tmp_path / "codec.safetensors")
    coded = replace(CONFIG, expression=replace(CONFIG.expression, extractor="codec"))
    with pytest.raises(MissingError, match="need a face codec"):
        fed(expression=mime, weights=weights(tiny, tmp_path / "c.safetensors", coded))


@pytest.mark.parametrize("driver", ["pose", "expression"])
def test_weights_without_the_driver_say_so(tiny, options, tmp_path, driver):
    file = weights(tiny, tmp_path / "speech.safetensors", replace(CONFIG, expression=None, pose="none"))
    avatar = Avatar(**(options | {"weights": file, driver: pose_file(tmp_path / "a.json")}))
    avatar.validate(tiny.request)
    with pytest.raises(UsageError, match=f"--avatar-{driver}: this model's avatar follows no {driver}"):
        generate(tiny.request, [avatar], model=tiny.model)


def test_what_is_no_driver(options, tiny, tmp_path, face):
    Image.new("RGB", (8, 8)).save(tmp_path / "nobody.png")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    body = pose_file(tmp_path / "body.json")
    for more, said in (
        ({"pose": tmp_path / "bad.json"}, "--avatar-pose: .*no pose file"),
        ({"expression": tmp_path / "bad.mp4"}, "--avatar-expression: "),
        ({"pose": tmp_path / "none.mp4"}, "no such file"),
        ({"expression": body, "mask": [face, face]}, "2 given for 1 driven faces"),
    ):
        with pytest.raises(UsageError, match=said):
            Avatar(**(options | more)).validate(tiny.request)
    with pytest.raises(UsageError, match="no person 3"):
        drivers(Avatar(**options, pose=body, pose_person=3), tiny.request).pose_track(body, Span(9, 8.0))
    assert Avatar(**options, pose=body).defaults({"width": 64, "height": 64, "fps": 8.0})["frames"] == 9


def test_the_contract_with_all_drivers(contract, options, tmp_path):
    body = pose_file(tmp_path / "body.json")
    contract(Avatar, **options, pose=body, expression=body)


def test_a_long_clip_in_windows(tiny, options, tmp_path):
    """Each window takes its part of every driver."""
    request = replace(tiny.request, frames=17)
    avatar = Avatar(**options, pose=pose_file(tmp_path / "a.json"), expression=pose_file(tmp_path / "b.json"))
    cond = tiny.condition(request)
    avatar.encode(request, cond)
    part = window(cond, [2, 3]).adapter_inputs["avatar"]
    whole = cond.adapter_inputs["avatar"]
    assert torch.equal(part["pose"], whole["pose"][:, :, 2:4])
    assert torch.equal(part["pose_mask"], whole["pose_mask"][:, 2:4])
    assert torch.equal(part["expression"]["features"], whole["expression"]["features"][:, :, 8:13])
