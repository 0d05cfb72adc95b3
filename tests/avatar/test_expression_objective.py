"""A face codec through `hy train`: what it is fed, that it learns, and that an avatar can be taught by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hy_avatar
import pytest
import torch
from avatar.driven import CONFIG, actor, batch
from hy_avatar.clip_features import codec_latents
from hy_avatar.driver_condition import DriverConditionBuilder
from hy_avatar.expression_objective import NAME, FaceCodecObjective
from hy_avatar.face_codec import FaceCodec, TrainedExtractor, load_codec, save_codec
from hy_avatar.objective import Dropout
from hy_avatar.recipe import TrainingConfig
from hy_core.errors import UsageError
from hy_train import fit, recipe

SMALL = [
    "steps=12", "ema=0.0", "batch=4", "eval_every=0", "optim.warmup=2", "model.width=8", "model.dimension=12",
    "data.clips=6", "data.frames=6", "data.kept=3", "data.height=48", "data.width=48",
]  # fmt: skip
FILE = str(Path(hy_avatar.__file__).with_name("recipes") / "pocket-face-codec.toml")


def test_a_recipe_trains_a_codec_that_a_run_can_read(tmp_path):
    made = recipe.load(FILE, SMALL)
    objective = FaceCodecObjective(made, tmp_path)
    objective.prepare()
    one, other = objective.batch(3)
    assert one.shape == other.shape == (4, 3, 32, 32) and not torch.equal(one, other)
    again = objective.batch(3)
    assert torch.equal(one, again[0]) and torch.equal(other, again[1])
    assert not torch.equal(one, objective.batch(4)[0]) and not torch.equal(one, objective.batch(3, rank=1)[0])
    before = objective.evaluate(4)
    assert before.keys() == {"rebuilt", "transfer", "identity", "still"}
    fit.run(made, objective, tmp_path, quiet=True)
    assert objective.evaluate(4)["rebuilt"] < before["rebuilt"]
    codec = load_codec(tmp_path / "export" / NAME)
    assert codec.dimension == 12 and TrainedExtractor(codec).extract(actor(size=48).video()).shape == (9, 12)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["batch=1"], "a batch of 1"),
        (["data.kept=9"], "9 of 6 frames"),
        (["data.source='world'"], "doesn't tell where faces are"),
        (["model.sizes=3"], "unknown key 'sizes'"),
        (["data.sources.other.a=1"], "no clips of this recipe come from"),
    ],
)
def test_recipes_that_don_t_fit(tmp_path, more, said):
    sources = ["data.sources={}"] if "world" in more[0] else []
    with pytest.raises(UsageError, match=said):
        FaceCodecObjective(recipe.load(FILE, [*SMALL, *sources, *more]), tmp_path).prepare()


def test_expressions_of_a_codec_in_training(tiny, tmp_path):
    torch.manual_seed(0)
    codec = FaceCodec(size=32, width=8, dimension=12)
    save_codec(tmp_path / "codec.safetensors", codec)
    config = replace(CONFIG, expression=replace(CONFIG.expression, extractor="codec"))
    clips, cond = [actor(seed, size=32) for seed in range(2)], tiny.condition(rows=2)
    none = {"speech": 0.0, "expression": 0.0, "pose": 0.0, "reference": 0.0}
    settings = TrainingConfig(
        fix_first_frame=0.0, dropout=Dropout(**none), codec=str(tmp_path / "codec.safetensors")
    )
    builder = DriverConditionBuilder("avatar", config, settings)
    builder.fill(batch(clips, cond), cond)
    found = cond.adapter_inputs["avatar"]["expression"]["features"]
    assert found.shape == (2, 1, 9, 12)
    shown = torch.from_numpy(clips[1].video()).permute(3, 0, 1, 2) / 127.5 - 1
    wanted = codec_latents(builder.extractor, shown, clips[1].annotations())
    torch.testing.assert_close(found[1], wanted, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_codecs_that_don_t_fit(tmp_path, tiny):
    coded = replace(CONFIG, expression=replace(CONFIG.expression, extractor="codec"))
    with pytest.raises(UsageError, match="needs a face codec") as error:
        DriverConditionBuilder("avatar", coded, TrainingConfig())
    assert "codec =" in error.value.hint
    with pytest.raises(UsageError, match="codec is given"):
        DriverConditionBuilder("avatar", CONFIG, TrainingConfig(codec="x.safetensors"))
    save_codec(tmp_path / "c.safetensors", FaceCodec(size=32, width=8, dimension=20))
    with pytest.raises(UsageError, match="gives 20 numbers a frame, not 12"):
        _ = DriverConditionBuilder(
            "avatar", coded, TrainingConfig(codec=str(tmp_path / "c.safetensors"))
        ).extractor
