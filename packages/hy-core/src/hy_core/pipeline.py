"""From requests to clips: the seven steps, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hy_core import models, provenance
from hy_core.condition import Condition, merge, mergeable
from hy_core.conditioner import Conditioner, encode, segments
from hy_core.device import free_memory
from hy_core.dit import embedded_guidance
from hy_core.dit.attention import attention
from hy_core.errors import HyError, MemoryLimitError, UsageError
from hy_core.estimate import ALIVE_IN_DECODER, decoder_shapes
from hy_core.flow.guidance import Branch, Guided
from hy_core.flow.policy import SamplingPolicy, merge_policies, mergeable_policies
from hy_core.flow.sampler import SAMPLERS
from hy_core.flow.schedule import sigmas_for
from hy_core.keyed import KeyedCache
from hy_core.request import SEED_END, Request, Result
from hy_core.vae import Tiling

if TYPE_CHECKING:
    from hy_core.media.writer import Writer
    from hy_core.models import Model
    from hy_core.plugins import Plugins
    from hy_core.text import Encoded

SMALL = 4096
"""Video tokens up to which guidance branches share a batch: so few leave a device idle otherwise."""
SEED_STRIDE = 0x9E3779B97F4A7C15
"""Between the seeds of a clip's segments: so far apart that clips of neighbouring seeds share no noise."""


@dataclass(frozen=True)
class Progress:
    """News of a run. `stage` is load, encode, sample, decode or finish; `clip` counts from 0 to `clips`.

    `step` of `steps` counts sampling steps or decoded frames, and `seconds` is what the last one took. While
    sampling, `preview()` decodes one frame of what the clip is going to be: uint8 [H, W, 3].
    """

    stage: str
    clip: int = 0
    clips: int = 1
    detail: str = ""
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    preview: Callable[[], np.ndarray] | None = None


Callback = Callable[[Progress], None]
Sink = Callable[[int, Mapping[str, Any]], "Writer | None"]
"""`sink(index, record)`: what takes the frames of that request, with the record of how they are made, or None."""


def generate(
    requests: Request | Sequence[Request],
    conditioners: Sequence[Conditioner] = (),
    model: Model | None = None,
    callback: Callback | None = None,
    plugins: Plugins | None = None,
    rows: int = 1,
) -> Result | list[Result]:
    """Make one clip, or a list of them in the order of the requests; see `stream`."""
    alone = isinstance(requests, Request)
    made = list(stream([requests] if alone else requests, conditioners, model, callback, plugins, rows))
    return made[0] if alone else made


def stream(
    requests: Sequence[Request],
    conditioners: Sequence[Conditioner] = (),
    model: Model | None = None,
    callback: Callback | None = None,
    plugins: Plugins | None = None,
    rows: int = 1,
    sink: Sink | None = None,
) -> Iterator[Result]:
    """Make clips and yield each when it is done, in the order of the requests.

    `sink` opens what takes a clip's frames as they are decoded, so that memory is bounded by the tile and not by the
    clip; `frames` of such a result is None. A clip that a plugin wants whole (to `finish`, or at the end of the run) is
    kept all the same.

    Without `model`, that of the requests is loaded; they must agree on what belongs to it. `conditioners`
    hold for all requests and have been validated. Up to `rows` requests of one form go through the network
    together: with 1, a clip is bit for bit the same whatever stands beside it; with more, within rounding.

    Raises HyError in one line: for weights or numbers that are NaN, naming the place; MemoryLimitError,
    saying what to make smaller. Nothing but a `sink` writes, and it hears of the error, so that an interrupted run
    leaves nothing behind.
    """
    run = Run(requests, conditioners, callback, plugins, sink)
    with run.observed():
        model = model or run.load()
        model.extend(conditioners)
        if run.requests[0].compile:
            model.compile()
        texts = run.encode_prompts(model)
        for group in run.groups(rows):
            yield from run.make(model, group, texts)


class NotBatchable(Exception):
    """These requests can't run as rows of one batch."""


