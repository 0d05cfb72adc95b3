"""Condition: what one guidance branch of the network sees besides the noisy video, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hy_core.condition.contributions import (
    ContextFrames,
    FixedFrame,
    FrameSlicer,
    TextTokens,
    Time,
)
from hy_core.condition.encoding import EncodingContext
from hy_core.errors import ConflictError, PluginError


@dataclass
class Condition:
    """What one guidance branch of the network sees: B rows of text, and what plugins contribute.

    `text` holds the valid tokens of each row, [L_i, D_text], without padding; `pooled` is [B, D_pooled];
    `guidance` [B] is the embedded guidance value (see `hy_core.dit.embedded_guidance`) or None; `frames` and
    `size` (height, width) count latents; `prompts` and `negative` identify the branch.

    `condition_channels` counts the network's input channels beside the noisy ones (see
    `set_channel_condition`); `patch` is the patch size (rows, columns) in latents. `riflex` lowers one temporal
    frequency (`hy_core.dit.rope.riflex`) for clips longer than those of the training.

    `encoding` holds what conditioners encode with (VAE, folder, segment, caches); the network doesn't see it.

    Contributions are additive (`add_text`, `add_context`, `set_adapter_inputs`) or exclusive (`fix_frames` of one
    frame, `set_text`, `set_channel_condition`: a second owner is a ConflictError that names both). Additive ones are
    ordered by owner name, so the order of plugins on a command line changes nothing. How the run samples is set in a
    `hy_core.flow.policy.SamplingPolicy`.
    """

    text: list[Tensor]
    pooled: Tensor
    frames: int
    size: tuple[int, int]
    fps: float = 24.0
    guidance: Tensor | None = None
    prompts: tuple[str, ...] = ()
    negative: bool = False
    condition_channels: int = 0
    patch: tuple[int, int] = (2, 2)
    riflex: bool = False
    adapter_inputs: dict[str, Any] = field(default_factory=dict)
    fixed_frames: dict[int, FixedFrame] = field(default_factory=dict)
    slicers: dict[str, FrameSlicer] = field(default_factory=dict)
    encoding: EncodingContext = field(default_factory=EncodingContext, repr=False, compare=False)
    _extras: list[TextTokens] = field(default_factory=list)
    _contexts: list[ContextFrames] = field(default_factory=list)
    _channel_condition: tuple[str, Tensor] | None = None
    _text_owner: str | None = None

    @property
    def rows(self) -> int:
        """B, the number of videos."""
        return len(self.text)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the network's tokens."""
        return self.size[0] // self.patch[0], self.size[1] // self.patch[1]

    @property
    def contexts(self) -> list[ContextFrames]:
        """Context frames in the order in which they stand before the video."""
        return sorted(self._contexts, key=lambda context: context.owner)

    def tokens(self) -> list[Tensor]:
        """The text stream of each row: tokens added before, the prompt's, tokens added after.

        One tensor [L_i, D] per row.
        """
        extras = sorted(self._extras, key=lambda extra: extra.owner)
        rows = []
        for row, prompt in enumerate(self.text):
            before = [e.tokens[row % len(e.tokens)] for e in extras if e.before]
            after = [e.tokens[row % len(e.tokens)] for e in extras if not e.before]
            parts = [part.to(prompt) for part in (*before, prompt, *after)]
            rows.append(torch.cat(parts) if len(parts) > 1 else prompt)
        return rows

    def set_text(self, owner: str, text: Sequence[Tensor], pooled: Tensor | None = None) -> None:
        """Replace the prompt's tokens (a model that reads picture and prompt together). Exclusive.

        `text` has one tensor [L_i, D] per row, `pooled` is [B, pooled_dim].
        """
        if self._text_owner not in (None, owner):
            raise ConflictError(
                f"{self._text_owner} and {owner} both replace the prompt's tokens", "drop one of them"
            )
        self._check(owner, len(text) == self.rows, f"set_text takes {self.rows} rows, not {len(text)}")
        self._text_owner, self.text = owner, list(text)
        self.pooled = self.pooled if pooled is None else pooled

    def add_text(self, owner: str, tokens: Sequence[Tensor] | Tensor, before: bool = True) -> None:
        """Add tokens to the text stream: one [n, D] for each row in a list, or one for all rows. Additive."""
        tokens = (tokens,) if isinstance(tokens, Tensor) else tuple(tokens)
        self._check(
            owner, len(tokens) in (1, self.rows), f"add_text takes 1 or {self.rows} rows, not {len(tokens)}"
        )
        width = self.text[0].shape[-1]
        for part in tokens:
            fits = part.ndim == 2 and part.shape[1] == width
            self._check(owner, fits, f"add_text takes tokens [n, {width}], not {list(part.shape)}")
        self._extras.append(TextTokens(owner, tokens, before))

    def add_context(self, owner: str, latents: Tensor, at: Sequence[float], time: Time = "clean") -> None:
        """Add context frames [B, C, f, h, w] at the temporal positions `at`, see `ContextFrames`. Additive."""
        at = tuple(float(position) for position in at)
        self._check(
            owner, time in ("clean", "video"), f"add_context takes time 'clean' or 'video', not {time!r}"
        )
        self._check_latents(owner, "add_context", latents, len(at))
        self._contexts.append(ContextFrames(owner, latents, at, time))

    def fix_frames(self, owner: str, frames: Sequence[int], latents: Tensor, time: float = 0.0) -> None:
        """Fix frames of the video at the values `latents` [B, C, len(frames), h, w]. Exclusive for each frame.

        `frames` are latent frames from 0, or from the end when negative (-1 is the last). `time` is the diffusion
        time of the values: 0 for clean latents. ConflictError if another owner has fixed one of the frames.
        """
        self._check_latents(owner, "fix_frames", latents, len(frames))
        for frame in frames:
            inside = -self.frames <= frame < self.frames
            self._check(
                owner, inside, f"fix_frames: frame {frame}: the video has {self.frames} latent frames"
            )
        places = [frame % self.frames for frame in frames]
        self._check(owner, len(set(places)) == len(places), f"fix_frames names a frame twice: {list(frames)}")
        for place in places:
            if place in self.fixed_frames:
                raise ConflictError(
                    f"{self.fixed_frames[place].owner} and {owner} both set latent frame {place}", "drop one"
                )
        for index, place in enumerate(places):
            self.fixed_frames[place] = FixedFrame(owner, latents[:, :, index], time)

    def set_channel_condition(self, owner: str, latents: Tensor) -> None:
        """Set the network's extra input channels to [B, condition_channels, F, h, w]. Exclusive."""
        if self._channel_condition is not None:
            raise ConflictError(
                f"{self._channel_condition[0]} and {owner} both set the network's extra input channels",
                "drop one",
            )
        self._check_latents(owner, "set_channel_condition", latents, self.frames)
        fits = latents.shape[1] == self.condition_channels
        self._check(
            owner,
            fits,
            f"set_channel_condition takes {self.condition_channels} channels, not {latents.shape[1]}",
        )
        self._channel_condition = owner, latents

    @property
    def channel_condition(self) -> Tensor | None:
        """The values of the network's extra input channels, [B, condition_channels, F, h, w]; None if not set."""
        return None if self._channel_condition is None else self._channel_condition[1]

    def set_adapter_inputs(self, owner: str, value: Any, slicer: FrameSlicer | None = None) -> None:
        """Set the input of the modules that the owner attached at ports; a second call replaces it.

        Tensors in it, also inside dicts and lists, have the rows first: [B, ...], or [1, ...] for all. A long
        video is denoised in windows: `slicer(value, frames)` returns the input of a window with these latent frames.
        Without a slicer, tensors [B, F, ...] of the video's F frames are sliced and all else is passed as it is.
        """
        self.adapter_inputs[owner] = value
        if slicer is not None:
            self.slicers[owner] = slicer

    def with_fixed_frames(self, latents: Tensor) -> Tensor:
        """`latents` [B, C, F, h, w] with the fixed frames set to their values; the same tensor if none are fixed."""
        if not self.fixed_frames:
            return latents
        frames = list(latents.unbind(2))
        for place, fixed in self.fixed_frames.items():
            frames[place] = fixed.latent.to(latents).expand_as(frames[place])
        return torch.stack(frames, 2)

    def copy(self, **changes: Any) -> Condition:
        """An independent condition with the same contributions, for another branch; `changes` set fields."""
        own = dict(
            text=list(self.text),
            adapter_inputs=dict(self.adapter_inputs),
            fixed_frames=dict(self.fixed_frames),
            _extras=list(self._extras),
            _contexts=list(self._contexts),
            slicers=dict(self.slicers),
        )
        return replace(self, **(own | changes))

    def _check_latents(self, owner: str, call: str, latents: Tensor, frames: int) -> None:
        shape = list(latents.shape)
        fits = latents.ndim == 5 and shape[0] in (1, self.rows) and shape[2:] == [frames, *self.size]
        wanted = f"[{self.rows}, C, {frames}, {self.size[0]}, {self.size[1]}]"
        self._check(owner, fits, f"{call} takes latents {wanted}, not {shape}")

    @staticmethod
    def _check(owner: str, fine: bool, message: str) -> None:
        if not fine:
            raise PluginError(f"{owner}: {message}")
