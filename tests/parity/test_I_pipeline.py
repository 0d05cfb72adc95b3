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
from hy_core.vae import VAEConfig
from hy_core.weights import load_dit, load_vae
from hy_i2v.plugin import FIRST_CUT, I2V
from parity.cases import cases
from parity.test_C_vae import tiling_of

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
        self.vae = None
        if case.vae_config:
            config = VAEConfig.from_dict(case.vae_config)
            self.vae = load_vae(case.path / "vae.safetensors", config=config).eval().requires_grad_(False)
        self.noise = self.inputs["latents"] if "latents" in self.inputs else self.inputs["noise"]
        self.sigmas = shifted_sigmas(self.scalars["steps"], self.said("shift", 7.0))
        self.calls, self.trimmed_frames = [], 0
        self.dit.register_forward_hook(lambda dit, args, out: self.calls.append((args[0], out)))

    def said(self, name, otherwise):
        """A scalar of the run, or what the reference takes where the run has none."""
        found = self.scalars.get(name)
        return otherwise if found is None else found

    @property
    def picture(self):
        """Where the first frame comes from: pixels, or latents if the case has no VAE; None in text to video."""
        names = ("image",) if self.vae else ("image_latents",)
        places = (self.inputs, self.outputs)
        return next((place[name] for place in places for name in names if name in place), None)

    def image_latents(self):
        if self.vae is None:
            return self.picture
        return self.vae.to_model(self.vae.encode(self.picture).mode())

    def condition(self, prefix="", half=None):
        text, mask, pooled, guidance, _ = self.names
        text, mask, pooled = (self.inputs[prefix + name] for name in (text, mask, pooled))
        if half is not None:
            text, mask, pooled = (part.chunk(2)[half] for part in (text, mask, pooled))
        value = None
        if self.dit.config.guidance:
            scale = self.said(guidance, 1.0 if self.diffusers and self.picture is not None else 6.0)
            value = embedded_guidance(scale, torch.float32).expand(len(text))
        rows = [row[valid.bool()] for row, valid in zip(text, mask, strict=True)]
        channels = self.dit.config.in_channels - self.dit.config.out_channels
        frames, *size = self.noise.shape[2:]
        cond = Condition(rows, pooled, frames, tuple(size), guidance=value, condition_channels=channels)
        if self.picture is not None:
            I2V(image=Path("given")).fix_latents(cond, {0: self.image_latents()})
            self.trimmed_frames = FIRST_CUT if channels > self.dit.config.out_channels else 0
        return cond

    def guided(self):
        scale = self.said(self.names[4], 1.0)
        if scale == 1:
            return Guided(self.dit, self.condition())
        prefix = next((p for p in NEGATIVE if p + self.names[0] in self.inputs), None)
        if prefix is None:  # the original's batch: unconditional rows first
            negative, positive = self.condition(half=0), self.condition(half=1)
        else:
            negative, positive = self.condition(prefix), self.condition()
        return Guided(self.dit, negative, [Branch(positive, scale)], self.scalars["steps"])

    def start(self):
        mixed = self.picture is not None and (self.diffusers or self.said("stability", False))
        return 0.999 * self.noise + 0.001 * self.image_latents() if mixed else self.noise

    def sample(self):
        """Latents after each step; `first` are what the network took in the first step, gave, and the velocity."""
        guided, path = self.guided(), []

        def velocity(x, sigma, step):
            self.calls.clear()
            found = guided(x, sigma, step)
            if step == 0:
                self.first = *(torch.cat(part) for part in zip(*self.calls, strict=True)), found
            return found

        with torch.inference_mode():
            sample_euler(
                velocity,
                self.start(),
                self.sigmas,
                lambda step, steps, x, clean: path.append(x),
                before=lambda x, sigma, step: guided.base.with_fixed_frames(x),
            )
        return torch.stack(path)

    def video(self, latents):
        tiling = tiling_of(self.scalars.get("tiling"), self.vae.config, self.diffusers)
        with torch.inference_mode():
            pixels = self.vae.decode(self.vae.from_model(latents), tiling)
        video = (pixels[:, :, self.trimmed_frames :] / 2 + 0.5).clamp(0, 1)
        return video.transpose(1, 2) if self.diffusers else video

    def found(self):
        """All that a case may have the outputs of, by their names there."""
        path = self.sample()
        taken, gave, velocity = self.first
        rows = len(self.outputs.get("model_output_step0", gave))
        return {
            "image_latents": self.image_latents,
            "initial_latents": self.start,
            "sigmas": lambda: self.sigmas,
            "timesteps": lambda: self.sigmas[:-1] * 1000,
            "model_input_step0": lambda: taken[: len(self.outputs["model_input_step0"])],
            "model_output_step0": lambda: gave if rows == len(gave) else velocity,  # before or after guidance
            "latents_per_step": lambda: path,
            "video": lambda: self.video(path[-1]),
        }


@pytest.mark.parametrize(
    ("case", "run"),
    [
        *cases("I"),
        *cases("E", config_kind=("t2v_loop", "i2v_loop", "diffusers_t2v_pipeline", "diffusers_i2v_pipeline")),
    ],
)
def test_every_output(case, run):
    loop = Loop(case, run)
    found = loop.found()
    assert set(loop.outputs) <= set(found)
    undecoded = {"video", "image_latents"} if loop.vae is None else set()
    for name, expected in loop.outputs.items():
        if name not in undecoded:
            torch.testing.assert_close(found[name](), expected, atol=case.tolerance(run, name), rtol=0)
    if undecoded & set(loop.outputs):
        pytest.skip("all latents agree; the case has no VAE to make the rest with")


class Told:
    """A golden case with other scalars, or without its VAE."""

    def __init__(self, case, run, **changes):
        self.case, self.changes = case, changes
        self.scalars = lambda run: (
            {k: v for k, v in case.scalars(run).items() if k not in changes}
            | {k: v for k, v in changes.items() if v is not None}
        )

    def __getattr__(self, name):
        return getattr(self.case, name)


def decodable(case, run):
    """Whether a loop has all optional parts: an embedded guidance of 6.0, a VAE, and frames wider than a tile."""
    inputs = case.inputs(run)
    noise = inputs.get("latents", inputs.get("noise"))
    embedded = case.scalars(run).get("embedded") == 6.0
    return embedded and bool(case.vae_config) and noise is not None and noise.shape[-1] * 8 > 32


E5 = [one.values for one in cases("E", config_kind="i2v_loop", optional=True)]
COMPLETE = [values for values in E5 if decodable(*values)]


@pytest.mark.skipif(not COMPLETE, reason="no golden image-to-video loop with embedded guidance 6.0 and a VAE")
def test_what_a_case_may_leave_out():
    case, run = COMPLETE[0]
    whole = Loop(case, run)
    bare = Loop(Told(case, run, embedded=None, cfg_scale=None, shift=None, stability=None), run)
    assert torch.equal(bare.start(), bare.noise) and bare.said("cfg_scale", 1.0) == 1.0
    assert torch.equal(bare.condition().guidance, whole.condition().guidance)
    tiled = Loop(Told(case, run, tiling="both"), run)
    latents = tiled.noise
    assert not torch.equal(tiled.video(latents), whole.video(latents))  # 48 pixels wide, in tiles of 32
    blind = Told(case, run)
    blind.vae_config = {}
    loop = Loop(blind, run)
    assert loop.vae is None
    path = loop.found()["latents_per_step"]()
    torch.testing.assert_close(
        path, case.outputs(run)["latents_per_step"], atol=case.tolerance(run, "latents_per_step"), rtol=0
    )
