"""Image to video end to end: diffusers' pipeline and ours on the same fresh random model, of both kinds."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
import torch
from hy_core import Request, models, pipeline
from hy_core.text import Encoded
from hy_i2v.plugin import I2V
from PIL import Image

SIZE, FRAMES, STEPS, SHIFT = (48, 32), 9, 3, 7.0  # width and height


def theirs(kind, seed):
    """A tiny random `HunyuanVideoImageToVideoPipeline` without text encoders."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(seed)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=9 if kind == "latent_concat" else 4, out_channels=4, num_attention_heads=2,
        attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1, mlp_ratio=2.0,
        guidance_embeds=kind == "token_replace", text_embed_dim=12, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6),
        image_condition_type=kind,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    for part in (transformer, vae):
        part.eval().requires_grad_(False)
        for parameter in part.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.add_(0.5 * spread * torch.randn_like(parameter))
    return diffusers.HunyuanVideoImageToVideoPipeline(
        transformer=transformer, vae=vae, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, image_processor=None,
    )  # fmt: skip


class Words:
    """Stands in for the text encoders, with given states."""

    def __init__(self, encoded):
        self.encoded = encoded

    def encode(self, prompts, image_mode=False):
        return self.encoded

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("kind", ["token_replace", "latent_concat"])
def test_a_fresh_pipeline(kind, tmp_path, monkeypatch):
    seed = secrets.randbelow(2**31)
    pipe = theirs(kind, seed)
    pipe.transformer.save_pretrained(tmp_path / "transformer")
    pipe.vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8))
    picture.save(tmp_path / "picture.png")
    text, pooled = torch.randn(1, 7, 12), torch.randn(1, 8)
    noise = torch.randn(1, 4, 3, 4, 6)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        expected = pipe(
            image=picture, prompt_embeds=text, pooled_prompt_embeds=pooled, latents=noise.clone(),
            prompt_attention_mask=torch.ones(1, 7), width=SIZE[0], height=SIZE[1], num_frames=FRAMES,
            sigmas=np.linspace(1, 0, STEPS + 1)[:-1], guidance_scale=6.0, output_type="np",
        ).frames[0]  # fmt: skip

    model = models.load(str(tmp_path), device="cpu", dtype="fp32")
    model.text = lambda: Words(Encoded([text[0]], pooled))
    monkeypatch.setattr(pipeline, "noise", lambda request, model: noise)
    # diffusers mixes the picture into the noise it is given; stability mode does so with its second draw
    monkeypatch.setattr("hy_core.flow.path.start_noise", lambda shape, seed, draw=0: noise)
    given = I2V(image=tmp_path / "picture.png", stability=True)
    request = Request(
        "words", width=SIZE[0], height=SIZE[1], frames=FRAMES, steps=STEPS, shift=SHIFT, tiling="diffusers",
        guidance=6.0 if kind == "token_replace" else None,
    )  # fmt: skip
    given.validate(request)
    found = pipeline.generate(request, [given], model=model).frames
    assert found.shape == expected.shape == ((9 if kind == "token_replace" else 5), 32, 48, 3)
    assert np.abs(found / 255 - expected).max() < 1.01 / 255, f"seed {seed}"
    assert expected.std() > 0.05


def test_a_network_that_takes_a_picture_by_channels_says_so_without_one(tmp_path):
    from hy_core.errors import UsageError

    pipe = theirs("latent_concat", 1)
    pipe.transformer.save_pretrained(tmp_path / "transformer")
    pipe.vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    model = models.load(str(tmp_path), device="cpu", dtype="fp32")
    model.text = lambda: Words(Encoded([torch.randn(3, 12)], torch.randn(1, 8)))
    request = Request("words", width=32, height=32, frames=5, steps=1)
    with pytest.raises(UsageError, match="5 input channels beside the noisy ones"):
        pipeline.generate(request, model=model)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    with pytest.raises(UsageError, match="takes one picture, the first"):
        pipeline.generate(request, [I2V(last=tmp_path / "red.png")], model=model)