class Clip:
    """A clip in the making: its frames go to a writer as they come, or are kept."""

    def __init__(self, request: Request, index: int, files: ExitStack) -> None:
        self.request, self.index, self.files = request, index, files
        self.tiling = request.tiling
        self.record: dict[str, Any] | None = None
        self.writer: Writer | None = None
        self.parts: list[np.ndarray] = []
        self.past: np.ndarray | None = None

    def begin(self, record: dict[str, Any], sink: Sink | None) -> None:
        """Open the writer, if there is to be one; it is closed with the other `files`."""
        self.record = record
        if sink is not None and (writer := sink(self.index, record)) is not None:
            self.writer = self.files.enter_context(writer)

    def add(self, frames: np.ndarray, overlap: int) -> None:
        """Take the next frames, uint8 [F, H, W, 3]; the last `overlap` of all are `past`."""
        if self.writer is None:
            self.parts.append(frames)
        else:
            self.writer.add(frames)
        if overlap:
            seen = frames if self.past is None else np.concatenate([self.past, frames[-overlap:]])
            self.past = seen[-overlap:].copy()  # and not all that it is a part of

    def whole(self) -> np.ndarray | None:
        """All frames, if they were kept."""
        return np.concatenate(self.parts) if self.parts else None


class Run:
    """One call of `stream`: the requests and all who want to hear of them."""

    def __init__(
        self,
        requests: Sequence[Request],
        conditioners: Sequence[Conditioner] = (),
        callback: Callback | None = None,
        plugins: Plugins | None = None,
        sink: Sink | None = None,
    ) -> None:
        if not requests:
            raise UsageError("nothing to generate: the list of requests is empty")
        self.requests, self.conditioners = list(requests), conditioners
        self.callback, self.plugins = callback, plugins
        self.sink = None if self.wanted_whole() else sink
        self.stage, self.started, self.ended = "load", 0, 0
        self.segment = 0, 1  # which of how many is being made

    # -- the seven steps ---------------------------------------------------------------------------------

    def load(self) -> Model:
        """Step 1: the network, with its weights, where it runs."""
        wanted = {(r.model, r.device, r.dtype, r.weights, r.lora) for r in self.requests}
        if len(wanted) > 1:
            raise UsageError(
                "clips of one run share --model, --weights, --lora, --device and --dtype",
                "make them in runs of their own",
            )
        name, device, dtype, weights, lora = wanted.pop()
        self.tell("load", detail=name)
        return models.load(name, device, dtype, weights, lora, self.conditioners)

    def encode_prompts(self, model: Model) -> dict[tuple[str, bool], Encoded]:
        """Step 2: each prompt on its own, so that none depends on its neighbours; the encoders are freed."""
        asked: dict[tuple[str, bool], None] = {}
        for request in self.requests:
            image = request.frames == 1
            asked[request.prompt, image] = None
            if request.cfg != 1:
                asked[request.negative, image] = None
        self.tell("encode", detail=f"{len(asked)} prompts" if len(asked) > 1 else "prompt")
        with model.text() as encoder, torch.inference_mode():
            texts = {(prompt, image): encoder.encode([prompt], image) for prompt, image in asked}
        for (prompt, _), encoded in texts.items():
            if not all(finite(part) for part in (encoded.pooled, *encoded.text)):
                short = prompt if len(prompt) <= 40 else prompt[:40] + "…"
                raise HyError(
                    f"the text encoder gives NaN for {short!r}", "its weights are damaged: fetch them again"
                )
        return texts

    @torch.inference_mode()
    def make(
        self, model: Model, group: Sequence[int], texts: dict[tuple[str, bool], Encoded]
    ) -> list[Result]:
        """Steps 3 to 7 for the requests of a group, which run as rows of one batch."""
        try:
            with ExitStack() as files:
                clips = [Clip(self.requests[index], index, files) for index in group]
                self.fill(model, clips, texts)
        except NotBatchable:
            return [result for index in group for result in self.make(model, [index], texts)]
        results = []
        for clip in clips:
            result = Result(clip.whole(), clip.request.fps, provenance=clip.record, request=clip.request)
            self.tell("finish", clip.index)
            # By name, as all that adds up: sound is made and speech put over it in whatever order plugins are given.
            for conditioner in sorted(self.conditioners, key=lambda one: one.name):
                conditioner.finish(clip.request, result)  # 6
            results.append(result)
            self.end(result)
        return results  # 7: whoever called writes it, if no sink has

    def fill(self, model: Model, clips: Sequence[Clip], texts: dict[tuple[str, bool], Encoded]) -> None:
        """Steps 3 to 5: the frames of these clips, by segment. `NotBatchable` if they can't share a batch."""
        first = clips[0].request
        pieces = segments(self.conditioners, first)
        for number in range(pieces.count):
            self.segment = number, pieces.count
            requests = [segment_request(clip.request, number) for clip in clips]
            self.tell("encode", clips[0].index, detail=", ".join(c.name for c in self.conditioners))
            start = number * (first.frames - pieces.overlap)
            made = [
                self.conditions(model, request, texts, start, clip.past)
                for request, clip in zip(requests, clips, strict=True)
            ]  # 3
            conds, policies = [branches for branches, _ in made], [policy for _, policy in made]
            rows = [branches[0].rows for branches in conds]
            if not (
                mergeable_policies(policies, rows)
                and all(mergeable(branch) for branch in zip(*conds, strict=True))
            ):
                raise NotBatchable
            with attention(first.attention):
                group = [clip.index for clip in clips]
                merged = [merge(branch) for branch in zip(*conds, strict=True)]
                policy = merge_policies(policies, rows)
                latents = self.sample(model, requests, group, merged, policy)  # 4
            for row, clip in enumerate(clips):
                if clip.record is None:
                    clip.tiling = tiling_of(clip.request, model)
                    clip.begin(self.record(model, clip), self.sink)
                cut = max(policies[row].trimmed_frames, pieces.overlap if number else 0)
                for frames in self.decode(model, clip, latents[[row]]):  # 5
                    clip.add(frames[cut:], pieces.overlap)
                    cut = max(cut - len(frames), 0)

    def record(self, model: Model, clip: Clip) -> dict[str, Any]:
        """How a clip is made, for provenance."""
        request = replace(clip.request, tiling=clip.tiling)
        dtype = str(model.dit.dtype).removeprefix("torch.")
        packages = self.plugins.distributions(request.plugins) if self.plugins else ()
        plugins = self.plugins.records(request.plugins) if self.plugins else ()
        return provenance.record(request, model.fingerprints, str(model.device), dtype, packages, plugins)

    def conditions(
        self,
        model: Model,
        request: Request,
        texts: dict[tuple[str, bool], Encoded],
        start: int = 0,
        past: np.ndarray | None = None,
    ) -> tuple[list[Condition], SamplingPolicy]:
        """Step 3: the condition of the prompt, then that of the negative branch, if there is one; how to sample.

        `start` and `past` are those of the segment (see `Condition`).
        """
        scale = guidance_of(request, model)
        frames, *size = model.vae.config.latent_size(request.frames, request.height, request.width)
        conds, clip_cache = [], KeyedCache()
        for negative in (False, True) if request.cfg != 1 else (False,):
            prompt = request.negative if negative else request.prompt
            encoded = texts[prompt, request.frames == 1]
            cond = Condition(
                text=list(encoded.text),
                pooled=encoded.pooled,
                frames=frames,
                size=tuple(size),
                fps=request.fps,
                guidance=None if scale is None else embedded_guidance(scale, model.dit.dtype).reshape(1),
                prompts=(prompt,),
                negative=negative,
                vae=model.vae,
                tiling_for=partial(tiles_of, request, model),
                folder=model.folder,
                condition_channels=max(model.dit.config.in_channels - model.dit.config.out_channels, 0),
                patch=tuple(model.dit.config.patch[1:]),
                start_frame=start,
                previous_frames=past,
                clip_cache=clip_cache,
            )
            conds.append(cond)
        return conds, encode(self.conditioners, request, conds)

    def sample(
        self,
        model: Model,
        requests: Sequence[Request],
        group: Sequence[int],
        conds: Sequence[Condition],
        policy: SamplingPolicy,
    ) -> Tensor:
        """Step 4: from noise to latents [rows, C, F, h, w], float32, along the guided velocity."""
        first, clock = requests[0], time.perf_counter()
        restriction = policy.restriction
        if restriction is not None:
            conds = [restriction.doubled(one) for one in conds]
        cond, base = conds[0], conds[-1]
        branches = [] if cond is base else [Branch(cond, policy.scale)]
        for conditioner in self.conditioners:
            branches += conditioner.branches(first, cond)
        small = cond.frames * cond.size[0] * cond.size[1] // 4 <= SMALL
        guided = Guided(model.dit, base, branches, policy.steps, small, policy.windows, policy.step_cache)
        samplers = SAMPLERS | dict(self.plugins.samplers() if self.plugins else {})
        if policy.sampler not in samplers:
            raise UsageError(f"--sampler {policy.sampler}: unknown", f"use {', '.join(samplers)}")

        def before(x: Tensor, sigma: Tensor, step: int) -> Tensor:
            for conditioner in self.conditioners:
                x = conditioner.before_step(x, float(sigma), cond)
            x = cond.with_fixed_frames(x)
            return x if restriction is None else restriction.combined(x)

        def after(step: int, steps: int, x: Tensor, clean: Tensor) -> None:
            nonlocal clock
            if not finite(x):
                raise not_a_number(model.dit, f"step {step} of {steps}")
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            number, count = self.segment
            step, steps = step + number * steps, steps * count
            for request in requests:
                if self.plugins:
                    self.plugins.step(request, step, steps, seconds)
            picture = lambda: preview(model, clean)  # noqa: E731
            self.tell("sample", group[0], step=step, steps=steps, seconds=seconds, preview=picture)

        self.stage = "sample"
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]

        def draw() -> Tensor:
            x = torch.cat([noise(*one, model) for one in zip(requests, generators, strict=True)])
            return (x if restriction is None else torch.cat([x, x])).to(model.device)

        x = draw()
        draw()  # a plugin may have mixed a start of both (see `start_noise`)
        sigmas = sigmas_for(policy.schedule, policy.steps, policy.shift)
        x = samplers[policy.sampler](guided, x, sigmas, after, before, draw)
        return (x if restriction is None else restriction.combined(x))[: len(requests)]

    def decode(self, model: Model, clip: Clip, latents: Tensor) -> Iterator[np.ndarray]:
        """Step 5: latents [1, C, F, h, w] to frames, uint8 [f, H, W, 3] at a time."""
        length, clock, done = clip.request.frames, time.perf_counter(), 0
        before, steps = self.segment[0] * length, self.segment[1] * length
        self.tell("decode", clip.index, step=before, steps=steps)
        for pixels in model.vae.stream(scaled(model, latents), Tiling.named(clip.tiling, model.vae.config)):
            if not finite(pixels):
                raise not_a_number(model.vae, "the decoder")
            yield to_frames(pixels[0])
            seconds, clock, done = time.perf_counter() - clock, time.perf_counter(), done + pixels.shape[2]
            self.tell("decode", clip.index, step=before + done, steps=steps, seconds=seconds)

    # -- grouping, reporting -----------------------------------------------------------------------------

    def groups(self, rows: int) -> Iterator[list[int]]:
        """Neighbouring requests that differ only in prompts and seeds, at most `rows` together."""

        def form(request: Request) -> Request:
            return replace(request, prompt="", negative="", seed=0)

        group: list[int] = []
        for index, request in enumerate(self.requests):
            alike = group and form(request) == form(self.requests[group[0]])
            if group and (not alike or len(group) >= rows):
                yield group
                group = []
            group.append(index)
        yield group

    def wanted_whole(self) -> bool:
        """Whether a plugin works on all frames of a clip, once they are there."""
        finished = any(type(one).finish is not Conditioner.finish for one in self.conditioners)
        return finished or (self.plugins is not None and self.plugins.has("on_run_end"))

    def tell(self, stage: str, clip: int = 0, **news: Any) -> None:
        """Report progress."""
        self.stage = stage
        if self.callback:
            self.callback(Progress(stage, clip, len(self.requests), **news))

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Tell observers of every request's start and, once, of its end; memory errors in one line."""
        for request in self.requests:
            self.started += 1
            if self.plugins:
                self.plugins.run_start(request)
        try:
            with translate_oom(self):
                yield
        except BaseException as error:
            for request in self.requests[self.ended : self.started]:
                if self.plugins:
                    self.plugins.run_end(request, None, error)
            raise

    def end(self, result: Result) -> None:
        """Tell observers that a request has its result."""
        self.ended += 1
        if self.plugins:
            self.plugins.run_end(result.request, result, None)


