"""From requests to clips, with a small model of the real classes."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch
from hy_core.conditioner import Conditioner, Segments
from hy_core.dit import Additive, DiT
from hy_core.dit.attention import BACKENDS
from hy_core.errors import ConflictError, HyError, MemoryLimitError, UsageError
from hy_core.flow.guidance import Branch
from hy_core.hooks import hookimpl
from hy_core.pipeline import Run, decoding, sampling
from hy_core.plugins import Plugins
from hy_core.request import Request
from hy_core.session import generate, stream
from hy_core.text import TextEncoder

PROMPTS = ["a red circle moves right", "a blue square", "stars"]


def request(prompt=PROMPTS[0], **changes):
    values = dict(width=32, height=32, frames=5, fps=8.0, steps=3, seed=7, cfg=3.0, shift=5.0)
    return Request(prompt, **(values | changes))


def test_a_prompt_becomes_a_clip(model):
    result = generate(request(width=48), model=model)
    assert result.frames.shape == (5, 32, 48, 3) and result.frames.dtype == np.uint8
    assert result.frames.std() > 1
    assert result.fps == 8.0 and result.sound is None and result.path is None
    assert result.provenance["request"]["prompt"] == PROMPTS[0]
    assert result.provenance["request"]["seed"] == 7
    assert result.provenance["ran_on"] == {"device": "cpu", "dtype": "float32"}


def test_one_frame_is_a_picture_with_the_picture_template(model, monkeypatch):
    seen, encode = [], TextEncoder.encode
    monkeypatch.setattr(
        TextEncoder,
        "encode",
        lambda self, prompts, image=False: seen.append(image) or encode(self, prompts, image),
    )
    assert generate(request(frames=1), model=model).frames.shape == (1, 32, 32, 3)
    assert set(seen) == {True}


# Same seed, same video


def test_same_seed_same_video(model):
    first, again = (generate(request(), model=model).frames for _ in range(2))
    other = generate(request(seed=8), model=model).frames
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_clip_is_bit_for_bit_the_same_in_any_batch(model):
    requests = [request(prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    requests.append(request(frames=1))
    together = generate(requests, model=model)
    for wanted, made in zip(requests, together, strict=True):
        assert made.request is wanted
        assert np.array_equal(made.frames, generate(wanted, model=model).frames)


def test_rows_that_share_a_forward_agree_within_rounding(model):
    requests = [request(prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    calls = []
    hook = model.dit.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    together = generate(requests, model=model, rows=2)
    assert calls == [4, 4, 4, 2, 2, 2]  # two clips with two branches each, then the third
    hook.remove()
    for wanted, made in zip(requests, together, strict=True):
        alone = generate(wanted, model=model).frames.astype(int)
        assert np.abs(made.frames - alone).max() <= 1


def test_only_requests_of_one_form_share_a_forward(model):
    run = Run([request(), request(seed=1), request(steps=2), request(cfg=1.0), request(cfg=1.0, seed=3)])
    assert list(run.groups(8)) == [[0, 1], [2], [3, 4]]
    assert list(run.groups(1)) == [[0], [1], [2], [3], [4]]


def test_trap_7_noise_is_float32_from_the_cpu_and_the_seed_alone(model):
    """Core facts, trap 7: official noise is float16 of the GPU's generator; ours is the same everywhere."""
    wide, again = (sampling.noise(request(), torch.Generator().manual_seed(5), model) for _ in range(2))
    assert wide.dtype == torch.float32 and wide.shape == (1, 4, 2, 4, 4) and wide.device.type == "cpu"
    assert torch.equal(wide, again)
    expected = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(wide, expected)


# Guidance


def test_cfg_one_needs_no_negative_pass(model):
    rows = []
    hook = model.dit.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    generate(request(cfg=1.0), model=model)
    generate(request(cfg=3.0), model=model)
    hook.remove()
    assert rows == [1, 1, 1, 2, 2, 2]


def test_the_negative_prompt_steers(model):
    plain = generate(request(), model=model).frames
    steered = generate(request(negative="noise and blur"), model=model).frames
    unguided = generate(request(cfg=1.0, negative="noise and blur"), model=model).frames
    assert not np.array_equal(plain, steered)
    assert np.array_equal(unguided, generate(request(cfg=1.0), model=model).frames)


def test_embedded_guidance_of_a_model_that_takes_none_is_refused(model):
    with pytest.raises(UsageError, match="not distilled") as caught:
        generate(request(guidance=5.0), model=model)
    assert "--cfg 5" in caught.value.hint


