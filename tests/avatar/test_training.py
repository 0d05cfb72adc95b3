"""What a teacher finds out of clips: once, kept for all who come after, and given as the recipe says."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from avatar.driven import CONFIG, actor, batch
from hy_avatar import kept, training
from hy_avatar.kept import BlockCache, fingerprint
from hy_avatar.reference import latents
from hy_avatar.training import Settings, Teacher
from hy_core.errors import UsageError

NONE_LOST = {"speech": 0.0, "expression": 0.0, "pose": 0.0, "reference": 0.0, "everything": 0.0}


@pytest.fixture(scope="module")
def clips():
    return [actor(seed, size=32) for seed in range(2)]


def teacher(config=CONFIG, **settings):
    return Teacher("avatar", config, Settings(**{"fix_first_frame": 0.0, "dropout": NONE_LOST, **settings}))


@pytest.fixture
def given(tiny, clips):
    """The condition of a batch of both clips, as a teacher gives it."""

    def given(teacher, patch=(2, 2), **more):
        cond = tiny.condition(rows=2)
        cond.patch = patch
        teacher.give(batch(clips, cond, **more), cond)
        return cond

    return given


@pytest.fixture
def reads(monkeypatch):
    """How many clips each reading was of."""
    counts, real = [], Teacher.read

    def read(self, truths, *rest):
        counts.append(len(truths))
        return real(self, truths, *rest)

    monkeypatch.setattr(Teacher, "read", read)
    return counts


def same(one, other):
    """Whether two feeds are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 4)])
def test_masks_have_the_network_s_patches(given, patch):
    feed = given(teacher(), patch).adapter_inputs["avatar"]
    tokens = (4 // patch[0]) * (4 // patch[1])
    assert feed["speech"]["mask"].shape == feed["expression"]["mask"].shape == (2, 1, 3, tokens, 1)
    assert feed["pose_mask"].shape == (2, 3, tokens, 1)
    assert feed["speech"]["mask"].amax(3).min() == 1  # somewhere the face is all there


def test_clips_together_are_what_they_are_alone(tiny, clips, monkeypatch):
    cond, one = tiny.condition(rows=2), teacher()
    truths = [clip.truth() for clip in clips]
    first = torch.rand(2, 3, 1, 32, 32)
    together = one.read(truths, cond, first)
    monkeypatch.setattr(training, "_TOGETHER", 1)
    for truth, row, start in zip(truths, together, first, strict=True):
        (alone,) = one.read([truth], cond, start[None])
        assert alone.keys() == row.keys() and {"reference", "first", "pose", "speech"} <= row.keys()
        for name in row:
            torch.testing.assert_close(alone[name], row[name], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0]["pose"], together[1]["pose"], atol=1e-2)


def test_a_clip_is_read_once(given, reads):
    one = teacher()
    feed = given(one).adapter_inputs["avatar"]
    assert same(feed, given(one).adapter_inputs["avatar"]) and reads == [2]
    given(one, keys="bc")
    assert reads == [2, 1]


def test_a_run_that_goes_on_reads_nothing_again(tiny, given, reads, tmp_path):
    """Nor does the process beside it; with masks of another area, first frames or other patches it's read anew."""
    beside = teacher()
    assert beside.kept(tmp_path, tiny.condition(rows=2)).find("ab") == {}
    feed = given(teacher(), folder=tmp_path).adapter_inputs["avatar"]
    for one in (teacher(), beside, teacher(replace(CONFIG, fix_first_frame=True, restrict_to_mask=True))):
        assert same(feed, given(one, folder=tmp_path).adapter_inputs["avatar"])
    assert reads == [2]
    given(teacher(replace(CONFIG, area=1.0)), folder=tmp_path)
    given(teacher(fix_first_frame=1.0), folder=tmp_path)
    given(teacher(), (4, 4), folder=tmp_path)
    assert reads == [2] * 4
    assert len(list((tmp_path / "avatar").iterdir())) == 4


def test_every_batch_may_begin_with_the_picture(tiny, given, clips):
    """Then the first frame is given, and the reference is that frame in place of the portrait."""
    portraits = given(teacher())
    assert not portraits.fixed_frames
    cond = given(teacher(fix_first_frame=1.0))
    assert set(cond.fixed_frames) == {0}
    feed = cond.adapter_inputs["avatar"]
    pixels = batch(clips, cond)["pixels"]()[:, :, :1]
    torch.testing.assert_close(feed["reference"], latents(tiny.vae, pixels), atol=1e-2, rtol=1e-2)
    assert not torch.allclose(feed["reference"], portraits.adapter_inputs["avatar"]["reference"], atol=0.1)
    assert torch.equal(cond.contexts[0].latents, feed["reference"])