def noise(request: Request, generator: torch.Generator, model: Model) -> Tensor:
    """Noise like the latents of a request [1, C, F, h, w]: float32, the next of its own generator, on the CPU.

    The first are what it starts from. So they are the same on any device and beside any other clip. The official code
    draws float16 on the GPU: the same seed gives other noise there (core facts, trap 7).
    """
    shape = model.vae.config.latent_size(request.frames, request.height, request.width)
    return torch.randn(1, model.vae.config.latent_channels, *shape, generator=generator)


def segment_request(request: Request, number: int) -> Request:
    """The request of a later segment of a clip: the same with noise of its own."""
    return replace(request, seed=(request.seed + number * SEED_STRIDE) % SEED_END) if number else request


def guidance_of(request: Request, model: Model) -> float | None:
    """The embedded guidance scale of a distilled model; None for others, which know only `cfg`."""
    if model.dit.config.guidance:
        return model.defaults.guidance or 6.0 if request.guidance is None else request.guidance
    # An official folder doesn't say whether its model was distilled, and its defaults take it to be.
    if request.guidance not in (None, model.defaults.guidance):
        raise UsageError(
            f"--guidance {request.guidance:g}: the model {model.name!r} was not distilled to take it",
            f"use --cfg {request.guidance:g}",
        )
    return None


