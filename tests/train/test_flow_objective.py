from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hy_core import models
from hy_core.dit.layers import CPU_HAS_BF16
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.flow.path import velocity
from hy_core.flow.schedule import sample_times
from hy_core.training.batch import to_pixels
from hy_train import recipe
from hy_train.latents import foreground_mask
from hy_train.objectives.flow import FlowObjective
from hy_world.captions import caption
from hy_world.render import render

CHANNELS = models.find("pocket").config["vae"]["latent_channels"]
TINY = {
    "objective": "flow",
    "steps": 4,
    "batch": 3,
    "plugins": ["world"],
    "model": {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "width": 32,
        "heads": 2,
        "rope_dims": [4, 6, 6],
        "depth_double": 1,
        "depth_single": 1,
    },
    "data": {
        "source": "world",
        "buckets": [
            {"frames": 5, "height": 32, "width": 32, "clips": 6, "sampling_weight": 1.0},
            {"frames": 1, "height": 32, "width": 48, "clips": 4, "sampling_weight": 1.0},
        ],
    },
}
needs_pocket = pytest.mark.skipif(not models.find("pocket").vae.exists(), reason="needs pocket's weights")


@pytest.fixture(scope="module")
def objective(tmp_path_factory):
    objective = FlowObjective(recipe.parse(TINY), tmp_path_factory.mktemp("run"))
    objective.prepare()
    objective.load()
    return objective


@needs_pocket
def test_a_batch_depends_on_its_step_alone(objective):
    first = objective.batch(3)
    objective.batch(100)
    again = objective.batch(3)
    assert torch.equal(first.latents, again.latents)
    assert all(torch.equal(a, b) for a, b in zip(first.text, again.text, strict=True))


@needs_pocket
def test_ranks_take_other_batches_of_the_same_bucket(objective):
    one, other = ([objective.batch(step, rank, 2) for step in range(8)] for rank in (0, 1))
    assert [b.shape for b in one] == [b.shape for b in other]
    assert len({b.shape for b in one}) == 2
    assert all(a.keys != b.keys or a.prompts != b.prompts for a, b in zip(one, other, strict=True))


