"""Clips of any length: segments that go on from the end of what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_core import Conditioner, generate
from hy_core.conditioner import Segments, segments
from hy_core.errors import ConflictError
from hy_core.pipeline.sampling import segment_request
from hy_i2v import pictures, sources
from hy_i2v.latents import encode_clip, to_pixels
from hy_i2v.plugin import I2V
from PIL import Image


class Watch(Conditioner):
    """Writes down what it is asked for, and how the noise begins."""

    def __init__(self):
        super().__init__()
        self.seen, self.noise = [], []

    def encode(self, request, cond):
        self.seen.append(
            (
                cond.encoding.start_frame,
                None if cond.encoding.previous_frames is None else len(cond.encoding.previous_frames),
                sorted(cond.fixed_frames),
            )
        )

    def before_step(self, latents, t, cond):
        if t >= 1:
            self.noise.append(latents.clone())
        return latents


def test_each_segment_begins_with_the_end_of_the_clip(tiny, ball):
    watch, steps = Watch(), []
    result = generate(
        tiny.request,
        [I2V(image=ball, extend=2, overlap=5), watch],
        model=tiny.model,
        callback=lambda news: (
            steps.append((news.step, news.steps)) if news.stage == "sample" and news.step else None
        ),
    )
    assert result.frames.shape == (9 + 2 * 4, 32, 32, 3)
    assert watch.seen == [(0, None, [0]), (4, 5, [0, 1]), (8, 5, [0, 1])]
    assert steps == [(step, 6) for step in range(1, 7)]
    assert not any(torch.equal(a, b) for a, b in zip(watch.noise, watch.noise[1:], strict=False))
    assert result.request is tiny.request and result.provenance["request"]["seed"] == tiny.request.seed


def test_the_beginning_is_that_of_the_clip_without_more(tiny, ball):
    short = generate(tiny.request, [I2V(image=ball)], model=tiny.model).frames
    long = generate(tiny.request, [I2V(image=ball, extend=1)], model=tiny.model).frames
    again = generate(tiny.request, [I2V(image=ball, extend=1)], model=tiny.model).frames
    assert np.array_equal(long[:9], short) and np.array_equal(long, again)


def test_what_a_later_segment_is_given_is_what_was_decoded(tiny, ball):
    first = generate(tiny.request, [I2V(image=ball)], model=tiny.model).frames
    plugin, cond = I2V(image=ball, extend=1), tiny.condition()
    cond.encoding = replace(cond.encoding, start_frame=4, previous_frames=first)
    plugin.encode(tiny.request, cond)
    fitted = pictures.resize_all([Image.fromarray(frame) for frame in first[-5:]], 32, 32, "crop")
    wanted = encode_clip(tiny.vae, to_pixels(fitted, tiny.vae))
    assert np.array_equal(fitted, first[-5:])
    for place in (0, 1):
        assert torch.equal(cond.fixed_frames[place].latent, wanted[:, :, place])


def test_last_loop_and_keyframes_are_of_the_whole_clip(tiny, ball, blue):
    request = tiny.request  # 9 frames; 13 with one more segment
    plugin = I2V(image=ball, last=blue, extend=1)
    assert [one.frame for one in sources.Sources(plugin.options, request).fixed_pictures()] == [0, 12]
    watch = Watch()
    generate(request, [plugin, watch], model=tiny.model)
    assert [fixed_frames for _, _, fixed_frames in watch.seen] == [[0], [0, 1, 2]]
    watch = Watch()
    far = I2V(image=ball, keyframes=(Path(f"7={blue}"), Path(f"10={blue}")), extend=1)
    generate(request, [far, watch], model=tiny.model)
    assert [fixed_frames for _, _, fixed_frames in watch.seen] == [[0, 2], [0, 1, 2]]
    looped = Watch()
    generate(request, [I2V(image=ball, loop=True, extend=1), looped], model=tiny.model)
    assert [fixed_frames for _, _, fixed_frames in looped.seen] == [[0], [0, 1, 2]]


def test_a_clip_goes_on_and_can_come_back(tiny, clip):
    watch = Watch()
    request = replace(tiny.request, fps=8.0)
    result = generate(request, [I2V(video=clip, extend=1, loop=True), watch], model=tiny.model)
    assert len(result.frames) == 13 and [fixed_frames for _, _, fixed_frames in watch.seen] == [
        [0, 1],
        [0, 1, 2],
    ]


def test_clips_that_share_a_forward_go_on_each_by_itself(tiny, ball):
    requests = [replace(tiny.request, seed=seed) for seed in (5, 6)]
    plugin = I2V(image=ball, extend=1)
    together = generate(requests, [plugin], model=tiny.model, rows=2)
    for request, made in zip(requests, together, strict=True):
        alone = generate(request, [plugin], model=tiny.model).frames.astype(int)
        assert np.abs(made.frames - alone).max() <= 2  # what is rounded to a pixel is read again


def test_seeds_of_segments_are_far_from_those_of_other_clips(tiny):
    seeds = {
        segment_request(replace(tiny.request, seed=seed), number).seed
        for seed in range(50)
        for number in range(9)
    }
    assert len(seeds) == 450
    assert segment_request(tiny.request, 0) is tiny.request


def test_two_plugins_that_want_segments_are_a_conflict(tiny, ball):
    class Other(Conditioner):
        def segments(self, request):
            return Segments(3, 1)

    with pytest.raises(ConflictError, match="i2v and other both make the clip in segments"):
        segments([I2V(image=ball, extend=1), Other()], tiny.request)
    assert segments([I2V(image=ball), Other()], tiny.request) == Segments(3, 1)
    assert segments([I2V(image=ball)], tiny.request) == Segments(1, 0)
