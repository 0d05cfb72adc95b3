"""Representation alignment: tokens inside the DiT predict target features, and no file keeps the head."""

from __future__ import annotations

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, UsageError
from hy_train import recipe
from hy_train.objectives.flow import FlowObjective
from hy_train.repa import NAME, RepaHead, attach, find_targets
from safetensors.torch import load_file
from train.test_flow_objective import TINY, needs_pocket


def bright(batch, grid):
    """Target features: the mean brightness of each clip, everywhere."""
    frames, rows, columns = grid
    mean = batch.video().mean((1, 2, 3, 4))
    return mean[:, None, None, None].expand(-1, frames, rows * columns, 1)


def test_the_head_leaves_tokens_alone_and_context_frames_out():
    torch.manual_seed(0)
    head = RepaHead(8, 3)
    x = torch.randn(2, 3, 4, 8)
    assert head(x, torch.zeros(2, 2, 4, 3)) is x
    first = head.loss
    head(torch.cat([torch.randn(2, 1, 4, 8), x[:, 1:]], 1), torch.zeros(2, 2, 4, 3))
    torch.testing.assert_close(head.loss, first)
    head(x, torch.ones(2, 2, 4, 3))
    assert not torch.isclose(head.loss, first)


def test_unknown_targets_and_blocks_are_errors():
    for name in ("nowhere:thing", "hy_train.repa:thing", "nothing"):
        with pytest.raises(HyError, match="options.repa_targets"):
            find_targets(name)
    dit = DiT(
        DiTConfig(
            width=24, heads=2, depth_double=1, depth_single=1, rope_dims=(4, 4, 4), text_dim=8, pooled_dim=8
        )
    )
    for block in (0, 3):
        with pytest.raises(UsageError, match="repa_block"):
            attach(dit, block, 3)
    attach(dit, 2, 3)
    assert NAME in dit.single_blocks[0].after


@needs_pocket
def test_the_loss_has_the_repa_term_and_the_export_has_no_head(tmp_path):
    table = {**TINY, "options": {"repa_targets": f"{__name__}:bright", "repa_weight": 0.5, "repa_block": 1}}
    objective = FlowObjective(recipe.parse(table), tmp_path)
    objective.prepare()
    objective.load()
    loss, logged = objective.loss(objective.batch(0), torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(logged["flow"] + 0.5 * logged["repa"], rel=1e-5)
    loss.backward()
    assert objective.model.double_blocks[0].after[NAME].head[1].weight.grad.any()
    with torch.no_grad():
        objective.evaluate(2)
        objective.export(tmp_path / "export")
    assert not any(NAME in key for key in load_file(tmp_path / "export" / "dit.safetensors"))
    assert not (tmp_path / "export" / f"{NAME}.safetensors").exists()


@needs_pocket
def test_a_bucket_can_be_excluded_from_the_repa_loss(tmp_path):
    clips, pictures = TINY["data"]["buckets"]
    buckets = [{**clips, "repa": False}, {**pictures, "repa": False}]
    table = {**TINY, "options": {"repa_targets": f"{__name__}:bright", "repa_block": 1}}
    with pytest.raises(UsageError, match="every bucket has repa = false"):
        FlowObjective(
            recipe.parse({**table, "data": {**TINY["data"], "buckets": buckets}}), tmp_path
        ).prepare()
    mixed = {**TINY["data"], "buckets": [buckets[0], pictures]}
    objective = FlowObjective(recipe.parse({**table, "data": mixed}), tmp_path)
    objective.prepare()
    objective.load()
    seen = set()
    for step in range(32):
        batch = objective.batch(step)
        frames = batch.shape.frames
        if frames not in seen:
            seen.add(frames)
            _, logged = objective.loss(batch, torch.Generator().manual_seed(0))
            assert ("repa" in logged) == (frames == 1)
    assert len(seen) == 2
