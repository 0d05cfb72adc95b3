"""The released HunyuanVideo-Avatar: its shapes, the names of its checkpoint, and how its sampler behaves.

Source: the repository Tencent-Hunyuan/HunyuanVideo-Avatar, facts of section 2. Its weights have their own
licence and aren't shipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from hy_core.condition import Condition
from hy_core.dit import DiT
from hy_core.dit.ports import port_owner
from hy_core.errors import HyError
from hy_core.flow.cache import StepCache
from hy_core.flow.guidance import Branch
from hy_core.flow.policy import SamplingPolicy
from hy_core.flow.windows import Windows
from hy_core.weights.keys import Source
from hy_core.weights.strict import fill
from torch import Tensor

from hy_avatar.config import RELEASED, AvatarConfig, Speech
from hy_avatar.network import attach_modules

#: Steps whose guidance is on text and speech, with weaker masks; in the others it is on speech alone.
TEXT_STEPS, EARLY_MASK = 10, 0.6
#: Steps (of 50) that run the whole network; the others reuse its result and run the last block.
WHOLE = {*range(15), *range(15, 42, 5), *range(41, 50)}
WINDOWS = Windows(33, 10)
CACHE = StepCache(lambda step, steps: step in WHOLE or step >= 50)

#: Names of the modules in the released file, by the port that they are attached to.
_PLACES = (
    (r"adapter_inputs\.{name}\.audio_proj\.(.+)", r"audio_proj.\1"),
    (r"embed\.{name}\.(ref_in|before_proj)\.(.+)", r"\1.\2"),
    (r"time\.{name}\.motion_expression\.(.+)", r"motion_exp.\1"),
    (r"time\.{name}\.motion_head\.(.+)", r"motion_pose.\1"),
    (r"time\.{name}\.fps\.(.+)", r"fps_proj.\1"),
)
_ADAPTER = r"double_blocks\.(\d+)\.after\.{name}\.speech\.attend\.(\w+)\.(weight|bias)"
_LAYERS = {"norm_input": "norm1", "norm": "norm2", "q": "to_q", "kv": "to_kv", "proj": "to_out"}
_OWN = re.compile(r"(audio_proj|ref_in|before_proj|motion_exp|motion_pose|fps_proj|audio_adapter_blocks)\.")


def owns_key(key: str) -> bool:
    """Whether a tensor of a released checkpoint is the avatar's and not the base network's."""
    return bool(_OWN.match(key))


def source(key: str, name: str = "avatar", config: AvatarConfig = RELEASED) -> Source | None:
    """Return the tensor of a released checkpoint for our parameter `key`; None if it has none."""
    for pattern, theirs in _PLACES:
        pattern = pattern.replace("{name}", re.escape(name))
        if re.fullmatch(pattern, key):
            return Source((re.sub(pattern, theirs, key),))
    found = re.fullmatch(_ADAPTER.replace("{name}", re.escape(name)), key)
    if found and config.speech and found[2] in _LAYERS:
        number = int(found[1]) // config.speech.every  # the file numbers adapters, not blocks
        return Source((f"audio_adapter_blocks.{number}.{_LAYERS[found[2]]}.{found[3]}",))
    return None


def config_of(
    shapes: Mapping[str, tuple[int, ...]], written: Mapping[str, Any] | None = None
) -> AvatarConfig:
    """Return the config of a released checkpoint from its tensors' shapes.

    How a frame's 50 hidden states split into 10 steps and 5 layers isn't in the shapes: `written` may have it
    (`audio_window`, `audio_blocks`), else it is as released. KeyError for a missing tensor.
    """
    written = written or {}
    width = shapes["audio_proj.norm.weight"][0]
    hidden, flat = shapes["audio_proj.proj1.weight"]
    window, layers = written.get("audio_window", Speech.window), written.get("audio_blocks", Speech.layers)
    speech = Speech(
        window=window,
        layers=layers,
        channels=flat // (window * layers),
        hidden=hidden,
        tokens=shapes["audio_proj.proj3.weight"][0] // width,
        inner=shapes["audio_adapter_blocks.0.to_q.weight"][0],
    )
    return AvatarConfig(speech=speech, controls=width // shapes["motion_exp.mlp.2.bias"][0])


def guidance(step: int, steps: int, cfg: float = 7.5) -> float:
    """Return the guidance scale of a step (from 0): from `cfg` towards 2, from the tenth step on towards 3.5."""
    if step < TEXT_STEPS:
        return (1 - step / steps) * (cfg - 2) + 2
    return (1 - step / steps) * 3 + 3.5


def negative(drivers: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter inputs of the negative branch: silence, and the weaker masks of the first steps."""
    return masked(silent(drivers), EARLY_MASK)


def plan(policy: SamplingPolicy, name: str, cfg: float, cache: bool = True) -> None:
    """Set guidance scale and step cache as the released sampler has them."""
    policy.set_scale(name, lambda step, steps: guidance(step, steps, cfg) if step >= TEXT_STEPS else 0.0)
    if cache:
        policy.set_step_cache(name, CACHE)


def guide(cond: Condition, name: str, cfg: float) -> list[Branch]:
    """Guidance as released: on text and speech, then on speech alone. `cond` is the positive condition.

    v = negative + w * (early - negative) at first; then v = silence + w * (cond - silence). `early` is `cond` with
    the weaker masks, `silence` is `cond` with silence; the scale of `cond` itself is set by `plan`.
    """
    full = cond.adapter_inputs[name]
    early = cond.copy(adapter_inputs=cond.adapter_inputs | {name: masked(full, EARLY_MASK)})
    silence = cond.copy(adapter_inputs=cond.adapter_inputs | {name: silent(full)})
    return [
        Branch(early, lambda step, steps: guidance(step, steps, cfg) if step < TEXT_STEPS else 0.0),
        Branch(silence, lambda step, steps: 1 - guidance(step, steps, cfg) if step >= TEXT_STEPS else 0.0),
    ]


def silent(drivers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the adapter inputs with silence: speech features of zero, as in training."""
    speech = drivers.get("speech")
    if speech is None:
        return dict(drivers)
    return {**drivers, "speech": {**speech, "features": torch.zeros_like(speech["features"])}}


def masked(drivers: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the adapter inputs with the speech masks multiplied by a factor."""
    speech = drivers.get("speech")
    if speech is None:
        return dict(drivers)
    return {**drivers, "speech": {**speech, "mask": speech["mask"] * factor}}


def load(dit: DiT, name: str, state: Mapping[str, Tensor]) -> None:
    """Attach the released modules to a DiT under a plugin's name, filled from a checkpoint's tensors: all of them.

    `state` holds tensors of any shape by name.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    try:
        config = config_of(shapes)
    except KeyError as error:
        raise HyError(f"the avatar's weights lack {error.args[0]}", "copy or fetch the file again") from None
    with torch.device("meta"):
        attach_modules(dit, name, config)
    keys = [key for key in dit.state_dict() if port_owner(key) == name]
    fill(
        dit,
        dict(state),
        "the avatar's weights",
        lambda key: source(key, name, config),
        device=dit.device,
        dtype=dit.dtype,
        keys=keys,
    )
