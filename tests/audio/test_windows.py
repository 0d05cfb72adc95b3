"""Sound of any length comes from windows: all of the clip, no seam, no silent tail, no window over a cut."""

from __future__ import annotations

import numpy as np
import pytest
from audio.clips import pictures
from hy_audio.cuts import find_cuts
from hy_audio.frame_sampler import FrameSampler, sample_windows
from hy_audio.windows import Window, crossfade, join_windows, plan_windows
from hy_core.errors import HyError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

RATE = 1000


def rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


@given(
    st.floats(0.05, 300),
    st.floats(0.5, 15),
    st.floats(0, 0.5),
    st.lists(st.floats(-5, 310), max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_windows_cover_everything_overlap_and_stay_within_scenes(duration, seconds, share, cuts):
    windows = plan_windows(duration, seconds, share * seconds, cuts)
    assert windows[0].start == 0 and windows[-1].stop == pytest.approx(duration)
    begins = [window.start for window in windows if window.cut]
    assert set(begins[1:]) <= set(cuts)
    for one, other in zip(windows, windows[1:], strict=False):
        if other.cut:
            assert one.stop == pytest.approx(other.start)
        else:  # within a scene all windows have full length
            assert one.stop - other.start >= share * seconds - 1e-6
            assert one.seconds == pytest.approx(seconds) and other.seconds == pytest.approx(seconds)
    for cut in cuts:  # what is not near another edge is respected
        if (
            all(abs(cut - other) >= 1 for other in [0, duration, *(c for c in cuts if c != cut)])
            and 0 < cut < duration
        ):
            assert not any(window.start < cut - 1e-9 and window.stop > cut + 1e-9 for window in windows)


@given(st.floats(0.1, 40), st.floats(1, 8), st.floats(0, 0.5), st.lists(st.floats(0, 40), max_size=4))
@settings(max_examples=100, deadline=None)
def test_what_agrees_is_joined_as_if_it_had_been_made_at_once(duration, seconds, share, cuts):
    windows = plan_windows(duration, seconds, share * seconds, cuts)
    whole = np.sin(np.arange(round(duration * RATE) + 2) / 9)[None].astype(np.float32)
    pieces = [whole[:, round(w.start * RATE) : round(w.stop * RATE)] for w in windows]
    joined = np.concatenate(list(join_windows(windows, pieces, RATE, share * seconds)), axis=1)
    assert joined.shape == (1, round(duration * RATE))
    different = np.abs(joined - whole[:, : joined.shape[1]]) > 1e-4
    near = np.zeros_like(different)
    for window in windows[1:]:
        if window.cut:
            at = round(window.start * RATE)
            near[:, max(at - 11, 0) : at + 11] = True
    assert not (different & ~near).any()


def test_unlike_neighbours_keep_their_level_across_the_seam():
    rng = np.random.default_rng(0)
    windows = plan_windows(60, 8, 2)
    noise = [rng.standard_normal((2, round(w.seconds * RATE))).astype(np.float32) for w in windows]
    joined = np.concatenate(list(join_windows(windows, noise, RATE, 2)), axis=1)
    assert joined.shape == (2, 60 * RATE)
    level = [rms(joined[:, i : i + RATE]) for i in range(0, 60 * RATE, RATE // 2)]
    assert 0.85 < min(level) and max(level) < 1.15
    assert rms(joined[:, -RATE:]) > 0.85  # no silent tail


def test_a_crossfade_goes_from_one_to_the_other():
    one, other = np.ones((1, 1000), np.float32), -np.ones((1, 1000), np.float32)
    faded = crossfade(one, other)
    assert faded[0, 0] > 0.99 and faded[0, -1] < -0.99 and (np.diff(faded[0]) <= 1e-6).all()
    assert np.allclose(crossfade(one, one), 1)
    assert not crossfade(one * 0, other * 0).any()


def test_at_a_cut_nothing_of_the_old_scene_sounds_on():
    windows = [Window(0, 2, True), Window(2, 4, True)]
    joined = np.concatenate(
        list(join_windows(windows, [np.full((1, 2000), 0.5), np.full((1, 2000), -0.5)], RATE, 1)), axis=1
    )[0]
    assert (joined[:1990] == 0.5).all() and (joined[2010:] == -0.5).all()
    assert np.abs(np.diff(joined)).max() < 0.1  # no click


def test_a_generator_that_returns_too_little_or_nan_is_an_error():
    windows = [Window(0, 2, True)]
    assert list(join_windows(windows, [np.ones((1, 5000))], RATE))[0].shape == (1, 2000)
    short = list(join_windows(windows, [np.ones((1, 1950))], RATE))[0]
    assert short.shape == (1, 2000) and not short[:, 1950:].any()
    with pytest.raises(HyError, match="has only 1.00 s"):
        list(join_windows(windows, [np.ones((1, 1000))], RATE))
    with pytest.raises(HyError, match="NaN"):
        list(join_windows(windows, [np.full((1, 2000), np.nan)], RATE))


@pytest.mark.parametrize(
    ("duration", "seconds", "overlap"), [(0, 8, 1), (5, 0, 0), (5, 4, 3), (5, 4, -1), (np.nan, 4, 1)]
)
def test_impossible_plans_are_refused(duration, seconds, overlap):
    with pytest.raises(UsageError):
        plan_windows(duration, seconds, overlap)


def test_every_window_sees_the_frames_of_its_time():
    frames = [(index / 10, np.full((2, 2, 3), index, np.uint8)) for index in range(100)]  # 10 s
    windows, calls = plan_windows(10, 4, 1), []

    def prepare(frame: np.ndarray) -> int:
        calls.append(int(frame[0, 0, 0]))
        return calls[-1]

    samplers = {"slow": FrameSampler(2, prepare), "fast": FrameSampler(25, lambda frame: int(frame[0, 0, 0]))}
    found = list(sample_windows(iter(frames), windows, samplers))
    assert [window for window, _ in found] == windows
    for window, seen in found:
        for name, fps in (("slow", 2), ("fast", 25)):
            moments = window.start + np.arange(round(window.seconds * fps)) / fps
            assert seen[name] == [int(m * 10 + 1e-4) for m in moments], name
    assert len(calls) == len(set(calls))  # a frame that two windows share is prepared once


def test_a_clip_that_is_shorter_than_it_says_is_seen_to_its_last_frame():
    frames = [(0.0, np.zeros((2, 2, 3), np.uint8)), (0.5, np.ones((2, 2, 3), np.uint8))]
    ((_, seen),) = sample_windows(
        frames, [Window(0, 2, True)], {"it": FrameSampler(4, lambda frame: int(frame.max()))}
    )
    assert seen["it"] == [0, 0, 1, 1, 1, 1, 1, 1]
    with pytest.raises(HyError, match="no frames"):
        list(sample_windows([], [Window(0, 2, True)], {"it": FrameSampler(4, lambda frame: 0)}))


def shown(parts: list[np.ndarray], fps: float = 10) -> list[tuple[float, np.ndarray]]:
    return [(index / fps, frame) for index, frame in enumerate(np.concatenate(parts))]


def test_cuts_are_found_where_they_are():
    parts = [pictures(n, 36, 64, scene) for scene, n in enumerate((20, 11, 30, 5))]
    assert find_cuts(shown(parts)) == pytest.approx([2.0, 3.1, 6.1])


def test_motion_flashes_fades_and_noise_are_no_cuts():
    rng = np.random.default_rng(0)
    still = pictures(40, 36, 64)
    flash = still.copy()
    flash[20:22] = 255
    pan = np.stack([np.roll(still[0], 3 * i, axis=1) for i in range(40)])
    fade = (still * np.linspace(1, 0, 40)[:, None, None, None]).astype(np.uint8)
    noise = rng.integers(0, 256, (40, 36, 64, 3)).astype(np.uint8)
    for name, part in {"motion": still, "flash": flash, "pan": pan, "fade": fade, "noise": noise}.items():
        assert find_cuts(shown([part])) == [], name
    assert find_cuts([]) == [] and find_cuts(shown([still[:1]])) == []
