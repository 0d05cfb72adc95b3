"""Driver features of training clips: made once, cached, and put into the condition as the recipe says."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from avatar.driven import CONFIG, actor, batch
from hy_avatar import clip_features, driver_cache
from hy_avatar.clip_features import ClipFeatures
from hy_avatar.driver_cache import DriverCache, fingerprint
from hy_avatar.driver_condition import DriverConditionBuilder
from hy_avatar.recipe import TrainingConfig
from hy_avatar.reference import latents
from hy_core.data import Clip
from hy_core.errors import UsageError

NO_DROPOUT = {"speech": 0.0, "expression": 0.0, "pose": 0.0, "reference": 0.0, "everything": 0.0}


@pytest.fixture(scope="module")
def clips():
    return [actor(seed, size=32) for seed in range(2)]


def builder(config=CONFIG, **settings):
    return DriverConditionBuilder(
        "avatar", config, TrainingConfig.read({"fix_first_frame": 0.0, "dropout": NO_DROPOUT, **settings})
    )


@pytest.fixture
def filled(tiny, clips):
    """The condition of a batch of both clips, filled by a builder."""

    def filled(builder, patch=(2, 2), **more):
        cond = tiny.condition(rows=2)
        cond.patch = patch
        builder.fill(batch(clips, cond, **more), cond)
        return cond

    return filled


@pytest.fixture
def reads(monkeypatch):
    """The number of clips of each reading."""
    counts, real = [], ClipFeatures.read

    def read(self, annotations, *rest):
        counts.append(len(annotations))
        return real(self, annotations, *rest)

    monkeypatch.setattr(ClipFeatures, "read", read)
    return counts


def same(one, other):
    """Whether two adapter inputs are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 4)])
def test_masks_have_the_network_s_patches(filled, patch):
    feed = filled(builder(), patch).adapter_inputs["avatar"]
    tokens = (4 // patch[0]) * (4 // patch[1])
    assert feed["speech"]["mask"].shape == feed["expression"]["mask"].shape == (2, 1, 3, tokens, 1)
    assert feed["pose_mask"].shape == (2, 3, tokens, 1)
    assert feed["speech"]["mask"].amax(3).min() == 1


def test_features_of_several_clips_are_those_of_each(tiny, clips, monkeypatch):
    cond, one = tiny.condition(rows=2), builder()
    known = [clip.annotations() for clip in clips]
    first = torch.rand(2, 3, 1, 32, 32)
    together = one.features.read(known, cond, first)
    monkeypatch.setattr(clip_features, "_ENCODED_PIXELS", 1)
    for one_known, row, start in zip(known, together, first, strict=True):
        (alone,) = one.features.read([one_known], cond, start[None])
        assert alone.keys() == row.keys() and {"reference", "first", "pose", "speech"} <= row.keys()
        for name in row:
            torch.testing.assert_close(alone[name], row[name], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0]["pose"], together[1]["pose"], atol=1e-2)


def test_a_clip_is_read_once(filled, reads):
    one = builder()
    feed = filled(one).adapter_inputs["avatar"]
    assert same(feed, filled(one).adapter_inputs["avatar"]) and reads == [2]
    filled(one, keys="bc")
    assert reads == [2, 1]


def test_a_resumed_run_uses_the_cache(tiny, filled, reads, tmp_path):
    """So does another process. Another mask area, fixed first frames or another patch size are not in it."""
    beside = builder()
    assert beside.driver_cache(tmp_path, tiny.condition(rows=2)).find("ab") == {}
    feed = filled(builder(), cache_folder=tmp_path).adapter_inputs["avatar"]
    for one in (builder(), beside, builder(replace(CONFIG, fix_first_frame=True, restrict_to_mask=True))):
        assert same(feed, filled(one, cache_folder=tmp_path).adapter_inputs["avatar"])
    assert reads == [2]
    filled(builder(replace(CONFIG, area=1.0)), cache_folder=tmp_path)
    filled(builder(fix_first_frame=1.0), cache_folder=tmp_path)
    filled(builder(), (4, 4), cache_folder=tmp_path)
    assert reads == [2] * 4
    assert len(list((tmp_path / "avatar").iterdir())) == 4


def test_the_first_frame_is_fixed_and_is_the_reference(tiny, filled, clips):
    """With fix_first_frame the reference is the first frame, not the portrait."""
    portraits = filled(builder())
    assert not portraits.fixed_frames
    cond = filled(builder(fix_first_frame=1.0))
    assert set(cond.fixed_frames) == {0}
    feed = cond.adapter_inputs["avatar"]
    pixels = batch(clips, cond).video()[:, :, :1]
    torch.testing.assert_close(feed["reference"], latents(tiny.vae, pixels), atol=1e-2, rtol=1e-2)
    assert not torch.allclose(feed["reference"], portraits.adapter_inputs["avatar"]["reference"], atol=0.1)
    assert torch.equal(cond.contexts[0].latents, feed["reference"])