def tiling_of(request: Request, model: Model) -> str:
    """How to decode: as asked; "auto" decodes whole if that fits into memory, else in the model's own tiles.

    Tiles change the picture (core facts, trap 4), so a result's record names those that were used.
    """
    if request.tiling != "auto":
        return request.tiling
    config = model.vae.config
    latent = config.latent_size(request.frames, request.height, request.width)
    widest = max(c * t * h * w for c, t, h, w in decoder_shapes(config, *latent))
    bytes_each = next(model.vae.parameters()).element_size()
    fits = ALIVE_IN_DECODER * widest * bytes_each <= free_memory(model.device)
    return "off" if fits else model.tiling


def tiles_of(request: Request, model: Model, frames: int) -> Tiling | None:
    """The tiles of a clip of so many `frames` in the request's size, by the same rule."""
    return Tiling.named(tiling_of(replace(request, frames=frames), model), model.vae.config)


def scaled(model: Model, latents: Tensor) -> Tensor:
    """Latents as the VAE's weights take them."""
    return model.vae.from_model(latents).to(next(model.vae.parameters()))


def preview(model: Model, clean: Tensor) -> np.ndarray:
    """The middle of a clip as a picture, uint8 [H, W, 3], from its estimated latents."""
    middle = clean.shape[2] // 2
    with torch.inference_mode():
        return to_frames(model.vae.decode(scaled(model, clean[:1, :, middle : middle + 1]))[0])[0]


