"""Condition: all that one guidance branch of the network sees besides the noisy video, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hy_core.errors import ConflictError, PluginError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from hy_core.flow.cache import StepCache
    from hy_core.flow.guidance import Scale
    from hy_core.flow.windows import Windows
    from hy_core.vae import VAE, Tiling

    FrameSlicer = Callable[[Any, Sequence[int]], Any]
    TilingFor = Callable[[int], Tiling | None]

Time = Literal["clean", "video"]


@dataclass(frozen=True)
class TextTokens:
    """Tokens that a plugin adds to the text stream: one [n, D] for each row, or one for all rows."""

    owner: str
    tokens: tuple[Tensor, ...]
    before: bool


@dataclass(frozen=True)
class ContextFrames:
    """Frames that the network sees beside the video and that never reach the output.

    `latents` [B, C, f, h, w]; `at` are their f temporal positions (the video's own are 0, 1, 2, …; -1 lies
    before them); `time` is "clean" (they run at time 0) or "video" (at the video's own time).
    """

    owner: str
    latents: Tensor
    at: tuple[float, ...]
    time: Time


@dataclass(frozen=True)
class FixedFrame:
    """A frame of the video that is given: `latent` [B, C, h, w] in the model's scale.

    `time` is how noisy it is: 0 for a clean one; training may disturb it a little and say so.
    """

    owner: str
    latent: Tensor
    time: float = 0.0


@dataclass(frozen=True)
class MaskRestriction:
    """Where what the owner feeds may show: `mask` [B or 1, 1, F, h, w], and the feed without what is confined."""

    owner: str
    mask: Tensor
    feed: Any


@dataclass
class Condition:
    """What one guidance branch sees: B rows of text and pooled text, and what plugins contribute.

    `text` holds the valid tokens of each row, [L_i, D_text], without padding; `pooled` is [B, D_pooled];
    `guidance` [B] is the embedded guidance value (see `hy_core.dit.embedded_guidance`) or None; `frames` and
    `size` (height, width) count latents; `prompts` and `negative` identify the branch; `vae` is the model's;
    `tiling_for(frames)` is the tiling of a clip of that length (None: whole); `folder` is the model's folder.

    `condition_channels` counts the network's input channels beside the noisy ones (see
    `set_channel_condition`); `patch` is the patch size (rows, columns) in latents. `riflex` lowers one temporal
    frequency (`hy_core.dit.rope.riflex`) for clips longer than those of the training.

    A clip made in segments has one condition per segment: `start_frame` is the segment's first frame in the clip,
    `previous_frames` are the frames it overlaps with, uint8 [F, H, W, 3], None in the first segment.

    `scale`, `windows` and `cache` change how the run samples (see `sample`); `mask_restriction` limits a driver to
    a mask (see `restrict_to_mask`); `weight` weighs places in the training loss (see `weigh`).

    Contributions are additive (`add_text`, `add_context`, `set_adapter_inputs`) or exclusive (`fix_frames` of one
    frame, `set_text`, `set_channel_condition`: a second owner is a ConflictError that names both). Additive ones are
    ordered by owner name, so the order of plugins on a command line changes nothing.
    """

    text: list[Tensor]
    pooled: Tensor
    frames: int
    size: tuple[int, int]
    fps: float = 24.0
    guidance: Tensor | None = None
    prompts: tuple[str, ...] = ()
    negative: bool = False
    vae: VAE | None = None
    tiling_for: TilingFor | None = None
    folder: Path | None = None
    condition_channels: int = 0
    patch: tuple[int, int] = (2, 2)
    riflex: bool = False
    start_frame: int = 0
    previous_frames: np.ndarray | None = None
    trimmed_frames: int = 0
    scale: Scale | None = None
    windows: Windows | None = None
    cache: StepCache | None = None
    mask_restriction: MaskRestriction | None = None
    weight: Tensor | None = None
    adapter_inputs: dict[str, Any] = field(default_factory=dict)
    fixed_frames: dict[int, FixedFrame] = field(default_factory=dict)
    _extras: list[TextTokens] = field(default_factory=list)
    _contexts: list[ContextFrames] = field(default_factory=list)
    _channel_condition: tuple[str, Tensor] | None = None
    _text_owner: str | None = None
    _parts: dict[str, FrameSlicer] = field(default_factory=dict)
    _sampling: dict[str, str] = field(default_factory=dict)

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
        """The text stream of each row: tokens added before, the prompt's, tokens added after."""
        extras = sorted(self._extras, key=lambda extra: extra.owner)
        rows = []
        for row, prompt in enumerate(self.text):
            before = [e.tokens[row % len(e.tokens)] for e in extras if e.before]
            after = [e.tokens[row % len(e.tokens)] for e in extras if not e.before]
            parts = [part.to(prompt) for part in (*before, prompt, *after)]
            rows.append(torch.cat(parts) if len(parts) > 1 else prompt)
        return rows

    def set_text(self, owner: str, text: Sequence[Tensor], pooled: Tensor | None = None) -> None:
        """Replace the prompt's tokens (a model that reads picture and prompt together). Exclusive."""
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
        """Show the network frames [B, C, f, h, w] at the temporal positions `at`. Additive."""
        at = tuple(float(position) for position in at)
        self._check(
            owner, time in ("clean", "video"), f"add_context takes time 'clean' or 'video', not {time!r}"
        )
        self._check_latents(owner, "add_context", latents, len(at))
        self._contexts.append(ContextFrames(owner, latents, at, time))

    def fix_frames(self, owner: str, frames: Sequence[int], latents: Tensor, time: float = 0.0) -> None:
        """Give frames of the video: values [B, C, len(frames), h, w] held, at `time`. Exclusive for each frame.

        Frames count latent frames from 0, or from the end when negative (-1 is the last). `time` is 0 for clean
        latents, else the time that their noise has on the path.
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
        """Set the network's further input channels, [B, condition_channels, F, h, w]. Exclusive."""
        if self._channel_condition is not None:
            raise ConflictError(
                f"{self._channel_condition[0]} and {owner} both fill the network's further input channels",
                "drop one",
            )
        self._check_latents(owner, "fill", latents, self.frames)
        fits = latents.shape[1] == self.condition_channels
        self._check(
            owner,
            fits,
            f"set_channel_condition takes {self.condition_channels} channels, not {latents.shape[1]}",
        )
        self._channel_condition = owner, latents

    @property
    def channel_condition(self) -> Tensor | None:
        """What the network's further input channels were filled with [B, `condition_channels`, F, h, w]."""
        return None if self._channel_condition is None else self._channel_condition[1]

    def trim_start(self, frames: int) -> None:
        """Leave out the first decoded `frames` of the result; of several wishes the longest holds."""
        self.trimmed_frames = max(self.trimmed_frames, frames)

    def set_adapter_inputs(self, owner: str, value: Any, part: FrameSlicer | None = None) -> None:
        """Hand `value` to the modules that the owner attached at ports; feeding again replaces it.

        Tensors in it, also inside dicts and lists, have the rows first: [B, ...], or [1, ...] for all. A long
        video is denoised in windows: `part(value, frames)` is the value of a window with these latent frames.
        Without it, tensors [B, F, ...] of the video's frames are cut and all else is taken as it is.
        """
        self.adapter_inputs[owner] = value
        if part is not None:
            self._parts[owner] = part

    def sample(
        self,
        owner: str,
        *,
        scale: Scale | None = None,
        windows: Windows | None = None,
        cache: StepCache | None = None,
    ) -> None:
        """Say how the run samples; each is exclusive. Asked of the positive condition only.

        `scale` takes the place of the request's `cfg` in each step (a number, or a function of the step from 0
        and the steps); it needs a negative prompt to be run beside, so a `cfg` other than 1. `windows` cut a long
        video, `cache` lets some steps reuse what others computed.
        """
        wishes = {"scale": scale, "windows": windows, "cache": cache}
        for name, value in wishes.items():
            if value is None:
                continue
            if (other := self._sampling.setdefault(name, owner)) != owner:
                raise ConflictError(f"{other} and {owner} both set the run's {name}", "drop one")
            setattr(self, name, value)

    def restrict_to_mask(self, owner: str, mask: Tensor, feed: Any) -> None:
        """Let a part of what the owner feeds show only where `mask` [B or 1, 1, F, h, w] isn't 0. Exclusive.

        `feed` is the adapter input without that part, in the same form. Outside the mask the latents are replaced,
        before each step and at the end, by those of a second rollout from the same noise with `feed`, which doubles
        the rows. Set on the positive condition only.
        """
        if self.mask_restriction is not None and self.mask_restriction.owner != owner:
            raise ConflictError(
                f"{self.mask_restriction.owner} and {owner} both confine what they feed", "drop one"
            )
        wanted = [1, self.frames, *self.size]
        fits = mask.ndim == 5 and mask.shape[0] in (1, self.rows) and list(mask.shape[1:]) == wanted
        self._check(
            owner, fits, f"restrict_to_mask takes a mask {[self.rows, *wanted]}, not {list(mask.shape)}"
        )
        self.mask_restriction = MaskRestriction(owner, mask, feed)

    def doubled(self) -> Condition:
        """The rows of this condition, and below them those of the clip that `mask_restriction` keeps the rest to."""
        other = (
            self
            if self.mask_restriction is None
            else self.copy(
                adapter_inputs=self.adapter_inputs | {self.mask_restriction.owner: self.mask_restriction.feed}
            )
        )
        return merge([self.copy(mask_restriction=None), other.copy(mask_restriction=None)])

    def weigh(self, weight: Tensor) -> None:
        """In training: say how much places count in the loss, 1 being usual; broadcasts over [B, C, F, h, w].

        What several plugins say is multiplied.
        """
        self.weight = weight if self.weight is None else self.weight * weight.to(self.weight)

    def window(self, frames: Sequence[int]) -> Condition:
        """The condition of some latent frames of the video, as a video of their own: its frames are 0, 1, 2..."""
        frames = list(frames)
        if frames == list(range(self.frames)):
            return self
        adapter_inputs = {
            owner: self._parts[owner](value, frames)
            if owner in self._parts
            else _cut(value, frames, self.frames)
            for owner, value in self.adapter_inputs.items()
        }
        fixed_frames = {
            place: self.fixed_frames[frame]
            for place, frame in enumerate(frames)
            if frame in self.fixed_frames
        }
        beside = self._channel_condition and (
            self._channel_condition[0],
            self._channel_condition[1][:, :, frames],
        )
        return self.copy(
            frames=len(frames),
            adapter_inputs=adapter_inputs,
            fixed_frames=fixed_frames,
            _channel_condition=beside,
        )

    def with_fixed_frames(self, latents: Tensor) -> Tensor:
        """Latents [B, C, F, h, w] with the pinned frames at their values; the same tensor without any."""
        if not self.fixed_frames:
            return latents
        frames = list(latents.unbind(2))
        for place, pin in self.fixed_frames.items():
            frames[place] = pin.latent.to(latents).expand_as(frames[place])
        return torch.stack(frames, 2)

    def copy(self, **changes: Any) -> Condition:
        """An independent condition with the same contributions, for another branch; `changes` set fields."""
        own = dict(
            text=list(self.text),
            adapter_inputs=dict(self.adapter_inputs),
            fixed_frames=dict(self.fixed_frames),
            _extras=list(self._extras),
            _contexts=list(self._contexts),
            _parts=dict(self._parts),
            _sampling=dict(self._sampling),
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


def mergeable(conditions: Sequence[Condition]) -> bool:
    """Whether `merge` can run these conditions as rows of one batch.

    They have the same size and frames, the same frames pinned and shown, and feeds of the same form.
    """

    def form(cond: Condition) -> tuple[Any, ...]:
        shown = tuple((c.at, c.time) for c in cond.contexts)
        fed = tuple(
            (owner, _form(cond.adapter_inputs[owner], cond.rows)) for owner in sorted(cond.adapter_inputs)
        )
        held = tuple(sorted((place, pin.time) for place, pin in cond.fixed_frames.items()))
        once = cond.guidance is None, cond.channel_condition is None, cond.riflex, cond.trimmed_frames
        kept = cond.mask_restriction and (
            cond.mask_restriction.owner,
            _form(cond.mask_restriction.feed, cond.rows),
        )
        return cond.frames, cond.size, once, held, shown, fed, kept

    return len(conditions) == 1 or len({form(cond) for cond in conditions}) == 1


def merge(conditions: Sequence[Condition]) -> Condition:
    """One condition with the rows of several, in order; they must be `mergeable`."""
    first = conditions[0]
    if len(conditions) == 1:
        return first
    rows = [cond.rows for cond in conditions]
    fixed_frames = {
        place: replace(pin, latent=_join([cond.fixed_frames[place].latent for cond in conditions], rows))
        for place, pin in first.fixed_frames.items()
    }
    contexts = [
        replace(context, latents=_join([cond.contexts[index].latents for cond in conditions], rows))
        for index, context in enumerate(first.contexts)
    ]
    confined = first.mask_restriction and replace(
        first.mask_restriction,
        mask=_join([cond.mask_restriction.mask for cond in conditions], rows),
        feed=_join([cond.mask_restriction.feed for cond in conditions], rows),
    )
    return replace(
        first,
        mask_restriction=confined,
        text=[row for cond in conditions for row in cond.tokens()],
        pooled=torch.cat([cond.pooled for cond in conditions]),
        guidance=None if first.guidance is None else torch.cat([cond.guidance for cond in conditions]),
        prompts=tuple(prompt for cond in conditions for prompt in cond.prompts),
        adapter_inputs={
            owner: _join([cond.adapter_inputs[owner] for cond in conditions], rows)
            for owner in first.adapter_inputs
        },
        fixed_frames=fixed_frames,
        _channel_condition=first._channel_condition
        and (first._channel_condition[0], _join([cond.channel_condition for cond in conditions], rows)),
        _extras=[],
        _contexts=contexts,
    )


def _cut(value: Any, frames: Sequence[int], whole: int) -> Any:
    """A feed of the video's `whole` frames, for some of them."""
    if isinstance(value, Tensor):
        return value[:, list(frames)] if value.ndim > 1 and value.shape[1] == whole > 1 else value
    if isinstance(value, Mapping):
        return {key: _cut(part, frames, whole) for key, part in value.items()}
    return [_cut(part, frames, whole) for part in value] if isinstance(value, list | tuple) else value


def _form(value: Any, rows: int) -> Any:
    """What two feeds must have in common to be joined; equal to nothing else if they can't be."""
    if isinstance(value, Tensor) and value.ndim and value.shape[0] in (1, rows):
        return value.shape[1:], value.dtype
    if isinstance(value, Mapping):
        return tuple((key, _form(value[key], rows)) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(_form(part, rows) for part in value)
    return value if isinstance(value, str | int | float | None) else object()


def _join(values: Sequence[Any], rows: Sequence[int]) -> Any:
    """Values of one form, one below the other."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([v.expand(n, *v.shape[1:]) for v, n in zip(values, rows, strict=True)])
    if isinstance(first, Mapping):
        return {key: _join([value[key] for value in values], rows) for key in first}
    if isinstance(first, list | tuple):
        return [_join(parts, rows) for parts in zip(*values, strict=True)]
    return first