def test_a_sampler_of_a_plugin(model):
    class Own:
        @hookimpl
        def register_samplers(self, register):
            register("idle", lambda velocity, x, sigmas, *_: torch.zeros_like(x))

    plugins = Plugins(entries=(), only=())
    plugins.add("own", Own())
    clips = [generate(request(sampler="idle", seed=s), model=model, plugins=plugins).frames for s in (1, 2)]
    assert np.array_equal(*clips)
    with pytest.raises(UsageError, match="--sampler idle") as caught:
        generate(request(sampler="idle"), model=model)
    assert "euler, heun, stochastic" in caught.value.hint


def test_new_noise_on_the_way_is_of_the_clip_s_own_seed(model, monkeypatch):
    """The same seed makes the same clip beside any other, and no draw comes twice."""
    drawn, real = {}, sampling.noise

    def noise(request, generator, model):
        drawn.setdefault(request.seed, []).append(real(request, generator, model))
        return drawn[request.seed][-1]

    monkeypatch.setattr(sampling, "noise", noise)
    wanted = [request(sampler="stochastic", seed=seed, steps=3, shift=1.0) for seed in (1, 2, 3)]
    together = [result.frames for result in stream(wanted, model=model, rows=3)]
    alone = generate(wanted[1], model=model).frames
    assert np.abs(together[1].astype(int) - alone).max() <= 1
    one, two = drawn[1], drawn[2]
    assert len(one) == 4 and len(two) == 8  # a start, one for who mixes it, and two on the way
    assert all(torch.equal(*pair) for pair in zip(two[:4], two[4:], strict=True))
    assert not any(torch.equal(a, b) for a, b in combinations([*one, *two[:4]], 2))


def test_the_attention_back_end_of_the_request_is_used(model, monkeypatch):
    used, real = [], BACKENDS["matmul"]
    monkeypatch.setitem(BACKENDS, "matmul", lambda *args: used.append(1) or real(*args))
    generate(request(), model=model)
    assert not used
    generate(request(attention="matmul"), model=model)
    assert used


def test_samplers_and_schedules_are_chosen_by_the_request(model):
    frames = {
        (sampler, schedule): generate(
            request(sampler=sampler, schedule=schedule), model=model
        ).frames.tobytes()
        for sampler in ("euler", "heun", "stochastic")
        for schedule in ("shifted", "linear-quadratic")
    }
    assert len(set(frames.values())) == 6


# Progress and observers


def test_news_of_every_step_with_a_preview(model):
    news = []

    def listen(progress):
        picture = progress.preview() if progress.preview else None
        news.append((progress, picture))

    clip = generate(request(), model=model, callback=listen)
    stages = [progress.stage for progress, _ in news]
    assert [stage for i, stage in enumerate(stages) if i == 0 or stages[i - 1] != stage] == [
        "encode",
        "sample",
        "decode",
        "finish",
    ]
    sampled = [(progress, picture) for progress, picture in news if progress.stage == "sample"]
    assert [(p.step, p.steps) for p, _ in sampled] == [(1, 3), (2, 3), (3, 3)]
    assert all(picture.shape == (32, 32, 3) and picture.dtype == np.uint8 for _, picture in sampled)
    decoded = [progress for progress, _ in news if progress.stage == "decode"]
    assert decoded[-1].step == decoded[-1].steps == len(clip.frames)


class Diary:
    """An observer that writes everything down."""

    def __init__(self):
        self.pages = []

    @hookimpl
    def on_run_start(self, request):
        self.pages.append(("start", request.seed))

    @hookimpl
    def on_step(self, request, step, steps, seconds):
        self.pages.append(("step", request.seed, step, steps, seconds > 0))

    @hookimpl
    def on_run_end(self, request, result, error):
        self.pages.append(("end", request.seed, result is not None, type(error).__name__))


def observed():
    plugins, diary = Plugins(entries=(), only=()), Diary()
    plugins.add("diary", diary)
    return plugins, diary


def test_observers_see_start_steps_and_one_end(model):
    plugins, diary = observed()
    generate([request(seed=1, steps=2), request(seed=2, steps=1)], model=model, plugins=plugins)
    assert diary.pages == [
        ("start", 1),
        ("start", 2),
        ("step", 1, 1, 2, True),
        ("step", 1, 2, 2, True),
        ("end", 1, True, "NoneType"),
        ("step", 2, 1, 1, True),
        ("end", 2, True, "NoneType"),
    ]


