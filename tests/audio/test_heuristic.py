"""The tagger without weights: how often it is right on made sounds, and where it is known to be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audio.clips import clip
from audio.sounds import MUSIC, OTHER, RATE, both, made, note
from hy_audio.stages import SoundKind
from hy_audio.stages.heuristic import heuristic, regularity, tonality
from hy_audio.stages.kinds import classify, overall, tagger_of
from hy_core.data import ClipRecord

TAKES = 20


def tags(*waves: np.ndarray) -> list[tuple[float, float]]:
    found = heuristic(np.stack(waves), RATE)
    assert not found["speech"].any()
    return list(zip(found["music"].tolist(), found["sound"].tolist(), strict=True))


def takes(kind, first: int = 1000) -> list[np.ndarray]:
    """Other takes than those that the thresholds were looked at with."""
    return [made(kind, first + index) for index in range(TAKES)]


@pytest.mark.parametrize("kind", MUSIC, ids=lambda kind: kind.__name__)
def test_music_is_music_and_nothing_else(kind):
    found = tags(*takes(kind))
    assert found.count((1, 0)) >= 0.9 * TAKES, found


@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.__name__)
def test_other_sounds_are_no_music(kind):
    found = tags(*takes(kind))
    assert found.count((0, 1)) >= 0.9 * TAKES, found


def test_music_and_another_sound_are_both():
    found = tags(*takes(both))
    assert found.count((1, 1)) >= 0.8 * TAKES, found


def test_level_and_rate_do_not_matter_and_silence_is_nothing():
    wave = made(MUSIC[1], 5)
    assert tags(wave, 1e-3 * wave, 3 * wave) == [(1, 0)] * 3
    import soxr

    high = soxr.resample(wave, RATE, 44100)
    assert heuristic(high[None], 44100)["music"].tolist() == [1]
    assert tags(np.zeros(2 * RATE)) == [(0, 0)] and heuristic(np.zeros((0, 100)), RATE)["music"].shape == (0,)
    assert heuristic(wave[None, :3000], RATE)["sound"].tolist() == [1]  # too short to hold notes


def test_what_is_measured():
    three = sum(note(2, 220 * 2 ** (step / 12), 4, 0.5) for step in (0, 4, 7))
    notes, tonal, scale = tonality(three, RATE)
    assert notes >= 3 and tonal > 0.9 and scale > 0.9
    assert tonality(note(2, 220, 4, 0.5), RATE)[0] == 1  # overtones are no notes
    off = tonality(sum(note(2, hertz, 1, 0.5) for hertz in (220, 283.5, 365, 450, 507, 700)), RATE)
    assert off[0] >= 3 and off[2] < 0.7  # partials that no scale has
    ticks = np.zeros(2 * RATE)
    ticks[:: RATE // 4] = 1
    rng = np.random.default_rng(0)
    assert regularity(ticks + 1e-3 * rng.standard_normal(len(ticks)), RATE) > 0.8
    assert regularity(rng.standard_normal(2 * RATE), RATE) < 0.3


def test_known_mistakes():
    """Known limits, also in the documentation."""
    rng = np.random.default_rng(0)
    beat = np.zeros(2 * RATE)
    for at in range(0, 2 * RATE, RATE // 2):
        beat[at : at + 2000] += rng.standard_normal(2000) * np.exp(-np.arange(2000) / 300)
    bells = np.concatenate([note(0.5, 220 * 2 ** (step / 12), 3) for step in (12, 8, 10, 3)])
    assert tags(beat) == [(0, 1)]  # drums alone are taken for another sound
    assert tags(bells) == [(1, 0)]  # a clock's chime is a melody


def nobody(samples: np.ndarray) -> np.ndarray:
    return np.zeros(-(-len(samples) // 512))


@pytest.mark.parametrize(
    ("kind", "name"), [(MUSIC[1], "pure music"), (OTHER[0], "pure sound"), (both, "sound with music")]
)
def test_clips_get_their_class_from_the_first_moment_on(kind, name):
    wave = made(kind, 7, 8.0)
    moments = classify(iter(np.array_split(wave[None], 9, axis=1)), tagger_of("heuristic"), nobody)
    assert overall(moments)[0] == name
    assert moments.music.tolist() == [name != "pure sound"] * 16


def test_sound_kind_needs_no_tagger(tmp_path):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    for kind, name in ((MUSIC[1], "pure music"), (OTHER[0], "pure sound")):
        path = clip(tmp_path / f"{name}.mp4", 100, 25, made(kind, 3, 4.0)[None], RATE)
        (row,) = SoundKind().run(ClipRecord(path))
        assert row.results["audio_class"] == name and not row.rejected


def test_real_recordings():
    """Of the package pygame-ce, read by their paths: a house track is music, what bangs and whirs is none."""
    pytest.importorskip("pygame", reason="hy-audio[offline-assets]")
    from importlib.util import find_spec

    from hy_core.media import timeline

    folder = Path(find_spec("pygame").origin).parent / "examples/data"

    def windows(name: str) -> list[np.ndarray]:
        wave = np.concatenate(list(timeline.sound(folder / name, RATE)), axis=1)[0][: 10 * RATE]
        wave = np.pad(wave, (0, -len(wave) % (2 * RATE)))
        return list(wave.reshape(-1, 2 * RATE))

    house = tags(*windows("house_lo.wav"))
    assert house.count((1, 0)) >= len(house) - 1, house  # the rule for drums was made with it
    for name in ("boom.wav", "car_door.wav", "punch.wav", "whiff.wav"):
        assert not any(music for music, _ in tags(*windows(name))), name
