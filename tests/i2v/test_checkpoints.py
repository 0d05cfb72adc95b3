"""Image-to-video checkpoints of both kinds, in every layout, told by their shapes and run as they were made to be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hy_core import generate, models
from hy_core.conditioner import encode
from hy_core.dit import DiT, DiTConfig
from hy_core.models import Model
from hy_core.testing.tiny import SMALL_VAE, randomised
from hy_core.weights import load_dit, save_safetensors
from hy_core.weights.keys import COMFYUI, DIFFUSERS
from hy_i2v.plugin import I2V

TINY = DiTConfig(
    width=32, heads=1, depth_double=1, depth_single=1, depth_refiner=1, rope_dims=(8, 12, 12), text_dim=32,
    pooled_dim=16, guidance=False,
)  # fmt: skip
KINDS = {"held": replace(TINY, guidance=True), "beside": replace(TINY, in_channels=33)}


def saved(kind, layout, folder):
    """A random network of a kind as that layout's file; its path."""
    dit = randomised(DiT(KINDS[kind]), seed=5)
    state = dit.state_dict()
    if layout == "official":
        torch.save({"module": state}, folder / "mp_rank_00_model_states.pt")
        return dit, folder / "mp_rank_00_model_states.pt"
    table, prefix = (DIFFUSERS, "") if layout == "diffusers" else (COMFYUI, "model.diffusion_model.")
    path = folder / f"{layout}.safetensors"
    save_safetensors(path, {prefix + key: value for key, value in table.export(state, dit.width)})
    return dit, path


@pytest.mark.parametrize("layout", ["official", "diffusers", "comfyui"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_told_by_its_shapes_and_runs(tiny, ball, tmp_path, kind, layout):
    dit, path = saved(kind, layout, tmp_path)
    loaded = load_dit(path).eval()
    assert loaded.config == KINDS[kind]
    for key, value in dit.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    model = Model("tiny", loaded, tiny.vae, lambda: tiny.text, tiny.model.defaults)
    result = generate(tiny.request, [I2V(image=ball)], model=model)
    assert result.frames.shape[0] == (9 if kind == "held" else 5)


def test_the_picture_beside_the_noise(tiny, ball):
    """33 channels: the noisy 16, the picture's 16 in the first frame, and a mask that says so."""
    cond = tiny.condition()
    cond.condition_channels = 17
    policy = encode([I2V(image=ball)], tiny.request, [cond])
    held = tiny.condition()
    I2V(image=ball).encode(tiny.request, held)
    assert not cond.fixed_frames and policy.trimmed_frames == 4
    picture = held.fixed_frames[0].latent
    assert (
        torch.equal(cond.channel_condition[:, :16, 0], picture)
        and not cond.channel_condition[:, :16, 1:].any()
    )
    assert torch.equal(cond.channel_condition[:, 16, :, 0, 0], torch.tensor([[1.0, 0.0, 0.0]]))
    masked = tiny.condition()
    masked.condition_channels = 16  # noise and picture only
    policy = encode([I2V(image=ball)], tiny.request, [masked])
    assert masked.channel_condition.shape[1] == 16 and policy.trimmed_frames == 0


def test_stability_of_a_picture_beside_the_noise(tiny, ball):
    cond = tiny.condition()
    cond.condition_channels = 17
    plugin = I2V(image=ball, stability=True)
    plugin.encode(tiny.request, cond)
    x = tiny.latents()
    assert not torch.equal(plugin.before_step(x, 1.0, cond), x)


def test_the_official_folder(tiny, ball, tmp_path):
    """hunyuan-video-i2v-720p as it is published: found by its folder, a guidance that it doesn't take left alone."""
    folder = tmp_path / "hunyuan-video-i2v-720p"
    (folder / "transformers").mkdir(parents=True)
    (folder / "vae").mkdir()
    saved("beside", "official", folder / "transformers")
    config = {"config": json.dumps(SMALL_VAE.to_json())}
    save_safetensors(folder / "vae" / "model.safetensors", tiny.vae.state_dict(), config)
    card = models.find(str(tmp_path))
    assert card.layout == "official" and card.folder == tmp_path and card.defaults.guidance == 6.0
    model = models.load(str(tmp_path), "cpu", "fp32")
    assert model.dit.config.in_channels == 33 and model.folder == tmp_path
    model.text = lambda: tiny.text
    result = generate(replace(tiny.request, guidance=6.0), [I2V(image=ball)], model=model)
    assert result.frames.shape == (5, 32, 32, 3) and np.ptp(result.frames) > 0


def test_trap_9_without_a_picture_no_frame_is_a_given_one(tiny, ball):
    """Core facts, trap 9: the official code treats the first frame as given in text to video, too."""
    told = {"hidden_size": 48, "heads_num": 2, "rope_dim_list": [8, 8, 8]}
    assert DiTConfig.from_official(
        {**told, "i2v_condition_type": "token_replace"}
    ) == DiTConfig.from_official(told)
    seen = []
    hook = tiny.dit.register_forward_pre_hook(lambda dit, args: seen.append(args[4]))
    generate(tiny.request, model=tiny.model)
    assert seen == [None] * tiny.request.steps
    generate(tiny.request, [I2V(image=ball)], model=tiny.model)
    hook.remove()
    assert all(one.tolist() == [[True, False, False]] for one in seen[tiny.request.steps :])


def test_text_encoders_of_the_official_image_to_video_folder(tmp_path):
    from hy_core.text.encoder import _find

    for name in ("text_encoder_i2v", "text_encoder_2"):
        (tmp_path / name).mkdir()
    assert [path.name for path in _find(tmp_path)] == ["text_encoder_i2v"] * 2 + ["text_encoder_2"] * 2
