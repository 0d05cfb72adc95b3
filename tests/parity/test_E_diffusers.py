"""Text and image to video end to end: diffusers' pipelines and ours on the same fresh random model of each kind."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
import torch
from hy_core import Request, generate, models
from hy_core.text import Encoded
from hy_i2v.plugin import I2V
from PIL import Image

SIZE, FRAMES, STEPS, SHIFT = (48, 32), 9, 3, 7.0  # width and height


def theirs(kind, seed):
    """A tiny random `HunyuanVideoPipeline`, or the one from a picture in a `kind` of way, without text encoders."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(seed)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=9 if kind == "latent_concat" else 4, out_channels=4, num_attention_heads=2,
        attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1, mlp_ratio=2.0,
        guidance_embeds=kind != "latent_concat", text_embed_dim=12, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6),
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
    parts = dict(
        transformer=transformer, vae=vae, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
    )  # fmt: skip
    if kind is None:
        return diffusers.HunyuanVideoPipeline(**parts)
    return diffusers.HunyuanVideoImageToVideoPipeline(**parts, image_processor=None)


def saved(pipe, folder):
    """The pipeline's networks as a model's folder."""
    pipe.transformer.save_pretrained(folder / "transformer")
    pipe.vae.save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text("{}")
    return folder


class Words:
    """Stands in for the text encoders, with given states: of some texts, or the same of any."""

    def __init__(self, encoded, **of):
        self.encoded, self.of = encoded, of

    def encode(self, prompts, image_mode=False):
        return self.of.get(prompts[0], self.encoded)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("kind", ["token_replace", "latent_concat"])
def test_a_fresh_pipeline(kind, tmp_path, monkeypatch):
    seed = secrets.randbelow(2**31)
    pipe = theirs(kind, seed)
    saved(pipe, tmp_path)
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
    monkeypatch.setattr("hy_core.pipeline.sampling.noise", lambda request, generator, model: noise)
    # diffusers mixes the picture into the noise it is given; stability mode does so with its second draw
    monkeypatch.setattr("hy_core.flow.path.start_noise", lambda shape, seed, draw=0: noise)
    given = I2V(image=tmp_path / "picture.png", stability=True)
    request = Request(
        "words", width=SIZE[0], height=SIZE[1], frames=FRAMES, steps=STEPS, shift=SHIFT, tiling="diffusers",
        guidance=6.0 if kind == "token_replace" else None,
    )  # fmt: skip
    given.validate(request)
    found = generate(request, [given], model=model).frames
    assert found.shape == expected.shape == ((9 if kind == "token_replace" else 5), 32, 48, 3)
    assert np.abs(found / 255 - expected).max() < 1.01 / 255, f"seed {seed}"
    assert expected.std() > 0.05


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_a_fresh_pipeline_from_text(cfg, tmp_path, monkeypatch):
    """Text to video with both kinds of guidance; 21 frames, which diffusers decodes in two pieces."""
    seed, frames = secrets.randbelow(2**31), 21
    pipe = theirs(None, seed)
    saved(pipe, tmp_path)
    text, pooled, other, other_pooled = (torch.randn(1, *s) for s in ((7, 12), (8,), (4, 12), (8,)))
    noise = torch.randn(1, 4, 6, 4, 6)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        expected = pipe(
            prompt_embeds=text, pooled_prompt_embeds=pooled, prompt_attention_mask=torch.ones(1, 7),
            negative_prompt_embeds=other, negative_pooled_prompt_embeds=other_pooled,
            negative_prompt_attention_mask=torch.ones(1, 4), true_cfg_scale=cfg, latents=noise.clone(),
            width=SIZE[0], height=SIZE[1], num_frames=frames, sigmas=np.linspace(1, 0, STEPS + 1)[:-1],
            guidance_scale=6.0, output_type="np",
        ).frames[0]  # fmt: skip
    model = models.load(str(tmp_path), device="cpu", dtype="fp32")
    model.text = lambda: Words(None, words=Encoded([text[0]], pooled), blur=Encoded([other[0]], other_pooled))
    monkeypatch.setattr("hy_core.pipeline.sampling.noise", lambda request, generator, model: noise)
    request = Request(
        "words", "blur", width=SIZE[0], height=SIZE[1], frames=frames, steps=STEPS, shift=SHIFT, guidance=6.0,
        cfg=cfg, tiling="diffusers",
    )  # fmt: skip
    found = generate(request, model=model).frames
    assert found.shape == expected.shape == (frames, 32, 48, 3) and expected.std() > 0.05
    assert np.abs(found / 255 - expected).max() < 1.01 / 255, f"seed {seed}"


def test_a_network_that_takes_a_picture_by_channels_says_so_without_one(tmp_path):
    from hy_core.errors import UsageError

    pipe = theirs("latent_concat", 1)
    saved(pipe, tmp_path)
    model = models.load(str(tmp_path), device="cpu", dtype="fp32")
    model.text = lambda: Words(Encoded([torch.randn(3, 12)], torch.randn(1, 8)))
    request = Request("words", width=32, height=32, frames=5, steps=1)
    with pytest.raises(UsageError, match="5 input channels beside the noisy ones"):
        generate(request, model=model)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    with pytest.raises(UsageError, match="takes one picture, the first"):
        generate(request, [I2V(last=tmp_path / "red.png")], model=model)