@needs_pocket
def test_every_bucket_is_drawn(objective):
    shapes = {objective.batch(step).latents.shape[2:] for step in range(16)}
    space = models.find("pocket").config["vae"]["space"]
    assert shapes == {(2, 32 // space, 32 // space), (1, 32 // space, 48 // space)}


@needs_pocket
def test_a_bucket_is_drawn_from_its_beginning_on(tmp_path):
    clips, pictures = TINY["data"]["buckets"]
    table = {
        **TINY,
        "steps": 32,
        "data": {"source": "world", "buckets": [{**clips, "start_fraction": 0.5}, pictures]},
    }
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    objective.load()
    shapes = [objective.batch(step).latents.shape[2] for step in range(32)]
    assert set(shapes[:16]) == {1} and set(shapes[16:]) == {1, 2}


@needs_pocket
def test_a_bucket_can_be_of_clips_with_one_thing(tmp_path):
    bucket = {**TINY["data"]["buckets"][0], "clips": 40}
    table = {**TINY, "data": {"source": "world", "buckets": [bucket, {**bucket, "options": {"objects": 1}}]}}
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    objective.load()
    counts = [[len(objective.latents.clip(number, i).scene.things) for i in range(40)] for number in (0, 1)]
    assert set(counts[0]) == {1, 2} and set(counts[1]) == {1}
    keys = [objective.latents.keys(number, range(40)) for number in (0, 1)]
    assert not set(keys[0]) & set(keys[1])  # neither is taken for the other


@needs_pocket
def test_a_bucket_chooses_the_plugins_that_condition_it(tmp_path):
    free = TINY["data"]["buckets"][0]
    all_of_it = {"first_frame": 1.0, "first_and_last_frame": 0.0, "first_half": 0.0, "max_noise_time": 0.0}
    buckets = [{**free, "frames": 9}, {**free, "conditioning": []}]
    table = {**TINY, "conditioning": {"i2v": all_of_it}, "data": {"source": "world", "buckets": buckets}}
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    objective.load()
    given = {}
    for step in range(16):
        batch = replace(objective.batch(step), generator=torch.Generator().manual_seed(0))
        cond = objective.condition(batch)
        objective.add_conditions(batch, cond)
        given.setdefault(batch.latents.shape[2], set()).add(tuple(cond.fixed_frames))
    assert given == {3: {(0,)}, 2: {()}}
    buckets[1]["conditioning"] = ["avatar"]
    with pytest.raises(UsageError, match="avatar"):
        FlowObjective(recipe.parse(table), tmp_path)


@needs_pocket
def test_latents_are_kept_and_made_once(objective):
    files = sorted(objective.latents.folder.glob("*.safetensors"))
    times = [file.stat().st_mtime_ns for file in files]
    objective.latents.fill()
    assert times == [file.stat().st_mtime_ns for file in files] and len(files) == 3  # one held out


@needs_pocket
def test_captions_are_of_the_clip(objective):
    scene = objective.latents.clip(0, 2).scene
    texts = [objective.latents.clip(0, 2).caption(np.random.default_rng(i)) for i in range(20)]
    assert len(set(texts)) > 5
    assert texts == [caption(np.random.default_rng(i), scene, 5).text for i in range(20)]
    # The latents are of that very scene.
    video = to_pixels(render(scene, 5, 32, 32))[None]
    vae = models.load("pocket", "cpu", "fp32").vae
    with torch.no_grad():
        latents = vae.to_model(vae.encode(video).mode())
    rounding = 5e-2 if CPU_HAS_BF16 else 2e-2  # they are encoded in bfloat16 where that is faster
    torch.testing.assert_close(objective.latents.get(0, np.array([2])), latents, atol=rounding, rtol=0)


def test_the_places_of_things_are_those_that_differ_from_the_background():
    grounds = np.full((1, 32, 48, 3), 100.0, np.float32)
    videos = torch.full((1, 3, 9, 32, 48), 100 / 127.5 - 1)
    videos[0, 0, 0, 9, 10] += 40 / 127.5  # in the first frame: place (2, 2)
    videos[0, 2, 6, 31, 47] += 40 / 127.5  # in the second group of four: the last place
    videos[0, 1, 2, 16, 16] += 20 / 127.5  # too little
    found = foreground_mask(videos, grounds, (3, 8, 12))
    assert found.shape == (1, 1, 3, 8, 12) and found.dtype == torch.bool
    expected = torch.zeros(3, 8, 12, dtype=torch.bool)
    expected[0, 1:4, 1:4] = True
    expected[2, 6:, 10:] = True
    assert torch.equal(found[0, 0], expected)


@needs_pocket
def test_things_count_more_and_a_clip_as_much_as_before(objective, tmp_path):
    weighing = FlowObjective(recipe.parse({**TINY, "options": {"foreground_weight": 5.0}}), tmp_path)
    weighing.prepare()
    weighing.load()
    batch = objective.batch(0)
    weight = 1 + 5 * batch.foreground
    assert 0 < batch.foreground.mean() < 1
    plain, _ = objective.loss(batch, torch.Generator().manual_seed(0))
    # An untrained network predicts nothing, so the loss is that of the velocity alone.
    weighing.model.load_state_dict(objective.model.state_dict())
    found, _ = weighing.loss(batch, torch.Generator().manual_seed(0))
    even, _ = weighing.loss(
        replace(batch, foreground=torch.ones_like(weight)), torch.Generator().manual_seed(0)
    )
    assert even.item() == pytest.approx(plain.item(), rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    sample_times(len(batch.latents), generator=generator)
    target = velocity(batch.latents, torch.randn(batch.latents.shape, generator=generator))
    share = weight / weight.mean((2, 3, 4), keepdim=True)
    assert found.item() == pytest.approx((target.square() * share).mean().item(), rel=1e-4)


@needs_pocket
def test_the_untrained_network_predicts_nothing_and_learns(objective):
    generator = torch.Generator().manual_seed(0)
    batch = objective.batch(0)
    loss, _ = objective.loss(batch, generator)
    optimizer = torch.optim.AdamW(objective.model.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        now, _ = objective.loss(batch, torch.Generator().manual_seed(0))
        now.backward()
        optimizer.step()
    assert now < 0.9 * loss


@needs_pocket
def test_a_guidance_distilled_network_is_trained_at_scale_6(tmp_path):
    table = {**TINY, "model": {**TINY["model"], "guidance": True}}
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    objective.load()
    batch = objective.batch(0)
    cond = objective.condition(batch)
    assert cond.guidance.tolist() == [6016.0] * len(batch.latents)
    for weight in objective.model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    loss, _ = objective.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert objective.model.guidance_in.mlp[0].weight.grad.abs().sum() > 0
    assert all(np.isfinite(value) for value in objective.evaluate(2).values())


@needs_pocket
def test_a_network_that_takes_a_picture_by_channels_is_trained(tmp_path):
    table = {**TINY, "model": {**TINY["model"], "in_channels": 2 * CHANNELS + 1}}
    table["conditioning"] = {"i2v": {"first_frame": 1.0, "first_and_last_frame": 0.0, "first_half": 0.0}}
    table["data"] = {"source": "world", "buckets": [{**TINY["data"]["buckets"][0], "frames": 9}]}
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    objective.load()
    for weight in objective.model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    for share, learns in ((1.0, True), (0.0, False)):  # of no picture there is nothing to learn
        objective.recipe.conditioning["i2v"]["first_frame"] = share
        objective.model.zero_grad()
        loss, _ = objective.loss(objective.batch(0), torch.Generator().manual_seed(0))
        loss.backward()
        seen = objective.model.img_in.proj.weight.grad[:, CHANNELS:].abs().sum()
        assert loss.isfinite() and (seen > 0) == learns
    assert all(np.isfinite(value) for value in objective.evaluate(2).values())


@needs_pocket
def test_training_goes_on_from_the_weights_of_a_model(tmp_path):
    first = FlowObjective(recipe.parse(TINY), tmp_path / "first")
    first.load()
    with torch.no_grad():
        for weight in first.model.parameters():
            weight.normal_(std=0.1)
    first.export(tmp_path / "export")
    table = {key: value for key, value in TINY.items() if key != "model"}
    table["init_from"] = str(tmp_path / "export")
    second = FlowObjective(recipe.parse(table), tmp_path / "second")
    second.load()
    assert second.config == first.config and second.base.folder == tmp_path / "export"
    for name, weight in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], weight.bfloat16().float()), name
    assert all(weight.requires_grad for weight in second.model.parameters())
    second.prepare()
    loss, _ = second.loss(second.batch(0), torch.Generator().manual_seed(0))
    loss.backward()
    torch.optim.SGD(second.model.parameters(), 0.1).step()  # the file stays what it is
    again = FlowObjective(recipe.parse(table), tmp_path / "third").initial_state()
    assert torch.equal(again["img_in.proj.weight"], first.model.img_in.proj.weight.bfloat16().float())


@needs_pocket
def test_weights_to_start_from_must_be_there_and_whole(tmp_path):
    from safetensors.torch import load_file, save_file

    objective = FlowObjective(recipe.parse(TINY), tmp_path / "run")
    objective.load()
    objective.export(tmp_path / "export")
    table = {**TINY, "init_from": str(tmp_path / "export")}
    with pytest.raises(UsageError, match=r"\[model\] is given"):
        FlowObjective(recipe.parse(table), tmp_path)
    table["model"] = {}
    file = tmp_path / "export" / "dit.safetensors"
    state = load_file(file)
    del state["img_in.proj.weight"]
    save_file(state, file)
    with pytest.raises(HyError, match="1 missing"):
        FlowObjective(recipe.parse(table), tmp_path).load()
    table["init_from"] = "pockets"
    with pytest.raises(MissingError, match="no model 'pockets'"):
        FlowObjective(recipe.parse(table), tmp_path)


@needs_pocket
def test_the_loss_is_measured_on_held_out_clips_at_fixed_times(objective):
    """Peers' users met losses that say nothing: of other clips, times and noise at each step."""
    with torch.no_grad():
        first, again = objective.evaluate(), objective.evaluate()
    assert first == again
    assert [key for key in first if key != "heldout_loss"] == [f"heldout_loss_0.{n}" for n in range(1, 10)]
    assert first["heldout_loss"] == pytest.approx(
        np.mean([first[f"heldout_loss_0.{n}"] for n in range(1, 10)])
    )
    trained_on = set(objective.latents.keys(0, range(6)))
    assert not trained_on & set(objective.latents.keys(2, range(len(objective.heldout))))
