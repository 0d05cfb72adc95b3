"""An export has the layout that training started from."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hy_core import models
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import UsageError
from hy_core.testing.tiny import randomised
from hy_core.weights import load_dit, save_dit
from hy_core.weights.convert import convert_dit
from hy_train import recipe
from hy_train.fit import run
from hy_train.objectives.export import link
from hy_train.objectives.flow import FlowObjective
from train.test_flow_objective import TINY, needs_pocket

PARTS = {
    "official": {"llm": ["text_encoder"], "clip": ["text_encoder_2"]},
    "diffusers": {"llm": ["text_encoder", "tokenizer"], "clip": ["text_encoder_2", "tokenizer_2"]},
}


def model_folder(folder, layout):
    """A small model in a layout, with pocket's VAE and text encoders."""
    pocket = models.find("pocket")
    fields = {**DiTConfig.named["pocket"].to_json(), **TINY["model"], "width": 32}
    config = DiTConfig.from_dict(fields)
    save_dit(randomised(DiT(config), seed=1), folder / "dit.safetensors")
    inner = folder / "hunyuan-video-t2v-720p" if layout == "official" else folder
    if layout == "official":
        target = inner / "transformers" / "mp_rank_00_model_states.pt"
        convert_dit(folder / "dit.safetensors", target, "official")
        (target.parent / "config.json").write_text(json.dumps(config.to_json()))
    else:
        convert_dit(folder / "dit.safetensors", folder / "transformer", "diffusers")
        (folder / "model_index.json").write_text('{"_class_name": "HunyuanVideoPipeline"}')
    (folder / "dit.safetensors").unlink()
    link(pocket.vae, inner / "vae" / "vae.safetensors")
    (inner / "vae" / "config.json").write_text(json.dumps(pocket.config["vae"]))
    for part, names in PARTS[layout].items():
        for name in names:
            shutil.copytree(pocket.folder / part, folder / name)
    return folder


@needs_pocket
@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_training_from_a_folder_exports_that_layout(tmp_path, layout):
    base = model_folder(tmp_path / "base", layout)
    table = {key: value for key, value in TINY.items() if key != "model"}
    settings = recipe.parse({**table, "steps": 1, "init_from": str(base), "optim": {"warmup": 0}})
    objective = FlowObjective(settings, tmp_path / "run")
    run(settings, objective, tmp_path / "run", quiet=True)
    export = tmp_path / "run" / "export"
    found = models.find(str(export))
    assert found.layout == layout
    start, trained = load_dit(models.find(str(base)).dit), load_dit(found.dit, dtype=torch.float32)
    assert trained.config == start.config
    changed = [
        k for k, v in trained.state_dict().items() if not torch.equal(v, start.state_dict()[k].float())
    ]
    assert len(changed) > len(trained.state_dict()) / 2
    loaded = models.load(str(export), "cpu")
    with loaded.text() as encoder:
        assert encoder.encode(["a"]).text
    assert not list(export.glob(".hy-*"))
    with pytest.raises(UsageError, match=f"in the {layout} layout and keeps its own VAE"):
        data = {**TINY["data"], "vae": "other"}
        FlowObjective(recipe.parse({**table, "init_from": str(base), "data": data}), tmp_path)