def to_frames(pixels: Tensor) -> np.ndarray:
    """Pixels [3, F, H, W] in -1..1 to uint8 [F, H, W, 3], rounded to the nearest."""
    return (
        ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
    )


def finite(x: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    return bool(torch.isfinite(x).all())


def not_a_number(network: nn.Module, where: str) -> HyError:
    """The error for numbers that went wrong, with the likely cause: damaged weights, float16, or guidance."""
    kind = type(network).__name__
    for name, parameter in network.named_parameters():
        if not finite(parameter):
            return HyError(
                f"the {kind}'s weights hold NaN or infinity ({name})",
                "the file is damaged: copy or fetch it again",
            )
    if next(network.parameters()).dtype == torch.float16:
        return HyError(
            f"{kind}: {where} gives NaN: its numbers don't fit into float16", "use --dtype bf16 or fp32"
        )
    return HyError(
        f"{kind}: {where} gives NaN or infinity", "use a lower --cfg or --guidance, or --dtype fp32"
    )


@contextmanager
def translate_oom(run: Run) -> Iterator[None]:
    """Turn what torch and numpy say when memory runs out into a MemoryLimitError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error).lower()
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and "allocate memory" not in said and "not enough memory" not in said:
            raise
        largest = max(run.requests[run.ended :] or run.requests, key=lambda r: r.width * r.height * r.frames)
        size = f"{largest.frames} frames of {largest.width}x{largest.height}"
        smaller = "try fewer --frames, a smaller --size, or --dtype bf16"
        raise MemoryLimitError(
            f"not enough memory for {size} (step: {run.stage})",
            "try --tiling official" if run.stage == "decode" else smaller,
        ) from error
