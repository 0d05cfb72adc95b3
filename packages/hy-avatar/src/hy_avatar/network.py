"""What hy-avatar attaches to a DiT: which modules, at which ports; and the feed that they all read.

B rows, F latent frames, P pixel frames (4F-3), S patches of a frame, D width, K speakers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hy_core.dit import DiT
from hy_core.dit.layers import Linear, PatchEmbedding
from hy_core.dit.ports import add_to_video
from hy_core.errors import UsageError
from torch import Tensor, nn

from hy_avatar.adapters import Adapters, Attend, Bottleneck
from hy_avatar.controls import Controls

ASKED = ("area", "fix_first_frame", "restrict_to_mask", "guide_reference", "speech_gate")
"""Fields of `AvatarConfig` that no weight depends on: what a run is asked for where nobody says otherwise."""
GROUP = 4
"""Pixel frames of a latent frame; the first latent frame is the first pixel frame alone."""


@dataclass(frozen=True)
class Speech:
    """Speech: features [window, layers, channels] of a pixel frame become `tokens` tokens, read after blocks.

    The defaults are the released model's: 10 steps of Whisper tiny's 5 hidden states of 384, one head of 1024.
    `encoder` "mel" hears plain mel bands in their place (one layer, a channel for each): it needs no weights.
    `ordered` tells the four pixel frames of a latent frame apart. At 25 frames a second their windows overlap, so that
    each says what its neighbours are; at 8 they don't, and without it nothing says which of the four is the first.
    """

    window: int = 10
    layers: int = 5
    channels: int = 384
    hidden: int = 1024
    tokens: int = 4
    heads: int = 1
    inner: int = 1024
    every: int = 2  # double blocks
    every_single: int = 0  # none of the single ones
    encoder: str = "whisper"
    ordered: bool = False


@dataclass(frozen=True)
class Expression:
    """Expression: a latent of `features` numbers a pixel frame becomes `tokens` tokens of a latent frame.

    `extractor` is what the latents come from: "points" of the face, or a trained "codec" (see `expression_extract`);
    `ordered` as for `Speech`.
    """

    features: int = 128
    hidden: int = 256
    tokens: int = 16
    heads: int = 1
    inner: int = 1024
    every_double: int = 2
    every_single: int = 4
    extractor: str = "points"
    ordered: bool = False


@dataclass(frozen=True)
class Task:
    """A bottleneck adapter of a task's own after every `every` blocks of both kinds."""

    rank: int = 64
    every: int = 1


@dataclass(frozen=True)
class AvatarConfig:
    """Which drivers a set of weights knows; None and False are those that it doesn't.

    `reference`: "add" (the released model: own patch embedding and a linear map, added to the video's tokens),
    "channel" (the paper: as further input channels) or "none". `pose`: "guided" (a patch embedding of its own, zero at
    first), "paper" (the network's own, so that the skeleton's latents are added to the noisy ones) or "none".
    `controls` is how many numbers each motion takes.

    The rest are a run's defaults: `area` scales the mask relative to the face box, `fix_first_frame` fixes the first
    frame to the picture, `restrict_to_mask` limits speech and expression to the face, `guide_reference` guides the
    reference too (the negative branch has none), and `speech_gate` says what closes the mouth (see `presence`): all
    that isn't speech ("auto"), silence alone ("silence"), or nothing ("off").
    """

    speech: Speech | None = None
    expression: Expression | None = None
    pose: str = "none"
    controls: int = 4
    reference: str = "add"
    area: float = 3.0
    tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)
    fix_first_frame: bool = False
    restrict_to_mask: bool = False
    guide_reference: bool = False
    speech_gate: str = "auto"

    def __post_init__(self) -> None:
        if self.reference not in ("add", "channel", "none"):
            raise UsageError(f"unknown reference {self.reference!r}", "use add, channel or none")
        if self.pose not in ("none", "guided", "paper"):
            raise UsageError(f"unknown pose {self.pose!r}", "use guided, paper or none")
        if self.speech and self.speech.encoder not in ("whisper", "mel"):
            raise UsageError(f"unknown encoder of speech {self.speech.encoder!r}", "use whisper or mel")
        if self.speech_gate not in ("auto", "silence", "off"):
            raise UsageError(f"unknown speech_gate {self.speech_gate!r}", "use auto, silence or off")
        if self.expression and self.expression.extractor not in ("points", "codec"):
            raise UsageError(f"unknown extractor {self.expression.extractor!r}", "use points or codec")

    @property
    def guided(self) -> tuple[str, ...]:
        """The conditions that guidance is for: its other side is without them."""
        return ("speech", "expression", "pose", *(["reference"] if self.guide_reference else []))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, with plain JSON types only."""
        return dataclasses.asdict(self)

    def modules(self) -> dict[str, Any]:
        """What of it the weights depend on, as JSON: all but `ASKED`."""
        return {name: value for name, value in self.to_json().items() if name not in ASKED}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AvatarConfig:
        """Read what `to_json` wrote; UsageError for what isn't known."""
        kinds = {"speech": Speech, "expression": Expression}
        try:
            made = {
                name: kinds[name](**value) if name in kinds and value else value
                for name, value in data.items()
            }
            tasks = {name: Task(**task) for name, task in data.get("tasks", {}).items()}
            return cls(**(made | {"tasks": tasks}))
        except (TypeError, AttributeError) as error:
            raise UsageError(f"the avatar's config doesn't fit: {error}") from None


