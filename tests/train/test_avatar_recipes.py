"""Avatars learn from the characters' truth: the recipes, each for two steps, and what comes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hy_avatar.clip_features import pose_track
from hy_avatar.config import AvatarConfig
from hy_avatar.plugin import Avatar
from hy_core import generate, models
from hy_core.data import SourceSpec
from hy_core.errors import UsageError
from hy_core.request import Request
from hy_core.weights.files import load_state, metadata
from hy_train import recipe
from hy_train.objectives.flow import FlowObjective
from hy_train.objectives.vae import VAEObjective
from hy_world.sources.characters import CharacterSource
from PIL import Image

needs_pocket = pytest.mark.skipif(not models.find("pocket").dit.exists(), reason="needs pocket's weights")
BUCKETS = "[{frames = 9, height = 32, width = 32, clips = 4}]"
NAMES = ("pocket-avatar-speech", "pocket-avatar-expression", "pocket-avatar-pose", "pocket-avatar")


def flags(*more):
    sets = ("steps=2", "batch=2", "eval_every=0", "optim.warmup=0", f"data.buckets={BUCKETS}", *more)
    return [part for one in sets for part in ("--set", one)]


@needs_pocket
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_goes_on_from_pocket(hy, tmp_path, name):
    pytest.importorskip("cv2")
    done = hy("train", name, "-q", "--json", "--out", str(tmp_path), *flags())
    assert done.exit_code == 0, done.stderr
    export = tmp_path / "export"
    state = load_state(export / "avatar.safetensors")
    kinds = {part for key in state for part in key.split(".")}
    assert ("audio_proj" in kinds) == (name in NAMES[::3]) and ("pose_in" in kinds) == (name in NAMES[2:])
    last = [key for key in state if key.endswith("attend.proj.weight") or "pose_in.proj" in key]
    assert last and all(state[key].abs().max() > 0 for key in last)  # they began at zero
    config = AvatarConfig.from_json(json.loads(metadata(export / "avatar.safetensors")["config"]))
    assert (config.area, config.restrict_to_mask) == (1.0, True)
    dit = load_state(export / "dit.safetensors")
    assert not any(".avatar." in key for key in dit)


@needs_pocket
def test_the_world_and_its_people_in_one_run(hy, tmp_path):
    pytest.importorskip("cv2")
    world, people = (
        '{frames = 5, height = 32, width = 32, clips = 4, conditioning = ["i2v"]}',
        '{frames = 5, height = 32, width = 32, clips = 4, source = "characters", conditioning = ["avatar"], '
        "repa = false}",
    )
    sets = [*flags()[1::2], f"data.buckets=[{world}, {people}]", "devices=1", "steps=8"]
    done = hy(
        "train",
        "pocket-together",
        "-q",
        "--json",
        "--out",
        str(tmp_path),
        *[p for s in sets for p in ("--set", s)],
    )
    assert done.exit_code == 0, done.stderr
    before = load_state(models.find("pocket").dit)
    after = load_state(tmp_path / "export" / "dit.safetensors")
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)
    state = load_state(tmp_path / "export" / "avatar.safetensors")
    assert any("pose_in" in key for key in state) and all(".avatar." in key for key in state)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a model with an avatar, hardly trained."""
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("avatar")
    table = recipe.load("pocket-avatar", flags()[1::2])
    objective = FlowObjective(table, folder)
    objective.prepare()
    objective.load()
    loss, _ = objective.loss(objective.batch(0), torch.Generator().manual_seed(0))
    loss.backward()
    with torch.no_grad():  # as if it had learnt something
        for name, weight in objective.model.named_parameters():
            if ".avatar." in name and not weight.any():
                weight.normal_(std=0.2)
    objective.export(folder / "export")
    return objective, folder / "export"


@needs_pocket
def test_everything_new_gets_a_gradient(trained):
    objective, _ = trained
    last = [
        weight
        for name, weight in objective.model.named_parameters()
        if ".avatar." in name
        and name.endswith(("attend.proj.weight", "pose_in.proj.weight", "before_proj.weight"))
    ]
    assert len(last) > 6 and all(weight.grad is not None and weight.grad.any() for weight in last)


@needs_pocket
def test_a_trained_folder_is_a_model_with_an_avatar(trained, tmp_path):
    _, folder = trained
    loaded = models.load(str(folder), "cpu", "fp32")
    spec = SourceSpec("characters", count=1, frames=9, height=32, width=32, options={"framings": ["upper"]})
    known = CharacterSource(spec)[0].annotations()
    Image.fromarray(known["portrait"]).save(tmp_path / "face.png")
    from hy_avatar import pose

    pose.save(tmp_path / "dance.json", pose_track(known, 32, 32))
    request = Request("a person talks", width=32, height=32, frames=9, fps=8.0, steps=1, model=str(folder))

    def made(**more):
        avatar = Avatar(image=tmp_path / "face.png", pose_fit=False, **more)
        avatar.validate(request)
        return generate(request, [avatar], model=loaded).frames.astype(int)

    still = made()
    assert np.abs(made(pose=tmp_path / "dance.json") - still).max() > 0
    assert np.abs(made(expression=tmp_path / "dance.json", speaker=["0.2,0.1,0.8,0.6"]) - still).max() > 0


