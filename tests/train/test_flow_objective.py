from __future__ import annotations

import numpy as np
import pytest
import torch
from hy_core import models
from hy_data.world import caption, render
from hy_train import recipe
from hy_train.objectives.flow import FlowObjective
from hy_train.objectives.vae import pixels

TINY = {
    "objective": "flow",
    "steps": 4,
    "batch": 3,
    "model": {"width": 32, "heads": 2, "rope_dims": [4, 6, 6], "depth_double": 1, "depth_single": 1},
    "data": {
        "buckets": [
            {"frames": 5, "height": 32, "width": 32, "clips": 6, "share": 1.0},
            {"frames": 1, "height": 32, "width": 48, "clips": 4, "share": 1.0},
        ]
    },
}
needs_pocket = pytest.mark.skipif(not models.find("pocket").vae.exists(), reason="needs pocket's weights")


@pytest.fixture(scope="module")
def objective(tmp_path_factory):
    objective = FlowObjective(recipe.parse(TINY), tmp_path_factory.mktemp("run"))
    objective.prepare()
    return objective


@needs_pocket
def test_a_batch_depends_on_its_step_alone(objective):
    first = objective.batch(3)
    objective.batch(100)
    again = objective.batch(3)
    assert torch.equal(first["latents"], again["latents"])
    assert all(torch.equal(a, b) for a, b in zip(first["text"], again["text"], strict=True))
    other = objective.batch(3, rank=1, ranks=2)
    assert first["latents"].shape != other["latents"].shape or not torch.equal(
        first["latents"], other["latents"]
    )


@needs_pocket
def test_every_bucket_is_drawn(objective):
    shapes = {objective.batch(step)["latents"].shape[2:] for step in range(16)}
    assert shapes == {(2, 4, 4), (1, 4, 6)}


@needs_pocket
def test_a_bucket_is_drawn_from_its_beginning_on(tmp_path):
    clips, pictures = TINY["data"]["buckets"]
    table = {**TINY, "steps": 32, "data": {"buckets": [{**clips, "begin": 0.5}, pictures]}}
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    shapes = [objective.batch(step)["latents"].shape[2] for step in range(32)]
    assert set(shapes[:16]) == {1} and set(shapes[16:]) == {1, 2}


@needs_pocket
def test_latents_are_kept_and_made_once(objective):
    files = sorted(objective.latents.folder.iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    objective.latents.fill()
    assert times == [file.stat().st_mtime_ns for file in files] and len(files) == 2


@needs_pocket
def test_captions_are_of_the_clip(objective):
    scene = objective.latents.scene(0, 2)
    texts = [objective.latents.caption(0, 2, np.random.default_rng(i)) for i in range(20)]
    assert len(set(texts)) > 5
    assert texts == [caption(np.random.default_rng(i), scene, 5).text for i in range(20)]
    # The latents are of that very scene.
    video = pixels(render(scene, 5, 32, 32))[None]
    vae = models.load("pocket", "cpu", "fp32").vae
    with torch.no_grad():
        latents = vae.to_model(vae.encode(video).mode())
    torch.testing.assert_close(objective.latents.get(0, np.array([2])), latents, atol=2e-2, rtol=0)


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
