"""One run: the requests of one call, their progress and their observers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hy_core import provenance
from hy_core.condition import merge, mergeable
from hy_core.conditioner import Conditioner, segments
from hy_core.errors import UsageError
from hy_core.flow.policy import merge_policies, mergeable_policies
from hy_core.pipeline.checks import translate_oom
from hy_core.pipeline.decoding import ClipBuffer, decoded, preview, tiling_of
from hy_core.pipeline.encoding import Texts, conditions, distinct_prompts, encode_prompts
from hy_core.pipeline.progress import Callback, Progress, Sink
from hy_core.pipeline.sampling import sample, segment_request
from hy_core.request import Request, Result

if TYPE_CHECKING:
    from hy_core.models import Model
    from hy_core.plugins import Plugins
    from hy_core.session import Session


class NotBatchable(Exception):
    """These requests can't run as rows of one batch."""


class Run:
    """The requests of one call, made in order; a session may have several runs at once."""

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
        self.sink = None if self.needs_whole_clips() else sink
        self.stage, self.started, self.ended = "load", 0, 0
        self.segment, self.segments = 0, 1

    def results(self, session: Session, rows: int) -> Iterator[Result]:
        """Generate the clips and yield each result; up to `rows` requests of equal settings share a batch."""
        model = session.model
        with model.attached(self.conditioners):
            pass  # errors of plugins before prompts are encoded
        if self.requests[0].compile:
            model.compile()
        prompts = distinct_prompts(self.requests)
        self.report("encode", detail=f"{len(prompts)} prompts" if len(prompts) > 1 else "prompt")
        with session.text_lock:  # one set of text encoders in memory at a time
            texts = encode_prompts(model, prompts)
        for group in self.groups(rows):
            yield from self.make(session, group, texts)

    @torch.inference_mode()
    def make(self, session: Session, group: Sequence[int], texts: Texts) -> list[Result]:
        """The clips of a group of requests, which run as rows of one batch if they can."""
        try:
            with ExitStack() as files, session.model.attached(self.conditioners) as attached:
                clips = [ClipBuffer(self.requests[index], index, files) for index in group]
                self.make_frames(session, clips, texts, attached)
        except NotBatchable:
            return [result for index in group for result in self.make(session, [index], texts)]
        results = []
        for clip in clips:
            result = Result(
                clip.kept_frames(),
                clip.request.fps,
                provenance=clip.record or {},
                request=clip.request,
                session_cache=session.cache,
            )
            self.report("finish", clip.index)
            # In the order of names, so that the order of plugins on a command line changes nothing.
            for conditioner in sorted(self.conditioners, key=lambda one: one.name):
                conditioner.finish(clip.request, result)
            results.append(result)
            self.finished(result)
        return results

    def make_frames(
        self, session: Session, clips: Sequence[ClipBuffer], texts: Texts, attached: dict[str, str]
    ) -> None:
        """Encode, sample and decode these clips by segment; `NotBatchable` if they can't share a batch."""
        model, first = session.model, clips[0].request
        plan = segments(self.conditioners, first)
        self.segments = plan.count
        for self.segment in range(plan.count):
            requests = [segment_request(clip.request, self.segment) for clip in clips]
            self.report("encode", clips[0].index, detail=", ".join(c.name for c in self.conditioners))
            start = self.segment * (first.frames - plan.overlap)
            filled = [
                conditions(model, request, texts, self.conditioners, session.cache, start, clip.last_frames)
                for request, clip in zip(requests, clips, strict=True)
            ]
            conds, policies = [branches for branches, _ in filled], [policy for _, policy in filled]
            counts = [branches[0].rows for branches in conds]
            branches = list(zip(*conds, strict=True))
            if not (mergeable_policies(policies, counts) and all(mergeable(one) for one in branches)):
                raise NotBatchable
            latents = sample(
                model,
                requests,
                self.conditioners,
                [merge(one) for one in branches],
                merge_policies(policies, counts),
                self.plugins.samplers() if self.plugins else {},
                self.step_reporter(model, requests, clips[0].index),
            )
            for row, clip in enumerate(clips):
                if clip.record is None:
                    clip.tiling = tiling_of(clip.request, model)
                    clip.open_writer(self.record(model, clip, attached), self.sink)
                cut = max(policies[row].trimmed_frames, plan.overlap if self.segment else 0)
                self.decode(model, clip, latents[[row]], cut, plan.overlap)

    def decode(self, model: Model, clip: ClipBuffer, latents: Tensor, cut: int, overlap: int) -> None:
        """Decode a segment's latents [1, C, F, h, w] into the clip, without the first `cut` frames."""
        length, clock, count = clip.request.frames, time.perf_counter(), 0
        done, total = self.segment * length, self.segments * length
        self.report("decode", clip.index, step=done, steps=total)
        for frames in decoded(model, latents, clip.tiling):
            count += len(frames)
            clip.add(frames[cut:], overlap)
            cut = max(cut - len(frames), 0)
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            self.report("decode", clip.index, step=done + count, steps=total, seconds=seconds)

    def record(self, model: Model, clip: ClipBuffer, attached: dict[str, str]) -> dict[str, Any]:
        """The provenance record of a clip; `attached` are the fingerprints of the plugins' weights."""
        request = replace(clip.request, tiling=clip.tiling)
        dtype = str(model.dit.dtype).removeprefix("torch.")
        packages = self.plugins.distributions(request.plugins) if self.plugins else ()
        plugins = self.plugins.records(request.plugins) if self.plugins else ()
        hashes = {**model.hashes, **attached}
        return provenance.record(request, hashes, str(model.device), dtype, packages, plugins)

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

    def needs_whole_clips(self) -> bool:
        """Whether a plugin works on all frames of a finished clip, so that they must be kept."""
        finishes = any(type(one).finish is not Conditioner.finish for one in self.conditioners)
        return finishes or (self.plugins is not None and self.plugins.has("on_run_end"))

    # -- reports and observers ---------------------------------------------------------------------------

    def report(self, stage: str, clip: int = 0, **details: Any) -> None:
        """Report progress to the callback."""
        self.stage = stage
        if self.callback:
            self.callback(Progress(stage, clip, len(self.requests), **details))

    def step_reporter(self, model: Model, requests: Sequence[Request], clip: int) -> Any:
        """The function to call after each step: it informs observers and the callback."""
        self.stage, clock = "sample", time.perf_counter()

        def done(step: int, steps: int, clean: Tensor) -> None:
            nonlocal clock
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            step, steps = step + self.segment * steps, steps * self.segments
            for request in requests:
                if self.plugins:
                    self.plugins.step(request, step, steps, seconds)
            self.report(
                "sample",
                clip,
                step=step,
                steps=steps,
                seconds=seconds,
                preview=lambda: preview(model, clean),
            )

        return done

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Inform observers of every request's start and, once, of its end; memory errors in one line."""
        for request in self.requests:
            self.started += 1
            if self.plugins:
                self.plugins.run_start(request)
        try:
            with translate_oom(lambda: self.requests[self.ended :] or self.requests, lambda: self.stage):
                yield
        except BaseException as error:
            for request in self.requests[self.ended : self.started]:
                if self.plugins:
                    self.plugins.run_end(request, None, error)
            raise

    def finished(self, result: Result) -> None:
        """Inform observers of a request's result."""
        self.ended += 1
        if self.plugins and result.request:
            self.plugins.run_end(result.request, result, None)
