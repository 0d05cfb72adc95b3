"""Which frames are given: rules, errors, and what the network gets."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_core import HyError, generate
from hy_core.errors import ConflictError, UsageError
from hy_core.flow.path import start_noise
from hy_core.vae import Tiling
from hy_i2v import keyframes, pictures, sources
from hy_i2v.keyframes import FixedPicture
from hy_i2v.latents import encode_clip, encode_static_group, to_pixels
from hy_i2v.plugin import I2V
from PIL import Image


def shown(tiny, path, size=(32, 32)):
    picture = pictures.resize(pictures.open_picture(path, "--i2v-image"), *size, "crop")
    return to_pixels(np.asarray(picture)[None], tiny.vae)


def encoded(tiny, plugin, request=None, **changes):
    request = request or tiny.request
    cond = tiny.condition(request)
    for name, value in changes.items():
        setattr(cond, name, value)
    plugin.validate(request)
    plugin.encode(request, cond)
    return cond


def held(cond):
    return {place: pin.latent for place, pin in cond.fixed_frames.items()}


def test_a_latent_frame_is_one_frame_or_four():
    assert [keyframes.group_of(frame) for frame in range(10)] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert keyframes.frames_of(0) == "frame 0" and keyframes.frames_of(2) == "frames 5 to 8"


def test_the_first_frame_is_a_picture_of_its_own(tiny, ball):
    cond = encoded(tiny, I2V(image=ball))
    wanted = encode_clip(tiny.vae, shown(tiny, ball))
    assert list(cond.fixed_frames) == [0] and torch.equal(cond.fixed_frames[0].latent, wanted[:, :, 0])
    assert cond.fixed_frames[0].owner == "i2v"


def test_a_later_picture_holds_its_group_still(tiny, ball, blue):
    cond = encoded(tiny, I2V(image=ball, last=blue))
    fixed_frames = held(cond)
    assert sorted(fixed_frames) == [0, 2]
    picture = shown(tiny, blue)
    group = encode_clip(tiny.vae, picture.expand(-1, -1, 5, -1, -1))
    assert torch.equal(fixed_frames[2], group[:, :, -1])
    assert torch.equal(encode_static_group(tiny.vae, picture), group[:, :, -1:])


@pytest.mark.parametrize(("at", "place"), [("1", 1), ("4", 1), ("5", 2), ("8", 2), ("0.5s", 1), ("1s", 2)])
def test_a_keyframe_at_a_frame_or_a_time(tiny, ball, at, place):
    cond = encoded(tiny, I2V(keyframes=(Path(f"{at}={ball}"),)), replace(tiny.request, fps=8.0))
    assert list(cond.fixed_frames) == [place]


def test_keyframes_from_a_settings_file_lie_beside_it(tmp_path):
    one = keyframes.parse_keyframe(tmp_path / "8=sub/b.png", 8.0, "--i2v-keyframes")
    assert one == FixedPicture(8, tmp_path / "sub/b.png", "--i2v-keyframes 8")
    assert keyframes.parse_keyframe(Path("8=b=c.png"), 8.0, "x").picture == Path("b=c.png")
    assert keyframes.parse_keyframe(tmp_path / "8=/else/b.png", 8.0, "x").picture == Path("/else/b.png")


def test_a_loop_ends_with_the_first_picture(tiny, ball):
    fixed_frames = held(encoded(tiny, I2V(image=ball, loop=True)))
    assert sorted(fixed_frames) == [0, 2] and torch.equal(
        fixed_frames[2], encode_static_group(tiny.vae, shown(tiny, ball))[:, :, 0]
    )


def test_going_on_from_a_clip_takes_its_last_frames_at_our_rate(tiny, clip):
    frames = pictures.read_clip_end(clip, 5, 8.0, "--i2v-video")
    assert np.abs(frames.mean((1, 2, 3)) - np.array([140, 160, 180, 200, 220])).max() < 6
    half = pictures.read_clip_end(clip, 3, 4.0, "--i2v-video")  # every second one
    assert np.abs(half.mean((1, 2, 3)) - np.array([140, 180, 220])).max() < 6
    cond = encoded(tiny, I2V(video=clip, overlap=5), replace(tiny.request, fps=8.0))
    fitted = pictures.resize_all([Image.fromarray(frame) for frame in frames], 32, 32, "crop")
    wanted = encode_clip(tiny.vae, to_pixels(fitted, tiny.vae))
    assert list(cond.fixed_frames) == [0, 1]
    for place, latent in held(cond).items():
        assert torch.equal(latent, wanted[:, :, place])


def test_what_is_given_is_cut_into_the_tiles_of_the_run(tiny, clip, monkeypatch):
    """The rule of the decoder: as asked, and "auto" whole if the clip that is encoded fits into memory."""
    seen, encode = [], tiny.vae.encode_inference
    monkeypatch.setattr(
        tiny.vae, "encode_inference", lambda x, tiling=None: seen.append(tiling) or encode(x, tiling)
    )
    for asked in ("off", "official", "diffusers", "auto"):
        generate(replace(tiny.request, tiling=asked), [I2V(video=clip)], model=tiny.model)
    official = Tiling.official(tiny.vae.config)
    assert seen == [None, official, Tiling.DIFFUSERS, None]
    monkeypatch.setattr("hy_core.pipeline.decoding.free_memory", lambda device: 1 << 10)
    generate(tiny.request, [I2V(video=clip)], model=tiny.model)
    assert seen[4:] == [official]


def test_what_is_given_is_held_to_the_end_of_sampling(tiny, ball, blue):
    """The decoded result is what the codec makes of latents in which the given ones are exact."""
    seen = {}
    plugin = I2V(image=ball, last=blue)

    def decode(latents, tiling=None):
        seen["z"] = latents.clone()
        return original(latents, tiling)

    original, tiny.vae.stream = tiny.vae.stream, decode
    generate(replace(tiny.request, cfg=2.0, sampler="heun"), [plugin], model=tiny.model)
    z = tiny.vae.to_model(seen["z"])
    assert torch.allclose(z[:, :, :1], encode_clip(tiny.vae, shown(tiny, ball)), atol=1e-6)
    assert torch.allclose(z[:, :, -1:], encode_static_group(tiny.vae, shown(tiny, blue)), atol=1e-6)


def test_the_free_frames_see_the_given_ones(tiny, ball, blue):
    plain, red, other = (
        generate(tiny.request, [I2V(image=one)] if one else [], model=tiny.model).frames.astype(int)
        for one in (None, ball, blue)
    )
    assert np.abs(red[5:] - plain[5:]).max() > 3 and np.abs(red[5:] - other[5:]).max() > 3


def test_stability_starts_from_the_second_draw_and_a_little_of_the_picture(tiny, ball):
    plugin = I2V(image=ball, stability=True)
    cond = encoded(tiny, plugin)
    shape = (16, cond.frames, *cond.size)
    first, second = (start_noise(shape, tiny.request.seed, draw) for draw in range(2))
    picture = cond.fixed_frames[0].latent[:, :, None]
    start = plugin.before_step(first, 1.0, cond)
    assert torch.allclose(start, 0.999 * second + 0.001 * picture, atol=1e-6)
    assert torch.equal(plugin.before_step(first, 0.9, cond), first)
    drawn = torch.Generator().manual_seed(tiny.request.seed)
    assert torch.equal(first, torch.randn(1, *shape, generator=drawn))
    assert torch.equal(second, torch.randn(1, *shape, generator=drawn))


def test_trap_11_stability_is_only_on_request(tiny, ball):
    """Core facts, trap 11: diffusers mixes the picture into every start."""
    x, plugin = tiny.latents(), I2V(image=ball)
    cond = encoded(tiny, plugin)
    assert plugin.before_step(x, 1.0, cond) is x
    plugin = I2V(image=ball, stability=True)
    assert not torch.equal(plugin.before_step(x, 1.0, encoded(tiny, plugin)), x)


def test_stability_of_clips_that_share_a_forward_is_each_ones_own(tiny, ball):
    requests = [replace(tiny.request, seed=seed) for seed in (1, 2)]
    plugin = I2V(image=ball, stability=True)
    together = generate(requests, [plugin], model=tiny.model, rows=2)
    for request, made in zip(requests, together, strict=True):
        alone = generate(request, [plugin], model=tiny.model).frames.astype(int)
        assert np.abs(made.frames - alone).max() <= 1


def test_long_clips_have_a_slow_frequency(tiny, ball):
    request = replace(tiny.request, frames=197)
    cond = tiny.condition(request)
    I2V(image=ball).encode(request, cond)
    assert cond.riflex and not encoded(tiny, I2V(image=ball)).riflex


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no picture and no clip is given"),
        ({"image": "ball", "video": "clip"}, "sets the first frame already"),
        ({"image": "ball", "last": "ball", "loop": True}, "sets the last frame already"),
        ({"keyframes": ("4=ball",), "loop": True}, "needs a first picture"),
        ({"image": "ball", "overlap": 4}, "4k[+]1, such as 1 or 5"),
        ({"video": "clip", "overlap": 9}, "leave none of the 9"),
        ({"keyframes": ("ball",)}, "is not like 8=picture.png"),
        ({"keyframes": ("1.5=ball",)}, "is not like 8=picture.png"),
        ({"keyframes": ("9=ball",)}, "only frames 0 to 8"),
        ({"keyframes": ("5=ball", "8=ball")}, "frames 5 to 8, which are fixed together"),
        ({"image": "ball", "keyframes": ("0=ball",)}, "both in frame 0"),
        ({"last": "ball", "keyframes": ("6=ball",)}, "frames 5 to 8, which are fixed together"),
        ({"video": "clip", "keyframes": ("3=ball",)}, "sets the frames 0 to 4 already"),
        ({"image": "/nowhere/x.png"}, "no such file"),
        ({"video": "/nowhere/x.mp4"}, "no such file"),
        ({"video": "ball.txt"}, "cannot be read as a video"),
    ],
)
def test_what_cannot_be_is_one_line(tiny, ball, clip, tmp_path, options, said):
    (tmp_path / "ball.txt").write_text("no clip")
    files = {"ball": ball, "clip": clip, "ball.txt": tmp_path / "ball.txt"}

    def real(value):
        if isinstance(value, tuple):
            return tuple(Path(one.replace("ball", str(ball)) if "=" in one else one) for one in value)
        return files.get(value, Path(value)) if isinstance(value, str) else value

    with pytest.raises(HyError, match=said) as caught:
        I2V(**{name: real(value) for name, value in options.items()}).validate(tiny.request)
    assert "\n" not in caught.value.message


def test_where_everything_is_given_it_says_so(tiny, ball, blue, clip):
    short = replace(tiny.request, frames=5)  # two latent frames
    for options in ({"image": ball, "loop": True}, {"image": ball, "last": blue}):
        with pytest.warns(
            UserWarning, match="all of the 5 frames from frame 0 on are fixed: .* nothing to generate"
        ):
            I2V(**options).validate(short)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            I2V(**options).validate(tiny.request)
    with pytest.warns(UserWarning, match="all of the 9 frames from frame 4 on"):
        I2V(video=clip, loop=True, extend=1).validate(tiny.request)


def test_a_clip_that_is_too_short_says_how_many_it_takes(tiny, clip):
    with pytest.raises(UsageError, match="has only 12 frames in 1.375 s; 5 at 2 fps take 2 s"):
        I2V(video=clip).validate(replace(tiny.request, fps=2.0))


def test_another_plugin_that_gives_the_same_frame_is_a_conflict(tiny, ball):
    cond = tiny.condition()
    cond.fix_frames("other", [0], torch.zeros(1, 16, 1, 4, 4))
    with pytest.raises(ConflictError, match="other and i2v both set latent frame 0"):
        I2V(image=ball).encode(tiny.request, cond)


def test_the_end_of_a_clip_of_varying_rate_is_taken_by_its_times(tmp_path: Path) -> None:
    from core.timed_clips import greys, levels, timed_clip

    times = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 3.0]
    path = timed_clip(tmp_path / "a.mp4", greys([20 * i + 20 for i in range(9)]), times)
    assert levels(pictures.read_clip_end(path, 5, 2.0, "--i2v-video")) == [140, 140, 160, 160, 180]


def test_a_turned_clip_and_one_with_wide_pixels_give_their_shape_to_the_video(tmp_path: Path) -> None:
    from fractions import Fraction

    from core.timed_clips import greys, timed_clip

    frames, times = greys([99] * 9, 64, 96), [i / 8 for i in range(9)]
    turned = timed_clip(tmp_path / "turned.mp4", frames, times, turn=90)
    tall = timed_clip(tmp_path / "tall.mp4", frames, times, pixel_ratio=Fraction(1, 3))
    for path, size in ((turned, (64, 96)), (tall, (96, 192))):
        width, height = sources.first_size(I2V(video=path).options)
        assert (width, height) == size
        shown = pictures.read_clip_end(path, 2, 8.0, "--i2v-video")
        assert shown.shape[1:3] == (height, width)