@needs_pocket
def test_training_goes_on_from_an_avatar(trained, tmp_path):
    first, folder = trained
    sets = [*flags()[1::2], f'init_from="{folder}"', "conditioning.avatar.config={}"]
    second = FlowObjective(recipe.load("pocket-avatar", sets), tmp_path)
    second.load()
    for name, weight in first.model.named_parameters():
        if ".avatar." in name:
            other = second.model.get_parameter(name)
            assert torch.equal(other, weight) and other.requires_grad, name
    assert second.metadata == first.metadata
    with pytest.raises(UsageError, match="other modules"):
        sets[-1] = 'conditioning.avatar.config={pose = "paper"}'
        FlowObjective(recipe.load("pocket-avatar", sets), tmp_path)


@needs_pocket
def test_in_training_drivers_say_what_they_say_in_a_run(trained, tmp_path):
    """The same speech, face and pose, once from the truth and once from files, are one feed."""
    import wave

    from hy_avatar import pose
    from hy_core.condition import Condition, EncodingContext

    objective, folder = trained
    truth = objective.latents.clip(0, 1).annotations()
    batch = objective.batch(0)
    one = replace(
        batch,
        latents=batch.latents[:1],
        text=batch.text[:1],
        pooled=batch.pooled[:1],
        prompts=batch.prompts[:1],
    )
    given = objective.condition(one)
    (row,) = objective.conditioners[0]._builder.features.read([truth], given)
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, truth["rate"], 0, "NONE", ""))
        file.writeframes((truth["speech"][0] * 32767).astype("<i2").tobytes())
    Image.fromarray(truth["portrait"]).save(tmp_path / "face.png")
    pose.save(tmp_path / "pose.npz", pose_track(truth, 32, 32))
    avatar = Avatar(
        image=tmp_path / "face.png", speech=[tmp_path / "talk.wav"], speech_gate="off", pose=tmp_path / "pose.npz",
        expression=tmp_path / "pose.npz", pose_fit=False, pose_strength=1.0,
    )  # fmt: skip
    request = Request("x", width=32, height=32, frames=9, fps=8.0)
    cond = Condition(
        list(one.text),
        one.pooled,
        3,
        given.size,
        8.0,
        encoding=EncodingContext(vae=objective.vae, folder=folder),
    )
    avatar.encode(request, cond)
    feed = cond.adapter_inputs["avatar"]
    spoken = (feed["speech"]["features"][0, 0] - row["speech"][0]).abs()
    assert spoken.mean() < 0.02 and row["speech"].std() > 0.05
    torch.testing.assert_close(feed["reference"][0], row["reference"])
    torch.testing.assert_close(
        feed["expression"]["features"][0, 0], row["expression"][0], atol=1e-4, rtol=1e-3
    )
    # Poses are calmed in a run, truth isn't.
    assert torch.nn.functional.cosine_similarity(feed["pose"].flatten(), row["pose"].flatten(), 0) > 0.8


@needs_pocket
def test_what_a_recipe_says_wrongly(tmp_path):
    def load(*sets):
        return FlowObjective(recipe.load("pocket-avatar", [*flags()[1::2], *sets]), tmp_path)

    for sets, said in (
        ('data.source="moon"', "no dataset 'moon'"),
        ("data.sources.characters.hats=3", "hats"),
        ("data.sources.world={}", "no clips of this recipe come from"),
        ("conditioning.avatar.dropout.hats=3", "hats"),
        ("conditioning.avatar.eyes=3", "eyes"),
        ('conditioning.avatar.config.pose="maybe"', "pose: .maybe. isn.t one of"),
    ):
        with pytest.raises(UsageError, match=said):
            load(sets)
    world = load('data.source="world"', "data.sources={}")
    world.prepare()
    world.load()
    with pytest.raises(UsageError, match="the clips' source doesn't have"):
        world.loss(world.batch(0), torch.Generator().manual_seed(0))


def test_a_codec_can_learn_the_world_and_its_people(tmp_path):
    table = {
        "objective": "vae", "steps": 4, "batch": 4, "plugins": ["world"],
        "model": {"channels": [8, 8, 8, 8], "layers": 1, "groups": 4},
        "data": {"size": 32, "source": "world+characters", "phases": [{"until": 1.0, "crop": 16, "frames": [5]}]},
    }  # fmt: skip
    objective = VAEObjective(recipe.parse(table), tmp_path)
    kinds = [type(source).__name__ for source in objective.train_sources]
    assert kinds == ["WorldSource", "CharacterSource"]
    assert objective.batch(0).shape == (4, 3, 5, 16, 16) and torch.equal(
        objective.batch(1), objective.batch(1)
    )
    assert objective.evaluate(2)["psnr"] > 0
