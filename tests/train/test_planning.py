"""What `hy train --dry-run` tells, and whether it is true."""

from __future__ import annotations

import json

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import MemoryLimitError
from hy_core.testing.tiny import randomised
from hy_train import planning, recipe
from hy_train.objectives.flow import FlowObjective
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train.test_flow_objective import TINY, needs_pocket

WIDTH, TOKENS = 64, 256


def forward(double, single):
    """A forward pass on 256 tokens; returns the network and the bytes that the backward pass needs."""
    config = DiTConfig(
        width=WIDTH, heads=2, depth_double=double, depth_single=single, depth_refiner=1, rope_dims=(8, 12, 12),
        text_dim=16, pooled_dim=8, in_channels=4, out_channels=4, guidance=False,
    )  # fmt: skip
    dit = randomised(DiT(config), seed=1).requires_grad_(True)
    weights = {weight.untyped_storage().data_ptr() for weight in dit.parameters()}
    sizes, held = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # or its memory would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prepared = dit.prepare([torch.randn(1, 16)], torch.randn(1, 8), torch.arange(4), (16, 16))
        dit(torch.randn(1, 4, 4, 16, 16), torch.full((1, 4), 0.5), prepared)
    return config, dit, sum(sizes.values())


def test_the_memory_of_activations_is_what_the_backward_pass_keeps():
    for depths in ((1, 1), (3, 2)):
        config, dit, kept = forward(*depths)
        assert planning.activation_bytes(config, TOKENS, "32-true", dit) == pytest.approx(kept, rel=0.1)


@needs_pocket
def test_operations_and_states_are_those_of_a_real_step(tmp_path):
    bucket = {"frames": 9, "height": 64, "width": 64, "clips": 3}
    settings = recipe.parse({**TINY, "data": {**TINY["data"], "buckets": [bucket], "heldout": 0}})
    objective = FlowObjective(settings, tmp_path)
    found = planning.plan(settings, objective, timed=False)
    assert not list(tmp_path.iterdir())  # nothing was encoded
    objective.prepare()
    objective.load()
    batch = objective.batch(0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss, _ = objective.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
    (bucket,) = found.buckets
    assert bucket.rows * bucket.flops == pytest.approx(counter.get_total_flops(), rel=0.35)
    assert objective.workload(batch).flops == pytest.approx(counter.get_total_flops(), rel=0.2)
    assert found.flops == settings.steps * bucket.rows * bucket.flops
    from hy_train import optim

    optimizer = optim.build(objective.model, settings.optim)
    optimizer.step()
    held = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    assert sum(one.nbytes for one in held) <= found.bytes["optimiser"]
    assert found.bytes["weights"] == sum(one.nbytes for one in objective.model.parameters())


def test_a_plan_that_cannot_fit_is_refused_before_anything_is_done(monkeypatch):
    bucket = planning.BucketPlan("129x720x1280", 2, 9, 1, 1)
    found = planning.Plan(1, 1, {"weights": 8 << 30, "activations": 92 << 30}, (bucket,))
    monkeypatch.setattr(planning, "free_memory", lambda device: 24 << 30)
    with pytest.raises(MemoryLimitError, match="107 GB, 98.8 GB of it for 2 clips of 129x720x1280"):
        planning.check_plan(found)
    monkeypatch.setattr(planning, "free_memory", lambda device: 200 << 30)
    planning.check_plan(found)


@needs_pocket
def test_a_dry_run_tells_memory_operations_and_time(hy):
    done = hy("train", "pocket-i2v", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert all(
        word in done.stdout for word in ("memory: about", "operations:", "time: about", "% of the steps")
    )
    report = json.loads(hy("train", "pocket-vae", "--dry-run", "--json").stdout)
    assert report["peak_bytes"] == sum(report["bytes"].values()) > 12 * report["parameters"]