def test_an_interrupted_run_ends_for_its_observers_and_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugins, diary = observed()

    def interrupt(progress):
        if progress.stage == "sample" and progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(request(seed=1), model=model, plugins=plugins, callback=interrupt)
    assert diary.pages[-1] == ("end", 1, False, "KeyboardInterrupt")
    assert [page for page in diary.pages if page[0] == "end"] == [diary.pages[-1]]
    assert not list(tmp_path.iterdir())


def test_clips_come_one_by_one(model):
    steps = []
    clips = stream([request(seed=1), request(seed=2)], model=model, callback=lambda p: steps.append(p.clip))
    next(clips)
    assert 1 not in steps
    next(clips)
    assert 1 in steps


# What goes wrong


def test_nan_weights_are_one_line_with_their_name(model):
    with torch.no_grad():
        model.dit.single_blocks[0].linear1.weight[3, 4] = float("nan")
    with pytest.raises(HyError, match=r"DiT's weights hold NaN.*single_blocks\.0\.linear1\.weight") as caught:
        generate(request(), model=model)
    assert caught.value.hint and "\n" not in caught.value.message


def test_nan_in_the_decoder_is_one_line_with_its_name(model):
    with torch.no_grad():
        model.vae.decoder.conv_out.conv.bias[0] = float("inf")
    with pytest.raises(HyError, match=r"VAE's weights hold NaN.*decoder\.conv_out"):
        generate(request(), model=model)


def test_numbers_out_of_range_name_the_step_and_a_way_out(model):
    with pytest.raises(HyError, match="step 1 of 3") as caught:
        generate(request(cfg=1e39), model=model)
    assert "--cfg" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated memory …"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("stage", ["sample", "decode"])
def test_out_of_memory_is_one_line_with_a_way_out(model, monkeypatch, error, stage):
    def fail(*args, **kwargs):
        raise error

    if stage == "sample":
        monkeypatch.setattr(DiT, "forward", fail)
    else:
        monkeypatch.setattr(type(model.vae), "stream", fail)
    with pytest.raises(MemoryLimitError, match=rf"5 frames of 32x32 \(step: {stage}\)") as caught:
        generate(request(), model=model)
    assert ("--tiling" if stage == "decode" else "--size") in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_real_allocation_that_cannot_fit_is_a_memory_error(model, monkeypatch):
    monkeypatch.setattr(DiT, "forward", lambda *args, **options: torch.empty(1 << 60))
    with pytest.raises(MemoryLimitError):
        generate(request(), model=model)


