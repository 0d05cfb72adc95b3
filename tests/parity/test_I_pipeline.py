"""Golden cases I (and the loops of E): denoising loops and pipelines end to end, from given text states to
frames.

Our own schedule, sampler, conditions, network and decoder run with the case's weights; only the text states
are given. A first frame is given as the image-to-video plugin gives it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hy_core.condition import Condition
from hy_core.dit import DiTConfig, embedded_guidance
from hy_core.flow.guidance import Branch, Guided
from hy_core.flow.sampler import sample_euler
from hy_core.flow.schedule import shifted_sigmas
from hy_core.vae import Tiling, VAEConfig
from hy_core.weights import load_dit, load_vae
from hy_i2v.plugin import I2V
from parity.cases import cases

#: What each kind calls text, its mask, pooled text, embedded guidance and guidance scale.
OFFICIAL = ("text_states", "text_mask", "text_states_2", "embedded", "cfg_scale")
DIFFUSERS = ("prompt_embeds", "prompt_attention_mask", "pooled_prompt_embeds", "guidance_scale", "true_cfg")
NEGATIVE = ("neg_", "negative_", "uncond_")


class Loop:
    """A case's networks, and one run of it."""

    def __init__(self, case, run):
        self.case, self.run = case, run
        self.scalars, self.inputs, self.outputs = case.scalars(run), case.inputs(run), case.outputs(run)
        self.diffusers = "diffusers" in case.kind
        self.names = DIFFUSERS if self.diffusers else OFFICIAL
        config = (DiTConfig.from_diffusers if self.diffusers else DiTConfig.from_official)(case.model_config)
        self.dit = load_dit(case.path / "model.safetensors", config=config).eval().requires_grad_(False)
        vae_config = VAEConfig.from_dict(case.vae_config)
        self.vae = load_vae(case.path / "vae.safetensors", config=vae_config).eval().requires_grad_(False)
        self.frames, *size = self.vae.config.latent_size(*self.scalars["size"])
        self.size, self.dropped = tuple(size), 0

    @property
    def has_picture(self):
        return "image" in self.inputs

    def condition(self, prefix="", half=None):
        text, mask, pooled, guidance, _ = self.names
        text, mask, pooled = (self.inputs[prefix + name] for name in (text, mask, pooled))
        if half is not None:
            text, mask, pooled = (part.chunk(2)[half] for part in (text, mask, pooled))
        scale = self.scalars[guidance]
        value = (
            embedded_guidance(scale, torch.float32).expand(len(text)) if self.dit.config.guidance else None
        )
        rows = [row[valid.bool()] for row, valid in zip(text, mask, strict=True)]
        channels = self.dit.config.in_channels - self.dit.config.out_channels
        cond = Condition(rows, pooled, self.frames, self.size, guidance=value, channels=channels)
        if self.has_picture:
            I2V(image=Path("given")).hold(cond, {0: self.image_latents()})
            self.dropped = cond.dropped
        return cond

    def image_latents(self):
        return self.vae.to_model(self.vae.encode(self.inputs["image"]).mode())

    def guided(self):
        scale = self.scalars[self.names[4]]
        if scale == 1:
            return Guided(self.dit, self.condition())
        prefix = next((p for p in NEGATIVE if p + self.names[0] in self.inputs), None)
        if prefix is None:  # the original's batch: unconditional rows first
            negative, positive = self.condition(half=0), self.condition(half=1)
        else:
            negative, positive = self.condition(prefix), self.condition()
        return Guided(self.dit, negative, [Branch(positive, scale)], self.scalars["steps"])

    def start(self):
        noise = self.inputs.get("latents", self.inputs.get("noise"))
        mixed = self.has_picture and (self.diffusers or self.scalars["stability"])
        return 0.999 * noise + 0.001 * self.image_latents() if mixed else noise

    def sample(self):
        guided, x, path = self.guided(), self.start(), []
        sigmas = shifted_sigmas(self.scalars["steps"], self.scalars["shift"])
        with torch.inference_mode():
            sample_euler(
                guided,
                x,
                sigmas,
                lambda step, steps, x, clean: path.append(x),
                before=lambda x, sigma, step: guided.base.hold(x),
            )
        return torch.stack(path)

    def video(self, latents):
        # diffusers cuts long clips into pieces in time, unless told otherwise
        tiling = Tiling.DIFFUSERS_DEFAULT if self.diffusers else None
        with torch.inference_mode():
            pixels = self.vae.decode(self.vae.from_model(latents), tiling)
        video = (pixels[:, :, self.dropped :] / 2 + 0.5).clamp(0, 1)
        return video.transpose(1, 2) if self.diffusers else video

    def check(self, name, ours):
        tolerance = self.case.tolerance(self.run, name)
        torch.testing.assert_close(ours, self.outputs[name], atol=tolerance, rtol=0)


def needs_plugin(case):
    """Why a case can't run yet, if it can't."""
    if case.vae_config == {}:
        return "this loop comes with hy-avatar"
    return None


@pytest.mark.parametrize(("case", "run"), [*cases("I"), *cases("E", config_kind="i2v_loop")])
def test_latents_of_every_step_and_the_video(case, run):
    if reason := needs_plugin(case):
        pytest.skip(reason)
    loop = Loop(case, run)
    path = loop.sample()
    loop.check("latents_per_step", path)
    loop.check("video", loop.video(path[-1]))
    if "image_latents" in loop.outputs:
        loop.check("image_latents", loop.image_latents())
    if "initial_latents" in loop.outputs:
        loop.check("initial_latents", loop.start())