class SpeechProjection(nn.Module):
    """Features of speech [..., window, layers, channels] to tokens [..., n, D] (facts 1.3.2)."""

    def __init__(self, config: Speech, width: int) -> None:
        super().__init__()
        self.tokens, self.window = config.tokens, (config.window, config.layers, config.channels)
        self.proj1 = Linear(config.window * config.layers * config.channels, config.hidden)
        self.proj2 = Linear(config.hidden, config.hidden)
        self.proj3 = Linear(config.hidden, config.tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        if tuple(features.shape[-3:]) != self.window:
            (_, layers, channels), (_, known, wide) = features.shape[-3:], self.window
            raise UsageError(
                f"the speech comes as {layers} layers of {channels}, these weights read {known} of {wide}",
                "use the Whisper model that they were trained with",
            )
        x = features.to(self.proj1.weight).flatten(-3)
        x = F.relu(self.proj2(F.relu(self.proj1(x))))
        return self.norm(self.proj3(x).unflatten(-1, (self.tokens, -1)))


class ExpressionEncoder(nn.Module):
    """Expression latents of pixel frames [B, P, features] to tokens of latent frames [B, F, n, D] (facts 1.3.4)."""

    def __init__(self, config: Expression, width: int) -> None:
        super().__init__()
        self.read = Linear(config.features, config.hidden)
        self.time = nn.ModuleList([nn.Conv1d(config.hidden, config.hidden, 3, padding=1) for _ in range(2)])
        self.queries = nn.Parameter(torch.randn(config.tokens, config.hidden) * 0.02)
        self.keys = Linear(config.hidden, 2 * config.hidden)
        self.write = Linear(config.hidden, width)
        self.norm = nn.LayerNorm(width)
        self.order = order(config.hidden) if config.ordered else None

    def forward(self, latents: Tensor) -> Tensor:
        x = self.read(latents.to(self.read.weight)).mT
        for layer in self.time:
            x = x + F.silu(layer(x))
        frames = grouped(x.mT.unsqueeze(2))  # [B,F,4,hidden]
        k, v = self.keys(frames if self.order is None else frames + self.order).chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(self.queries.to(k).expand(*k.shape[:2], -1, -1), k, v)
        return self.norm(self.write(read + self.queries.to(k)))


def grouped(tokens: Tensor) -> Tensor:
    """Tokens of pixel frames [B, P, n, D] to those of latent frames [B, F, 4n, D].

    As the causal VAE groups them: frame 0 alone (here four times), then four by four (facts 1.3.2).
    """
    first = tokens[:, :1].expand(-1, GROUP - 1, -1, -1)
    return torch.cat((first, tokens), 1).unflatten(1, (-1, GROUP)).flatten(2, 3)


def order(width: int) -> nn.Parameter:
    """What is added to each of the four pixel frames of a latent frame, [4, width], to tell them apart."""
    return nn.Parameter(torch.randn(GROUP, width) * 0.3)  # beside tokens of size 1: the frames differ at once


class Reader(nn.Module):
    """Turns the feed into what the other modules read, once per run: the drivers' features into tokens."""

    def __init__(self, config: AvatarConfig, width: int) -> None:
        super().__init__()
        self.audio_proj = SpeechProjection(config.speech, width) if config.speech else None
        self.order = order(width) if config.speech and config.speech.ordered else None
        self.expression = ExpressionEncoder(config.expression, width) if config.expression else None

    def forward(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        feed = dict(feed)
        if self.audio_proj is not None and "speech" in feed:
            features = feed["speech"]["features"]  # [B,K,P,window,layers,channels]
            tokens = grouped(self.audio_proj(features).flatten(0, 1))
            if self.order is not None:
                tokens = tokens + self.order.repeat_interleave(tokens.shape[2] // GROUP, 0)
            tokens = tokens.unflatten(0, features.shape[:2])
            feed["speech"] = {**feed["speech"], "tokens": tokens}
        if self.expression is not None and "expression" in feed:
            latents = feed["expression"]["features"]  # [B,K,P,features]
            tokens = self.expression(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
            feed["expression"] = {**feed["expression"], "tokens": tokens}
        return feed


class Pictures(nn.Module):
    """Adds what pictures say, as latents in the feed: `reference` [B, C, R, h, w], and `pose` [B, C, F, h, w].

    A reference of fewer frames than the video holds its last one. `pose_strength` is a factor on what the pose adds.
    """

    def __init__(self, config: AvatarConfig, channels: int, width: int, base: PatchEmbedding) -> None:
        super().__init__()
        patch = base.proj.kernel_size
        # The network's own embedding, in a tuple: it must not be this module's too.
        self.base = (base,) if config.pose == "paper" else ()
        self.ref_in = PatchEmbedding(channels, width, patch) if config.reference != "none" else None
        self.before_proj = Linear(width, width) if config.reference == "add" else None
        self.pose_in = PatchEmbedding(channels, width, patch) if config.pose == "guided" else None
        for layer in (
            self.before_proj or (self.ref_in and self.ref_in.proj),
            self.pose_in and self.pose_in.proj,
        ):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, feed: Mapping[str, Any]) -> Tensor:
        if self.ref_in is not None and "reference" in feed:
            seen = self.ref_in(lasting(feed["reference"].to(x.device), feed["frames"]))
            x = self.add(x, seen if self.before_proj is None else self.before_proj(seen), feed)
        if "pose" in feed and (self.base or self.pose_in is not None):
            shown = feed["pose"].to(x.device)
            change = self.as_latents(shown) if self.pose_in is None else self.pose_in(shown)
            x = self.add(x, change * feed.get("pose_strength", 1.0), feed, feed.get("pose_mask"))
        return x

    def as_latents(self, latents: Tensor) -> Tensor:
        """What the network's own embedding makes of latents that are added to the noisy ones: it is linear."""
        (base,) = self.base
        further = base.proj.in_channels - latents.shape[1]
        latents = F.pad(latents, (0, 0, 0, 0, 0, 0, 0, further))
        return base(latents) if base.proj.bias is None else base(latents) - base.proj.bias

    @staticmethod
    def add(x: Tensor, change: Tensor, feed: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """Add to the video's frames only; a change of one frame holds for all of them."""
        change = change.expand(-1, feed["frames"], -1, -1)
        return add_to_video(x, change, change.new_ones(1, feed["frames"], 1, 1) if mask is None else mask)


def token_mask(mask: Tensor, frames: int, size: tuple[int, int], patch: tuple[int, int] = (2, 2)) -> Tensor:
    """Masks [B, 1, F or 1, H, W] on the grid of tokens: [B, F, S, 1], for latents of `size` (height, width).

    The nearest value, as the released network takes them; `masks.to_tokens` loses no small face.
    """
    grid = (size[0] // patch[0], size[1] // patch[1])
    mask = mask.float().expand(-1, -1, frames, -1, -1)
    small = F.interpolate(mask, (frames, *grid), mode="nearest")
    return small[:, 0].flatten(2).unsqueeze(-1)


def lasting(latents: Tensor, frames: int) -> Tensor:
    """Latents [B, C, R, h, w] for a video of so many frames: cut, or their last one held."""
    last = latents[:, :, -1:].expand(-1, -1, max(frames - latents.shape[2], 0), -1, -1)
    return torch.cat((latents[:, :, :frames], last), 2)


def extend(dit: DiT, name: str, config: AvatarConfig) -> None:
    """Attach the modules of `config` to a DiT under a plugin's name; they change nothing until they are trained."""
    width, dims = dit.width, dit.config
    if config.speech or config.expression:
        dit.adapter_inputs.attach(name, Reader(config, width))
    if config.reference != "none" or config.pose != "none":
        dit.embed.attach(name, Pictures(config, dims.out_channels, width, dit.img_in))
    if config.controls:
        dit.time.attach(name, Controls(width, config.controls))
    for kind, blocks in (("double", dit.double_blocks), ("single", dit.single_blocks)):
        for index, block in enumerate(blocks):
            adapters = adapters_of(config, width, kind, index)
            if adapters:
                block.after.attach(name, adapters)


def adapters_of(config: AvatarConfig, width: int, kind: str, index: int) -> Adapters:
    """The adapters that stand after a block: `kind` is double or single, `index` counts from 0."""
    made = Adapters()

    def here(every: int) -> bool:
        return every > 0 and index % every == every - 1

    if (speech := config.speech) and here(speech.every if kind == "double" else speech.every_single):
        made.attach("speech", Attend(width, width, speech.heads, speech.inner, eps=1e-5))
    if expression := config.expression:
        every = expression.every_double if kind == "double" else expression.every_single
        if here(every):
            made.attach("expression", Attend(width, width, expression.heads, expression.inner, eps=1e-5))
    for task, options in config.tasks.items():
        if here(options.every):
            made.attach(task, Bottleneck(width, options.rank))
    return made


def part(feed: Mapping[str, Any], frames: Sequence[int]) -> dict[str, Any]:
    """The feed of a window of the video: latent `frames`, one after the other, perhaps over the end to the start.

    The features of a window's pixel frames are those from 4 times its first latent frame on; behind the end of the
    video there is silence (zeros), and then it begins again (facts 2.5). The reference belongs to no place in the
    video: each window has the same.
    """
    feed, whole = dict(feed), feed["frames"]
    index = torch.tensor(list(frames))
    feed["frames"] = len(frames)

    def cut(value: Tensor, axis: int) -> Tensor:
        return value if value.shape[axis] == 1 else value.index_select(axis, index.to(value.device))

    def cut_pixels(value: Tensor) -> Tensor:
        steps = (GROUP * index[0] + torch.arange(GROUP * len(index) - 3)) % (GROUP * whole)
        rest = value.new_zeros(*value.shape[:2], GROUP * whole - value.shape[2], *value.shape[3:])
        return torch.cat((value, rest), 2).index_select(2, steps.to(value.device))

    for task, one in feed.items():
        if isinstance(one, Mapping):
            one = {**one, "mask": cut(one["mask"], 2)} if "mask" in one else dict(one)
            feed[task] = {**one, "features": cut_pixels(one["features"])} if "features" in one else one
    if "pose" in feed:
        feed["pose"] = cut(feed["pose"], 2)
    if feed.get("pose_mask") is not None:
        feed["pose_mask"] = cut(feed["pose_mask"], 1)
    return feed