def test_drivers_of_a_batch(filled):
    """A batch has no inputs of the drivers that aren't drawn."""
    generator = torch.Generator().manual_seed(0)
    shares = {"speech": 3, "pose expression": 1, "pose": 0}
    drawn = [builder(drivers=shares).draw_drivers(generator) for _ in range(800)]
    assert set(drawn) == {("speech",), ("pose", "expression")}
    assert 550 < drawn.count(("speech",)) < 650
    everything = ("speech", "expression", "pose")
    assert all(builder().draw_drivers(generator) == everything for _ in range(50))
    deaf = builder(replace(CONFIG, speech=None), drivers={"pose": 1, "expression": 1})
    adapter_inputs = [filled(deaf, generator=generator).adapter_inputs["avatar"] for _ in range(12)]
    assert {("pose" in feed, "expression" in feed) for feed in adapter_inputs} == {
        (True, False),
        (False, True),
    }
    assert not any("pose_mask" in feed for feed in adapter_inputs)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"dance": 1}, "these weights have no modules for 'dance'"),
        ({"pose speech": 1}, "these weights have no modules for 'speech'"),
        ({"pose": -1}, "'pose' = -1 is no share"),
        ({"pose": "often"}, "'pose' = 'often' is no share"),
        ({"pose": 0}, "all shares are 0"),
        ("pose", "drivers: needs a table"),
    ],
)
def test_drivers_that_arent_there(shares, message):
    with pytest.raises(UsageError, match=message):
        builder(replace(CONFIG, speech=None), drivers=shares)


def test_loss_weights_have_mean_1_in_each_clip(tiny, clips):
    """They are largest in the face."""
    cond = tiny.condition(rows=2)
    cond.patch = (2, 2)
    weight = builder(face=3.0, lips=12.0).fill(batch(clips, cond), cond)
    weight = weight.expand(-1, -1, cond.frames, *cond.size)
    torch.testing.assert_close(weight.mean((1, 2, 3, 4)), torch.ones(len(weight)), atol=1e-5, rtol=0)
    assert (weight.amax((1, 2, 3, 4)) > 4 * weight.amin((1, 2, 3, 4))).all()


class Poor(Clip):
    """A clip of which only the portrait is known."""

    def __init__(self, clip):
        self.clip = clip

    @property
    def fps(self):
        return self.clip.fps

    def video(self):
        return self.clip.video()

    def caption(self, rng):
        return ""

    def annotations(self):
        return {"portrait": self.clip.annotations()["portrait"]}


def test_a_source_without_faces_is_one_line(tiny, clips):
    cond = tiny.condition(rows=2)
    poor = batch([Poor(clip) for clip in clips], cond)
    with pytest.raises(UsageError, match="trained on 'faces', which the clips' source doesn't have"):
        builder().fill(poor, cond)


def rows(*keys):
    return {key: {"a": torch.full((2,), float(ord(key))), "b": torch.zeros(1)} for key in keys}


def test_rows_are_written_together_now_and_then(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(driver_cache.time, "monotonic", lambda: clock[0])
    ours, theirs = DriverCache(tmp_path / "k"), DriverCache(tmp_path / "k")
    ours.put(rows("x"))  # the first at once
    assert set(theirs.find("xyz")) == {"x"}
    ours.put(rows("y"))  # soon after: in memory
    assert set(ours.find("xyz")) == {"x", "y"} and set(theirs.find("xyz")) == {"x"}
    clock[0] += 61
    ours.put(rows("z"))
    found = theirs.find("xyz")
    assert set(found) == {"x", "y", "z"} and found["y"]["a"].tolist() == [ord("y")] * 2
    assert len(list((tmp_path / "k").iterdir())) == 2


def test_two_processes_may_write_the_same_rows(tmp_path):
    one, two = DriverCache(tmp_path), DriverCache(tmp_path)
    one.put(rows("x"))
    two.put(rows("x", "y"))
    for who in (one, two, DriverCache(tmp_path)):
        assert {key: set(row) for key, row in who.find("xy").items()} == {"x": {"a", "b"}, "y": {"a", "b"}}


def test_half_written_files_are_ignored(tmp_path):
    DriverCache(tmp_path).put(rows("x"))
    (tmp_path / "half.part").write_bytes(b"\x10")
    assert set(DriverCache(tmp_path).find("x")) == {"x"}


def test_without_a_folder_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(driver_cache, "_MAX_BYTES", 25)
    one = DriverCache(None)
    one.put(rows("x", "y", "z"))  # 12 bytes each
    assert set(one.find("xyz")) == {"x", "y"}


def test_other_weights_other_folder(tiny):
    other = copy.deepcopy(tiny.vae)
    assert fingerprint([1], tiny.vae) == fingerprint([1], other) != fingerprint([2], other)
    with torch.no_grad():
        other.decoder.conv_out.conv.weight.mul_(1.01)
    assert fingerprint([1], tiny.vae) != fingerprint([1], other)
