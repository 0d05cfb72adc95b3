"""The recipes that train with given frames, each for two steps on the shipped model."""

from __future__ import annotations

import json

import pytest
import torch
from hy_core import models
from hy_core.weights import load_dit

BUCKETS = "[{frames = 9, height = 32, width = 32, clips = 4}]"
needs_pocket = pytest.mark.skipif(not models.find("pocket").dit.exists(), reason="needs pocket's weights")


@needs_pocket
@pytest.mark.parametrize("name", ["pocket-i2v", "pocket-i2v-portrait", "pocket-i2v-ends"])
def test_a_recipe_goes_on_from_pocket(hy, tmp_path, name):
    sets = ("steps=2", "batch=2", "eval_every=0", "optim.warmup=0", f"data.buckets={BUCKETS}")
    flags = [part for one in sets for part in ("--set", one)]
    done = hy("train", name, "-q", "--json", "--out", str(tmp_path), *flags)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    before = load_dit(models.find("pocket").dit, dtype=torch.float32).state_dict()
    after = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    changed = {key for key, old in before.items() if not torch.equal(old, after[f"model.{key}"])}
    assert "img_in.proj.weight" in changed
    frozen = name == "pocket-i2v-portrait"
    assert ("txt_in.input_embedder.weight" in changed) != frozen
    assert (
        "double_blocks.0.txt_mlp.fc1.weight" in changed
    ) != frozen  # these join when three quarters are done
    assert "single_blocks.0.linear1.weight" in changed
    exported = load_dit(models.find(str(tmp_path / "export")).dit)
    assert exported.config == load_dit(models.find("pocket").dit).config


@needs_pocket
def test_a_dry_run_tells_which_part_is_trained_when(hy):
    done = hy("train", "pocket-i2v-portrait", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert [stage["step"] for stage in report["unfreeze"]] == [0, 500, 1000, 1500]
    sizes = [stage["trained"] for stage in report["unfreeze"]]
    assert sizes == sorted(set(sizes)) and sizes[-1] < report["parameters"]
