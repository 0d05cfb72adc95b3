"""Which clips come when, and how they get from the cache to a step."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hy_core import models
from hy_core.data import ClipShape
from hy_core.errors import HyError, UsageError
from hy_core.text import TextEncoder
from hy_train import recipe
from hy_train.fit import run
from hy_train.latents import LatentCache
from hy_train.loading import Batches, LoaderError
from hy_train.objectives.batches import BatchPlan
from hy_train.objectives.flow import FlowObjective
from hy_train.objectives.flow_config import Bucket
from train.test_flow_objective import CHANNELS, TINY, needs_pocket

BUCKETS = (Bucket(5, 32, 32, 0, batch=3), Bucket(1, 32, 32, 0, sampling_weight=0.5))


def plan(clips=(10, 7), steps=400):
    return BatchPlan(
        BUCKETS,
        [np.arange(count) for count in clips],
        seed=0,
        steps=steps,
        batch=2,
        caption_dropout=0.1,
        caption=lambda bucket, index, rng: f"{bucket} {index} {rng.integers(10)}",
        length=lambda bucket, prompt: len(prompt),
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_no_clip_comes_again_before_all_others_came(ranks):
    """Peers' users met repeated clips, clips that never came, and the same batch on every rank."""
    found = [[plan().rows(step, rank, ranks) for rank in range(ranks)] for step in range(64)]
    for bucket, count in enumerate((10, 7)):
        drawn = Counter(
            int(index) for rows in found for one in rows if one.bucket == bucket for index in one.indices
        )
        # Whole groups of 8 steps end in mid-epoch, so that counts differ by one at most.
        assert set(drawn) == set(range(count)) and max(drawn.values()) - min(drawn.values()) <= 1
    assert all(len({one.bucket for one in rows}) == 1 for rows in found)


def test_a_plan_that_starts_late_draws_what_one_from_the_beginning_draws():
    early, late = plan(), plan()
    for step in range(200):
        early.rows(step, 1, 2)
    for step in (199, 137, 8):
        a, b = early.rows(step, 1, 2), late.rows(step, 1, 2)
        assert a.bucket == b.bucket and a.prompts == b.prompts and np.array_equal(a.indices, b.indices)


class Grey:
    """Clips of one grey, of which number 1 can't be read; each has a name of its own."""

    def __init__(self, levels):
        self.levels, self.fingerprint = levels, "-".join(map(str, levels))

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, index):
        def video():
            if self.levels[index] is None:
                raise HyError("bad.mp4 is damaged")
            return np.full((5, 32, 32, 3), self.levels[index], np.uint8)

        return SimpleNamespace(video=video, background=lambda: np.zeros((32, 32, 3)))

    def shape(self, index):
        return ClipShape(5, 32, 32)

    def key(self, index):
        return f"grey {self.levels[index]}"


class TinyVAE:
    """Counts what it encodes."""

    encoded = 0

    def __init__(self, scale=1.0):
        self.scale, self.quant_conv = scale, torch.nn.Conv3d(1, 1, 1)

    def to(self, device):
        return self

    def eval(self):
        return self

    def encode_inference(self, pixels):
        TinyVAE.encoded += len(pixels)
        mean = pixels.mean((1, 2, 3, 4)).float()[:, None, None, None, None] * self.scale
        return SimpleNamespace(mode=lambda: mean.expand(-1, 4, 2, 8, 8))

    def to_model(self, latents):
        return latents


def grey_cache(folder, levels, vae="a", scale=1.0):
    TinyVAE.encoded = 0
    cache = LatentCache([Grey(levels)], folder, lambda: TinyVAE(scale), vae)
    cache.fill()
    return cache, TinyVAE.encoded