def test_drivers_of_a_batch(given):
    """What a run isn't given isn't in its feed; so it is in training."""
    generator = torch.Generator().manual_seed(0)
    shares = {"speech": 3, "pose expression": 1, "pose": 0}
    drawn = [teacher(drivers=shares).driven(generator) for _ in range(800)]
    assert set(drawn) == {("speech",), ("pose", "expression")}
    assert 550 < drawn.count(("speech",)) < 650
    everything = ("speech", "expression", "pose")
    assert all(teacher().driven(generator) == everything for _ in range(50))
    deaf = teacher(replace(CONFIG, speech=None), drivers={"pose": 1, "expression": 1})
    adapter_inputs = [given(deaf, generator=generator).adapter_inputs["avatar"] for _ in range(12)]
    assert {("pose" in feed, "expression" in feed) for feed in adapter_inputs} == {
        (True, False),
        (False, True),
    }
    assert not any("pose_mask" in feed for feed in adapter_inputs)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"dance": 1}, "'dance' drives nothing here"),
        ({"pose speech": 1}, "'speech' drives nothing here"),
        ({"pose": -1}, "'pose' = -1 is no share"),
        ({"pose": "often"}, "'pose' = 'often' is no share"),
        ({"pose": 0}, "all shares are 0"),
        ("pose", "drivers = 'pose' is no table"),
    ],
)
def test_drivers_that_arent_there(shares, message):
    with pytest.raises(UsageError, match=message):
        teacher(replace(CONFIG, speech=None), drivers=shares)


def test_a_clip_counts_once_wherever_its_face_is(given):
    """The weights of a clip's places have mean 1, and are largest in the face."""
    cond = given(teacher(face=3.0, lips=12.0))
    weight = cond.weight.expand(-1, -1, cond.frames, *cond.size)
    torch.testing.assert_close(weight.mean((1, 2, 3, 4)), torch.ones(len(weight)), atol=1e-5, rtol=0)
    assert (weight.amax((1, 2, 3, 4)) > 4 * weight.amin((1, 2, 3, 4))).all()


def test_a_source_that_tells_too_little(tiny, clips):
    cond = tiny.condition(rows=2)
    dumb = batch(clips, cond, truth=lambda row: {"portrait": clips[row].truth()["portrait"]})
    with pytest.raises(UsageError, match="learns from 'faces', which the source of the clips doesn't tell"):
        teacher().give(dumb, cond)


def rows(*keys):
    return {key: {"a": torch.full((2,), float(ord(key))), "b": torch.zeros(1)} for key in keys}


def test_rows_are_written_together_now_and_then(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(kept.time, "monotonic", lambda: clock[0])
    ours, theirs = BlockCache(tmp_path / "k"), BlockCache(tmp_path / "k")
    ours.put(rows("x"))  # the first at once
    assert set(theirs.find("xyz")) == {"x"}
    ours.put(rows("y"))  # soon after: only here
    assert set(ours.find("xyz")) == {"x", "y"} and set(theirs.find("xyz")) == {"x"}
    clock[0] += 61
    ours.put(rows("z"))
    found = theirs.find("xyz")
    assert set(found) == {"x", "y", "z"} and found["y"]["a"].tolist() == [ord("y")] * 2
    assert len(list((tmp_path / "k").iterdir())) == 2


def test_two_that_find_out_the_same(tmp_path):
    one, two = BlockCache(tmp_path), BlockCache(tmp_path)
    one.put(rows("x"))
    two.put(rows("x", "y"))
    for who in (one, two, BlockCache(tmp_path)):
        assert {key: set(row) for key, row in who.find("xy").items()} == {"x": {"a", "b"}, "y": {"a", "b"}}


def test_what_was_killed_amid_writing_is_nothing(tmp_path):
    BlockCache(tmp_path).put(rows("x"))
    (tmp_path / "half.part").write_bytes(b"\x10")
    assert set(BlockCache(tmp_path).find("x")) == {"x"}


def test_without_a_folder_memory_has_an_end(monkeypatch):
    monkeypatch.setattr(kept, "_MOST", 25)
    one = BlockCache(None)
    one.put(rows("x", "y", "z"))  # 12 bytes each
    assert set(one.find("xyz")) == {"x", "y"}


def test_other_weights_other_folder(tiny):
    other = copy.deepcopy(tiny.vae)
    assert fingerprint([1], tiny.vae) == fingerprint([1], other) != fingerprint([2], other)
    with torch.no_grad():
        other.decoder.conv_out.conv.weight.mul_(1.01)
    assert fingerprint([1], tiny.vae) != fingerprint([1], other)
