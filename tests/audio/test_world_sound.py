"""The world's sound is what its scenes say, and the judge hears it: nearly always right, and not by chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hy_world.attributes import BACKGROUNDS, SHAPES, SIZES
from hy_world.listen import TOLERANCE, listen, match_moments, score_sound
from hy_world.scene import Scene, Thing, sample_scene
from hy_world.sound import AMBIENCES, RATE, impacts, pitch, ring, silent, sound

pytest.importorskip("librosa")


def bouncing(shape: str = "circle", radius: float = 12 / 64, background: str = "gray") -> Scene:
    size = "large" if radius > 0.15 else "small"
    return Scene(background, (Thing("red", shape, size, "bounce", 0.5, 0.4, radius, hop=0.25, hops=2),))


def scenes(count: int, seed: int = 0, objects: int = 1) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, "all", objects=objects) for _ in range(count)]


def rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


@pytest.mark.parametrize(("frames", "fps"), [(17, 8.0), (33, 8.0), (17, 12.0), (1, 8.0), (9, 23.976)])
def test_a_sound_is_as_long_as_its_clip_and_comes_from_its_seed(frames, fps):
    for scene in scenes(12):
        wave = sound(scene, frames, fps, seed=3)
        assert wave.dtype == np.float32 and wave.shape == (round(frames / fps * RATE),)
        assert np.abs(wave).max() <= 1 and np.isfinite(wave).all()
        assert np.array_equal(wave, sound(scene, frames, fps, seed=3))
        if not silent(scene, frames) and scene.background != "checkerboard":
            assert not np.array_equal(wave, sound(scene, frames, fps, seed=4))


def test_where_nothing_sounds_there_are_zeros_and_only_there():
    seen = set()
    for scene in scenes(400):
        assert (sound(scene).any()) == (not silent(scene))
        seen.add(silent(scene))
        still = scene.things[0].motion == "still"
        assert silent(scene) == (still and scene.background not in AMBIENCES)
        assert silent(scene, 1) == (scene.background not in AMBIENCES)  # a picture moves nothing
    assert seen == {True, False} and set(AMBIENCES) < set(BACKGROUNDS)


@pytest.mark.parametrize(("frames", "fps"), [(17, 8.0), (33, 8.0), (17, 12.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_energy_jumps_at_the_moments_of_impact(frames, fps, shape):
    scene = bouncing(shape)
    wave, moments = sound(scene, frames, fps), [time for time, _ in impacts(scene, frames, fps)]
    assert moments == pytest.approx([0.25 * (frames - 1) / fps, 0.75 * (frames - 1) / fps])
    for moment in moments:
        at = round(moment * RATE)
        assert rms(wave[at : at + 400]) > 2 * rms(wave[at - 400 : at])


@pytest.mark.parametrize("shape", SHAPES)
def test_pitch_falls_with_size_and_leaves_a_gap_between_the_sizes(shape):
    for radius in (*SIZES["small"], *SIZES["large"]):
        wave = ring(shape, radius, 1.0, np.random.default_rng(0))
        spectrum = np.abs(np.fft.rfft(wave * np.exp(-np.arange(len(wave)) / RATE / 0.05)))
        frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
        near = np.abs(frequency - pitch(radius)) < 120
        assert frequency[near][spectrum[near].argmax()] == pytest.approx(pitch(radius), rel=0.05)
    assert min(pitch(r) for r in SIZES["small"]) > 1.5 * max(pitch(r) for r in SIZES["large"])


def test_shapes_ring_for_different_times():
    lasts = {shape: rms(ring(shape, 0.15, 1.0)[RATE // 5 :]) for shape in SHAPES}
    assert lasts["triangle"] > lasts["star"] > lasts["square"] > lasts["circle"]


def test_faster_things_make_louder_air():
    def moving(way: float) -> Scene:
        return Scene("gray", (Thing("red", "circle", "large", "right", 0.3, 0.5, 0.18, move=(way, 0.0)),))

    slow, fast = sound(moving(0.2)), sound(moving(0.4))
    assert rms(fast) > 1.25 * rms(slow) > 0
    assert rms(sound(moving(0.2), fps=16.0)) > 1.25 * rms(slow)  # the same way in half the time


def test_places_sound_and_differ():
    def spectrum(background: str) -> np.ndarray:
        still = Scene(background, (Thing("red", "circle", "large", "still", 0.5, 0.5, 0.18),))
        power = np.abs(np.fft.rfft(sound(still))) ** 2
        return (
            np.add.reduceat(power, np.searchsorted(np.fft.rfftfreq(34000, 1 / RATE), [0, 120, 1500]))
            / power.sum()
        )

    low, wind, high = (spectrum(name) for name in ("checkerboard", "sky", "sunset"))
    assert low[0] > 0.5 and wind[1] > 0.5 and high[2] > 0.9


def test_the_judge_is_nearly_always_right_on_real_sound():
    drawn = scenes(150, seed=11)
    lines = {
        line.attribute: line
        for line in score_sound(drawn, [sound(s, seed=50 + i) for i, s in enumerate(drawn)])
    }
    assert set(lines) == {"impact", "size", "shape", "silence", "sound"}
    for line in lines.values():
        assert line.made.rate >= 0.98 and line.real.rate >= 0.98, line
    for name in ("impact", "size", "shape"):
        assert lines[name].base <= 0.3 and lines[name].made.total >= 20, lines[name]


def test_two_things_are_heard_too():
    drawn = scenes(80, seed=2, objects=2)
    lines = {
        line.attribute: line
        for line in score_sound(drawn, [sound(s, seed=9 + i) for i, s in enumerate(drawn)])
    }
    assert lines["impact"].made.rate >= 0.95 and lines["size"].made.rate >= 0.95


@pytest.mark.parametrize("spoil", ["noise", "quiet", "rate", "stereo"])
def test_the_judge_bears_what_codecs_do(spoil):
    import librosa

    drawn = [
        bouncing(shape, radius, background)
        for shape in SHAPES
        for radius in (0.123, 0.188)
        for background in ("gray", "sky")
    ]
    made, rate = [sound(scene, seed=i) for i, scene in enumerate(drawn)], RATE
    if spoil == "noise":
        rng = np.random.default_rng(0)
        made = [wave + 0.003 * rng.standard_normal(len(wave)).astype(np.float32) for wave in made]
    elif spoil == "quiet":
        made = [wave * 0.3 for wave in made]
    elif spoil == "rate":
        made, rate = [librosa.resample(wave, orig_sr=RATE, target_sr=44100) for wave in made], 44100
    else:
        made = [np.stack([wave, wave]) for wave in made]
    for line in score_sound(drawn, made, rate=rate):
        assert line.made.rate >= 0.95, line


def test_wrong_sound_scores_low():
    drawn = [bouncing(shape, radius) for shape in SHAPES for radius in (0.123, 0.188)]
    late = [np.roll(sound(scene), RATE // 4) for scene in drawn]  # everything a quarter of a second late
    swapped = [
        sound(replace(s, things=(replace(s.things[0], radius=0.311 - s.things[0].radius),))) for s in drawn
    ]
    noise = [0.1 * np.random.default_rng(i).standard_normal(34000) for i in range(len(drawn))]
    mute = [np.zeros(34000, np.float32)] * len(drawn)
    rates = [
        {line.attribute: line.made.rate for line in score_sound(drawn, made)}
        for made in (late, swapped, noise, mute)
    ]
    assert rates[0]["impact"] == 0 and rates[2]["impact"] == 0 and rates[3]["impact"] == 0
    assert rates[1]["impact"] == 1 and rates[1]["size"] == 0 and rates[1]["shape"] == 1
    assert rates[3]["sound"] == 0


def test_moments_are_paired_once_and_within_the_tolerance():
    assert match_moments([0.5, 0.52], [0.51]) in ([(0, 0)], [(1, 0)])
    assert match_moments([0.5], [0.5 + TOLERANCE * 1.01]) == []
    assert match_moments([0.1, 0.9], [0.88, 0.12]) == [(0, 1), (1, 0)]
    assert match_moments([], [1.0]) == []


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(10), np.full(50, 0.5), np.zeros((2, 0))])
def test_very_short_sounds_are_heard_as_something(samples):
    assert listen(samples).impacts == ()


def test_the_score_of_nothing_is_nothing():
    assert score_sound([], []) == []
    assert math.isnan(score_sound(scenes(1), [sound(scenes(1)[0])])[-1].base)
