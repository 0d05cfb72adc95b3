"""Golden cases F: the released HunyuanVideo-Avatar, its network and its denoising loop, in fp32."""

from __future__ import annotations

import pytest
import torch
from hy_avatar import latent_inputs, network, released
from hy_avatar.network import slice_frames
from hy_core.condition import Condition
from hy_core.dit import DiT, DiTConfig
from hy_core.flow.cache import BlockCache
from hy_core.flow.denoise import Denoiser
from hy_core.flow.guidance import Branch, Guided
from hy_core.flow.policy import SamplingPolicy
from hy_core.flow.schedule import shifted_sigmas
from hy_core.weights.keys import Source
from hy_core.weights.strict import fill
from parity.cases import Case, cases

NAME = "avatar"


def load(case: Case) -> DiT:
    """The case's network, from its own keys, all of them and nothing else."""
    state = case.weights()
    config = released.config_of({key: tuple(value.shape) for key, value in state.items()}, case.model_config)
    dit = DiT(DiTConfig.from_official(case.model_config))
    network.attach_modules(dit, NAME, config)
    fill(dit, state, case.name, lambda key: released.source(key, NAME, config) or Source((key,)))
    return dit.eval().requires_grad_(False)


def feed(inputs: dict, frames: int, size: tuple[int, int], mask: torch.Tensor) -> dict:
    return {
        "frames": frames,
        "speech": {
            "features": inputs["audio_prompts"][:, None],
            "mask": latent_inputs.token_mask(mask, frames, size)[:, None],
        },
        "reference": inputs["ref_latents"],
        "motion_head": inputs["motion_pose"],
        "motion_expression": inputs["motion_exp"],
        "fps": inputs["fps"],
    }


def condition(inputs: dict, frames: int, size: tuple[int, int], prefix: str = "") -> Condition:
    text, mask = inputs[prefix + "text_states"], inputs[prefix + "text_mask"].bool()
    rows = [states[keep] for states, keep in zip(text, mask, strict=True)]
    cond = Condition(rows, inputs[prefix + "text_states_2"], frames, size, negative=bool(prefix))
    cond.add_context(NAME, inputs["ref_latents"][:, :, :1], [-1], "video")
    return cond


@pytest.mark.parametrize("case,run", cases("F", config_kind="avatar_dit"))
def test_network(case: Case, run: str) -> None:
    dit, inputs, outputs = load(case), case.inputs(run), case.outputs(run)
    latents, now = inputs["x"], inputs["t"].double() / 1000
    frames, size = latents.shape[2], tuple(latents.shape[3:])
    cond = condition(inputs, frames, size)
    cond.set_adapter_inputs(NAME, feed(inputs, frames, size, inputs["face_mask"]))
    denoiser, kept = Denoiser(dit, cond), BlockCache()

    def close(name: str, ours: torch.Tensor) -> None:
        assert (ours - outputs[name]).abs().max() <= case.tolerance(run, name), name

    close("x", denoiser(latents, now, kept))
    if "audio_proj" in outputs:
        close("audio_proj", dit.adapter_inputs[NAME].audio_proj(inputs["audio_prompts"]))
    if "cache_out" in outputs:  # video, then text; padding is nobody's business
        video, valid = kept.video.flatten(1, 2), inputs["text_mask"].bool()
        theirs, tolerance = outputs["cache_out"], case.tolerance(run, "cache_out")
        assert (video - theirs[:, : video.shape[1]]).abs().max() <= tolerance
        assert (kept.text - theirs[:, video.shape[1] :][valid]).abs().max() <= tolerance
    if "x_cached_t09" in outputs:
        close("x_cached_t09", denoiser(latents, now * 0.9, kept))


@pytest.mark.parametrize("case,run", cases("F", config_kind="avatar_loop"))
def test_loop(case: Case, run: str) -> None:
    """Every step from where the reference stood before it, and the whole run from its noise."""
    dit, inputs, outputs, scalars = load(case), case.inputs(run), case.outputs(run), case.scalars(run)
    steps, cfg = scalars["steps"], scalars["scale"]
    sounds = inputs["audio_prompts"].shape[1]
    noise = inputs["latents"] if sounds > 129 else inputs["latents"][:, :, : released.WINDOWS.length]
    frames, size = noise.shape[2], tuple(noise.shape[3:])
    positive, negative = (condition(inputs, frames, size, prefix) for prefix in ("", "neg_"))
    drivers = feed(inputs, frames, size, inputs["face_masks"])
    positive.set_adapter_inputs(NAME, drivers, slice_frames)
    negative.set_adapter_inputs(NAME, released.negative(drivers), slice_frames)
    policy = SamplingPolicy()
    policy.set_windows(NAME, released.WINDOWS)
    released.plan(policy, NAME, cfg)
    branches = released.guide(positive, NAME, cfg)
    guided = Guided(
        dit,
        negative,
        [Branch(positive, policy.scale), *branches],
        steps,
        windows=policy.windows,
        cache=policy.step_cache,
    )
    sigmas = shifted_sigmas(steps, scalars["shift"])

    def close(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        off = (ours - theirs).abs()
        assert off.max() <= case.tolerance(run, name), name
        assert (off > 1e-4).float().mean() <= 0.03, name  # more would not be bfloat16 that flipped

    scales = [released.guidance(step, steps, cfg) for step in range(steps)]
    assert (torch.tensor(scales) - outputs["guidance"]).abs().max() <= case.tolerance(run, "guidance")

    x, predictions = noise, []
    for step in range(steps):
        close("latents_before_step", x, outputs["latents_before_step"][step])
        parts = list(guided.parts(x, sigmas[step], step))
        predictions += [velocity for _, velocity in parts]
        x = rounded_step(x, parts, sigmas[step + 1] - sigmas[step])
    close("guided_prediction", torch.stack(predictions), outputs["guided_prediction"])
    close("latents_to_decode", x[:, :, : outputs["latents_to_decode"].shape[2]], outputs["latents_to_decode"])


def rounded_step(x: torch.Tensor, parts: list, change: torch.Tensor) -> torch.Tensor:
    """Euler's rule as the reference takes it: every window is rounded to bfloat16, then the mean is taken.

    We don't: the latents of a run stay float32.
    """
    total, count = torch.zeros_like(x), torch.zeros(x.shape[2], 1, 1)
    for frames, velocity in parts:
        total[:, :, frames] += (x[:, :, frames] + change * velocity).bfloat16().float()
        count[frames] += 1
    return total / count