def test_other_errors_stay_what_they_are(model, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(DiT, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        generate(request(), model=model)


def test_an_empty_list_and_mixed_models_are_refused():
    with pytest.raises(UsageError, match="empty"):
        generate([])
    with pytest.raises(UsageError, match="share --model"):
        generate([request(model="pocket"), request(model="other")])


# Tiles


def test_trap_4_tiles_are_chosen_and_recorded(model):
    """Core facts, trap 4: the official and the diffusers tiles differ in time, and from decoding whole."""
    made = {
        tiling: generate(request(frames=25, tiling=tiling, steps=1), model=model)
        for tiling in ("auto", "off", "official", "diffusers")
    }
    assert np.array_equal(made["auto"].frames, made["off"].frames)  # it fits
    assert np.array_equal(made["official"].frames, made["off"].frames)  # one tile of 64 frames
    assert not np.array_equal(made["diffusers"].frames, made["off"].frames)  # tiles of 16
    assert {tiling: one.provenance["request"]["tiling"] for tiling, one in made.items()} == {
        "auto": "off",
        "off": "off",
        "official": "official",
        "diffusers": "diffusers",
    }


def test_a_clip_that_does_not_fit_takes_the_models_own_tiles(model, monkeypatch):
    monkeypatch.setattr(decoding, "free_memory", lambda device: 1 << 10)
    assert decoding.tiling_of(request(), model) == "official"
    model.tiling = "diffusers"
    assert decoding.tiling_of(request(), model) == "diffusers"
    assert decoding.tiling_of(request(tiling="off"), model) == "off"


# Frames as they come


class Taker:
    """Takes frames as a writer does."""

    def __init__(self):
        self.chunks, self.ended = [], "open"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.ended = kind

    def add(self, frames):
        self.chunks.append(frames)


def test_frames_are_handed_on_as_they_are_decoded(model, monkeypatch):
    wanted = request(frames=25, tiling="diffusers", steps=1)
    expected = generate(wanted, model=model)
    taker, records, decoded, whole = Taker(), [], [], model.vae._decode_tile_inference
    monkeypatch.setattr(
        model.vae, "_decode_tile_inference", lambda z: decoded.append(len(taker.chunks)) or whole(z)
    )
    (made,) = stream([wanted], model=model, sink=lambda index, record: records.append(record) or taker)
    assert made.frames is None and made.provenance == records[0] == expected.provenance
    assert [len(chunk) for chunk in taker.chunks] == [13, 12] and taker.ended is None
    assert decoded == [0, 1]  # the first is gone before the second is made
    assert np.array_equal(np.concatenate(taker.chunks), expected.frames)


def test_a_clip_in_segments_goes_on_from_its_last_frames_alone(model):
    class Onward(Conditioner):
        def segments(self, request):
            return Segments(3, 5)

        def encode(self, request, cond):
            seen.append(cond.encoding.previous_frames)

    seen, onward, taker = [], Onward(), Taker()
    wanted = request(frames=9, cfg=1.0)
    (made,) = stream([wanted], [onward], model, sink=lambda index, record: taker)
    assert [len(chunk) for chunk in taker.chunks] == [9, 4, 4]
    assert made.frames is None and seen[0] is None
    ends = np.concatenate(taker.chunks)
    assert np.array_equal(seen[1], ends[4:9]) and np.array_equal(seen[2], ends[8:13])
    assert all(past.base is None for past in seen[1:])  # they keep nothing else alive
    assert np.array_equal(generate(wanted, [onward], model).frames, ends)


def test_what_a_plugin_wants_whole_is_kept(model):
    class Grey(Conditioner):
        def finish(self, request, result):
            result.frames = result.frames // 2

    def never(index, record):
        raise AssertionError("a writer was opened")

    (made,) = stream([request()], [Grey()], model, sink=never)
    assert np.array_equal(made.frames, generate(request(), model=model).frames // 2)

    class Gallery:
        @hookimpl
        def on_run_end(self, request, result, error):
            seen.append(result.frames.shape)

    seen, plugins = [], Plugins(entries=(), only=())
    plugins.add("gallery", Gallery())
    list(stream([request()], model=model, plugins=plugins, sink=never))
    assert seen == [(5, 32, 32, 3)]


def test_a_writer_hears_of_what_goes_wrong(model, monkeypatch):
    taker, seen, to_frames = Taker(), [], decoding.to_frames

    def second_fails(pixels):
        seen.append(1)
        if len(seen) == 2:
            raise MemoryError
        return to_frames(pixels)

    monkeypatch.setattr(decoding, "to_frames", second_fails)
    wanted = request(frames=25, tiling="diffusers", steps=1)
    with pytest.raises(MemoryLimitError):
        list(stream([wanted], model=model, sink=lambda index, record: taker))
    assert len(taker.chunks) == 1 and taker.ended is MemoryError


# Conditioners


class Dawn(Conditioner):
    """A feed, a module, and notes of the calls."""

    name = "dawn"

    def __init__(self, value=1.0):
        super().__init__()
        self.value, self.calls = value, []

    def attach(self, dit, folder=None):
        self.calls.append("attach")
        dit.time.attach("dawn", Additive(1, dit.width))
        torch.nn.init.ones_(dit.time["dawn"].proj.weight)

    def encode(self, request, cond):
        self.calls.append(f"encode {'negative' if cond.negative else 'positive'} {cond.prompts[0]}")
        cond.set_adapter_inputs("dawn", torch.full((1, cond.frames, 1), self.value))

    def before_step(self, latents, t, cond):
        self.calls.append(f"before {t:.2f}")
        return latents

    def finish(self, request, result):
        self.calls.append("finish")
        result.provenance["dawn"] = True


class First(Conditioner):
    """The first frame is given."""

    def __init__(self, name="first", seed=1):
        super().__init__()
        self.name, self.seed = name, seed

    def encode(self, request, cond):
        picture = torch.rand(
            1, 3, 1, request.height, request.width, generator=torch.Generator().manual_seed(self.seed)
        )
        cond.fix_frames(
            self.name, [0], cond.encoding.vae.to_model(cond.encoding.vae.encode(picture * 2 - 1).mode())
        )


def test_the_lifecycle_of_a_conditioner(model):
    dawn = Dawn()
    result = generate(request(steps=2, negative="fog"), [dawn], model)
    assert dawn.calls == [
        "attach",
        f"encode positive {PROMPTS[0]}",
        "encode negative fog",
        "before 1.00",
        "before 0.83",
        "finish",
    ]
    assert result.provenance["dawn"]


def test_a_feed_changes_the_clip_and_going_without_restores_it(model):
    plain = generate(request(), model=model).frames
    dark, light = (generate(request(), [Dawn(value)], model).frames for value in (0.0, 3.0))
    assert np.array_equal(dark, plain)
    assert not np.array_equal(light, plain)
    assert np.array_equal(generate(request(), model=model).frames, plain)
    assert not any(key.startswith("time.") for key in model.dit.state_dict())


def test_clips_with_plugins_share_a_forward_if_their_conditions_can(model):
    class Private(Conditioner):
        """Its feed is its own business."""

        name = "private"

        def encode(self, request, cond):
            cond.set_adapter_inputs("private", object())

        def before_step(self, latents, t, cond):
            assert cond.adapter_inputs["private"] is not None
            return latents

    rows = []
    hook = model.dit.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    requests = [request(seed=1, steps=1), request(seed=2, steps=1)]
    together = generate(requests, [First(), Dawn()], model, rows=2)
    assert rows == [4]
    generate(requests, [Private()], model, rows=2)
    hook.remove()
    assert rows == [4, 1, 1, 1, 1]
    for wanted, made in zip(requests, together, strict=True):
        alone = generate(wanted, [First(), Dawn()], model).frames.astype(int)
        assert np.abs(made.frames - alone).max() <= 1


def test_a_model_that_is_used_again_attaches_once(model):
    dawn = Dawn()
    generate([request(), request(seed=2)], [dawn], model)
    generate(request(), [dawn], model)
    assert dawn.calls.count("attach") == 1


def test_a_given_frame_is_the_one_that_is_decoded(model):
    latents = []
    stream_ = model.vae.stream
    model.vae.stream = lambda z, *args: latents.append(z) or stream_(z, *args)
    generate(request(), [First()], model)
    generate(request(seed=99), [First()], model)
    assert torch.equal(latents[0][:, :, 0], latents[1][:, :, 0])
    assert not torch.equal(latents[0][:, :, 1], latents[1][:, :, 1])


def test_two_conditioners_for_one_frame_conflict_and_compatible_ones_commute(model):
    with pytest.raises(ConflictError, match="first and other both set latent frame 0"):
        generate(request(), [First(), First("other")], model)
    one = generate(request(), [First(), Dawn()], model).frames
    two = generate(request(), [Dawn(), First()], model).frames
    assert np.array_equal(one, two)


def test_a_conditioner_adds_a_guidance_term(model):
    class Louder(Conditioner):
        name = "louder"

        def branches(self, request, cond):
            quiet = cond.copy(pooled=torch.zeros_like(cond.pooled))
            return [Branch(cond, 2.0), Branch(quiet, -2.0)]

    plain, louder = generate(request(), model=model), generate(request(), [Louder()], model)
    assert not np.array_equal(plain.frames, louder.frames)


def test_a_conditioner_changes_latents_before_a_step(model):
    class Still(Conditioner):
        name = "still"

        def before_step(self, latents, t, cond):
            return torch.zeros_like(latents) if t == 1 else latents

    still = [generate(request(seed=seed), [Still()], model).frames for seed in (1, 2)]
    assert np.array_equal(*still)  # nothing of the seed is left


def test_a_failing_conditioner_leaves_the_model_as_it_was(model):
    class Broken(Dawn):
        def attach(self, dit, folder=None):
            super().attach(dit, folder)
            raise HyError("broken")

    keys = list(model.dit.state_dict())
    with pytest.raises(HyError, match="broken"):
        generate(request(), [Broken()], model)
    assert list(model.dit.state_dict()) == keys


@pytest.mark.slow
def test_a_compiled_network_makes_the_same_clip(model):
    plain = generate(request(), model=model).frames.astype(int)
    compiled = generate(request(compile=True), model=model).frames.astype(int)
    assert np.abs(plain - compiled).max() <= 1


# Loading on the way


def test_the_model_of_the_request_is_loaded(small_folder, loaded, capsys):
    news = []
    asked = request(model=str(small_folder), device="cpu")
    made = generate(asked, callback=lambda p: news.append(p.stage))
    assert news[0] == "load"
    assert np.array_equal(made.frames, generate(asked, model=loaded).frames)
    assert set(made.provenance["weights"]) == {"dit", "vae"}
    assert dataclasses.replace(made.request) == asked