def test_latents_are_keyed_by_clip_and_vae(tmp_path):
    """Peers' users met caches that are made again as a whole, and latents of other clips after a change."""
    first, made = grey_cache(tmp_path, [0, 255])
    assert made == 2 and first.get(0, [0, 1])[:, 0, 0, 0, 0].tolist() == [-1.0, 1.0]
    second, made = grey_cache(tmp_path, [255, 51, 0])  # another order, one more
    assert made == 1
    torch.testing.assert_close(
        second.get(0, [0, 1, 2])[:, 0, 0, 0, 0], torch.tensor([1.0, -0.6, -1.0]), atol=1e-2, rtol=0
    )
    third, made = grey_cache(tmp_path, [255], vae="b", scale=0.5)
    assert made == 1 and third.get(0, [0]).unique().tolist() == [0.5]
    assert second.get(0, [0]).unique().tolist() == [1.0]


def test_one_corrupt_clip_is_left_out_with_its_reason(tmp_path):
    cache, made = grey_cache(tmp_path, [0, None, 255])
    assert made == 2 and cache.failed == [{1: "bad.mp4 is damaged"}]
    assert cache.usable(0).tolist() == [0, 2]
    with pytest.raises(UsageError, match="none of 1 clips.*bad.mp4 is damaged"):
        grey_cache(tmp_path, [None])


def test_a_shard_that_changed_on_disk_is_one_line_and_made_again(tmp_path):
    cache, _ = grey_cache(tmp_path, [0])
    (shard,) = tmp_path.glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 255
    shard.write_bytes(bytes(data))
    with pytest.raises(HyError, match="is damaged .its bytes have changed"):
        LatentCache([Grey([0])], tmp_path, None, "a").get(0, [0])
    shard.write_bytes(b"no shard")
    assert grey_cache(tmp_path, [0])[1] == 1


class Draws:
    """Batches that are numbers; the third can't be read."""

    def batch(self, step, rank, ranks):
        if step == 3:
            raise HyError("a shard is damaged", "remove it")
        return (step, rank, ranks)


def test_an_error_of_a_loader_is_one_line():
    found = list(Batches(Draws(), 1, [0, 2], 4))
    assert found[:4] == [(1, 0, 4), (1, 2, 4), (2, 0, 4), (2, 2, 4)]
    assert isinstance(found[4], LoaderError) and len(found) == 5
    with pytest.raises(HyError, match="^a shard is damaged$"):
        found[4].throw()


@needs_pocket
def test_no_step_runs_a_text_encoder(tmp_path, monkeypatch):
    objective = FlowObjective(recipe.parse(TINY), tmp_path)
    objective.prepare()

    def refuse(*_):
        raise AssertionError("a text encoder ran")

    monkeypatch.setattr(TextEncoder, "encode", refuse)
    monkeypatch.setattr(TextEncoder, "load", refuse)
    prompts = {prompt for step in range(16) for prompt in objective.batch(step).prompts}
    assert len(prompts) > 10 and objective.feed.texts.encoded == 0
    again = FlowObjective(recipe.parse(TINY), tmp_path)
    again.prepare()  # from the cache


@needs_pocket
def test_cached_features_are_those_of_the_encoders(tmp_path):
    objective = FlowObjective(recipe.parse(TINY), tmp_path)
    objective.prepare()
    batch = objective.batch(0)
    with TextEncoder.load(models.find("pocket").folder, "cpu", torch.float32) as encoder:
        encoded = encoder.encode(batch.prompts, batch.shape.frames == 1)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(batch.text, encoded.text, strict=True))
    assert torch.allclose(batch.pooled, encoded.pooled, atol=1e-5) and batch.latents.shape[1] == CHANNELS


@needs_pocket
@pytest.mark.slow
def test_loader_processes_make_the_batches_of_the_run_itself(tmp_path):
    states = []
    for workers in (0, 2):
        settings = recipe.parse({**TINY, "workers": workers})
        objective = FlowObjective(settings, tmp_path / str(workers))
        run(settings, objective, tmp_path / str(workers), quiet=True)
        states.append(torch.load(tmp_path / str(workers) / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
