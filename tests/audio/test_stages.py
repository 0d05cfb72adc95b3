"""Stages of the data pipeline: what is dropped, what is found, and that damage is a reason and no crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from audio.clips import clip, pictures, tone
from hy_audio.stages import Bandwidth, Consistency, Presence, SoundCaption, SoundKind
from hy_audio.stages.captions import cleaned, merged
from hy_audio.stages.kinds import CLASSES, AudioSetTagger, SegmentLabels, classify, kind_of, overall
from hy_audio.stages.presence import bandwidth, silence
from hy_core import media
from hy_core.data import ClipRecord, Stage, run_stages
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.request import Sound
from scipy.signal import fftconvolve, firwin, lfilter

RATE = 16000


def one(stage: Stage, path: Path, **fields) -> dict:
    (after,) = stage.run(ClipRecord.from_json({"path": str(path), **fields}))
    row = after.to_json()
    assert json.loads(json.dumps(row)) == row  # fit for a manifest
    return row


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Vowels by formants over a voice of 120 Hz, with hisses between them: enough for a detector."""
    rng, parts = np.random.default_rng(seed), []
    vowels = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)]
    while sum(map(len, parts)) < seconds * RATE:
        count = int(rng.uniform(0.12, 0.25) * RATE)
        voice = rng.uniform(100, 140) * (1 + 0.1 * np.sin(np.arange(count) / count * 3))
        wave = np.diff(np.floor(np.cumsum(voice / RATE)), prepend=0) + 0.01 * rng.standard_normal(count)
        wave = lfilter([1], [1, -0.95], wave)
        for formant, width in zip(vowels[rng.integers(5)], (80, 100, 140), strict=True):
            r = np.exp(-np.pi * width / RATE)
            wave = lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * formant / RATE), r * r], wave)
        parts.append(wave / np.abs(wave).max() * np.hanning(count) ** 0.3)
        if rng.random() < 0.6:
            parts.append(0.1 * np.diff(rng.standard_normal(960)))
    return (0.4 * np.concatenate(parts)[: round(seconds * RATE)]).astype(np.float32)


# -- presence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sounding", "kept"), [(0.0, False), (0.5, False), (1.5, True), (4.0, True)])
def test_clips_without_sound_or_mostly_silent_are_dropped(tmp_path, sounding, kept):
    wave = tone(4)
    wave[:, round(sounding * 48000) :] = 0
    row = one(Presence(), clip(tmp_path / "a.mp4", 100, 25, wave))
    assert row["audio_present"] and row["silence_ratio"] == pytest.approx(1 - sounding / 4, abs=0.03)
    assert ("rejected" not in row) == kept
    if not kept:
        assert row["rejected"].startswith("sound-presence: ") and "silent" in row["rejected"]
    assert "rejected" not in one(Presence(most_silence=1.0), tmp_path / "a.mp4")


def test_no_stream_a_short_stream_and_a_span(tmp_path):
    assert one(Presence(), clip(tmp_path / "a.mp4"))["rejected"] == "sound-presence: no sound stream"
    short = media.write(tmp_path / "b.mp4", pictures(100), 25, Sound(tone(0.4), 48000))  # 0.4 s of 4
    assert one(Presence(), short)["silence_ratio"] == pytest.approx(0.9, abs=0.03)
    assert "rejected" not in one(Presence(), short, span=[0.0, 0.4])
    late = tone(6)
    late[:, : 3 * 48000] = 0
    path = clip(tmp_path / "c.mp4", 150, 25, late)
    assert one(Presence(), path, span=[3.0, 6.0])["silence_ratio"] < 0.02
    assert one(Presence(), path, span=[0.0, 2.9])["silence_ratio"] > 0.98


def test_quiet_is_relative_to_a_loud_clip():
    assert silence(np.array([-20.0] * 10)) == 0 and silence(np.array([-60.0] * 10)) == 1
    assert silence(np.array([-5.0] * 50 + [-48.0] * 50)) == 0.5 and silence(np.zeros(0)) == 1


def test_files_that_cannot_be_read_are_rejected_and_records_without_a_path_are_errors(tmp_path):
    (tmp_path / "text.mp4").write_text("nothing" * 50)
    for stage in (Presence(), Bandwidth(), Consistency()):
        assert "cannot be read" in one(stage, tmp_path / "text.mp4")["rejected"]
        assert "no such file" in one(stage, tmp_path / "gone.mp4")["rejected"]
    before = ClipRecord(Path("x"), rejected="too dark")
    assert list(Presence().run(before)) == [before]
    for wrong in ({}, {"path": 3}, {"path": "a", "span": [3, 1]}, {"path": "a", "span": "x"}):
        with pytest.raises(UsageError):
            ClipRecord.from_json(wrong)
    with pytest.raises(UsageError):
        Presence(most_silence=2.0)
    with pytest.raises(UsageError):
        Presence(nothing=1)


# -- bandwidth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [4000, 8000, 12000, 18000])
def test_bandwidth_is_where_the_sound_ends(edge):
    noise = np.random.default_rng(0).standard_normal(48000 * 3)
    dull = fftconvolve(noise, firwin(2001, edge, fs=48000, window=("kaiser", 12)), "same")
    assert bandwidth(np.array_split(0.1 * dull[None], 9, axis=1), 48000) == pytest.approx(edge, abs=400)


def test_sound_resampled_from_a_low_rate_is_dropped(tmp_path):
    import soxr

    rng = np.random.default_rng(0)
    full = 0.1 * rng.standard_normal(96000).astype(np.float32)
    dull = soxr.resample(0.1 * rng.standard_normal(32000), 16000, 48000).astype(np.float32)
    from hy_audio.sound_files import write_sound

    good, bad = (
        write_sound(tmp_path / "a.wav", [full[None]], 48000),
        write_sound(tmp_path / "b.wav", [dull[None]], 48000),
    )
    assert "rejected" not in one(Bandwidth(), good)
    row = one(Bandwidth(), bad)
    assert row["bandwidth"] == pytest.approx(8000, abs=600) and "reaches only" in row["rejected"]
    assert "rejected" not in one(Bandwidth(least=7000.0), bad)
    assert bandwidth([], 48000) == 0 and bandwidth([np.zeros((1, 9000))], 48000) == 0


# -- kinds -----------------------------------------------------------------------------------------------


def by_pitch(windows: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """A tagger for tests: energy at 440 Hz is music, at 3 kHz another sound."""
    power = np.abs(np.fft.rfft(windows * np.hanning(windows.shape[1]))) ** 2
    frequency = np.fft.rfftfreq(windows.shape[1], 1 / rate)
    return {
        kind: (power[:, np.abs(frequency - hertz) < 30].sum(1) > 1).astype(np.float32)
        for kind, hertz in (("speech", 0), ("music", 440), ("sound", 3000))
    }


def test_silero_hears_speech_and_nothing_else():
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    import torch

    before = torch.get_num_threads()
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    for wave, share in ((speech(4), 1.0), (noise, 0.0), (tone(4, RATE)[0], 0.0)):
        found = classify(iter([wave[None]]), by_pitch)
        assert abs(found.speech.mean() - share) < 0.2 and len(found.speech) == 8
    assert torch.get_num_threads() == before
    parts = np.concatenate([speech(2), np.zeros(2 * RATE, np.float32), noise[: 2 * RATE]])
    found = classify(iter(np.array_split(parts[None], 7, axis=1)), by_pitch)
    assert found.speech[:4].all() and not found.speech[4:].any()
    assert found.silent.tolist() == [False] * 4 + [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"sound"}, "pure sound"),
        ({"music"}, "pure music"),
        ({"music", "sound"}, "sound with music"),
        ({"speech", "sound"}, "sound with speech"),
        ({"speech", "music"}, "sound with speech"),
        (set(), None),
    ],
)
def test_the_papers_four_classes(tmp_path, parts, kind):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    wave = np.zeros(4 * RATE, np.float32)
    wave += speech(4) if "speech" in parts else 0
    wave += tone(4, RATE, 440, 0.1)[0] if "music" in parts else 0
    wave += tone(4, RATE, 3000, 0.1)[0] if "sound" in parts else 0
    path = clip(tmp_path / "a.mp4", 100, 25, np.clip(wave, -1, 1)[None], RATE)
    row = one(SoundKind(tagger=f"{__name__}:by_pitch"), path)
    assert row["audio_class"] == kind
    if kind is None:
        assert row["rejected"] == "sound-kind: nothing sounds"
    else:
        assert kind in CLASSES and "rejected" not in row
        kept = one(SoundKind(tagger=f"{__name__}:by_pitch", keep=["pure music"]), path)
        assert ("rejected" in kept) == (kind != "pure music")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Let "module:function" find this file, whatever pytest calls it."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))


def test_shares_are_of_the_sounding_time():
    silent = np.array([True] * 8 + [False] * 2)
    speech_, nothing = ~silent & (np.arange(10) == 8), np.zeros(10, bool)
    assert overall(SegmentLabels(silent, speech_, nothing, ~silent))[1] == {
        "speech": 0.5,
        "music": 0,
        "sound": 1,
    }
    assert overall(SegmentLabels(np.ones(3, bool), *[np.zeros(3, bool)] * 3))[0] is None


def test_an_audioset_classifier_is_a_tagger(tmp_path):
    """A tiny random AST with AudioSet's kinds of labels, saved and loaded as a real one is."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    labels = ["Speech", "Music", "Dog", "Silence", "Male speech, man speaking", "Electric guitar"]
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=64,
        num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    network = ASTForAudioClassification(config)
    network.save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(num_mel_bins=16, max_length=64).save_pretrained(tmp_path / "ast")
    tagger = AudioSetTagger.load(str(tmp_path / "ast"))
    assert tagger.kinds == {"speech": [0, 4], "music": [1, 5], "sound": [2]}
    rng = np.random.default_rng(0)
    found = tagger(rng.standard_normal((3, 32000)).astype(np.float32), RATE)
    assert set(found) == {"speech", "music", "sound"}
    assert all(chance.shape == (3,) and ((chance > 0) & (chance < 1)).all() for chance in found.values())
    with pytest.raises(MissingError):
        AudioSetTagger.load(str(tmp_path / "none"))
    assert [kind_of(label) for label in ("Rain", "Child speech, kid speaking", "Piano", "Silence")] == [
        "sound", "speech", "music", None,
    ]  # fmt: skip


def test_a_wrong_tagger_is_one_line(tmp_path):
    path = clip(tmp_path / "a.mp4", 25, 25, tone(1))
    with pytest.raises(HyError, match="no classifier in /nowhere"):  # no fault of the clip's
        one(SoundKind(tagger="/nowhere"), path)
    with pytest.raises(HyError, match="no class"):
        list(SoundKind(tagger="x:y", keep=["loud"]).run(ClipRecord(path)))
    with pytest.raises(HyError, match="can't import"):
        one(SoundKind(tagger="no_such_module:it"), path)


# -- consistency -----------------------------------------------------------------------------------------


def hits(late: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A block that falls and stops, at 1 and 2.2 s: frames at 25 fps, and clicks `late` seconds after each."""
    frames = np.full((80, 48, 64, 3), 60, np.uint8)
    heights = np.zeros(80)
    for hit in (25, 55):
        for index in range(hit - 12, hit + 1):
            heights[index] = 30 * ((index - hit + 12) / 12) ** 2
    for index, height in enumerate(heights):
        frames[index, int(height) : int(height) + 12, 20:40] = 240
    wave = np.zeros(round(3.2 * 48000), np.float32)
    rng = np.random.default_rng(0)
    for hit in (25, 55):
        at = round((hit / 25 + late) * 48000)
        wave[at : at + 4800] += (0.5 * rng.standard_normal(4800) * np.exp(-np.arange(4800) / 800)).astype(
            np.float32
        )
    return frames, wave[None]


def test_sound_that_hits_with_the_picture_scores_high_and_late_sound_low(tmp_path):
    rows = {}
    for late in (0.0, 0.4):
        frames, wave = hits(late)
        path = media.write(tmp_path / f"{late}.mp4", frames, 25, Sound(wave, 48000))
        rows[late] = one(Consistency(), path)
    assert rows[0.0]["av_score"] >= 0.6 and abs(rows[0.0]["av_offset"]) <= 0.1
    assert rows[0.4]["av_score"] <= 0.4 and rows[0.4]["av_offset"] == pytest.approx(0.4, abs=0.12)
    assert "below" in one(Consistency(least=0.5), tmp_path / "0.4.mp4")["rejected"]
    assert "rejected" not in one(Consistency(least=0.5), tmp_path / "0.0.mp4")


def test_what_cannot_be_told_stays(tmp_path):
    still = media.write(tmp_path / "a.mp4", np.full((50, 48, 64, 3), 99, np.uint8), 25, Sound(tone(2), 48000))
    row = one(Consistency(least=0.9), still)
    assert row["av_score"] is None and "rejected" not in row


def test_a_scorer_of_ones_own(tmp_path):
    path = clip(tmp_path / "a.mp4", 25, 25, tone(1))
    stage = Consistency(scorer="builtins:len.__class__", least=0.5)
    with pytest.raises(Exception):  # noqa: B017 - not a scorer at all
        list(stage.run(ClipRecord(path)))
    (tmp_path / "mine.py").write_text("def score(path, span):\n    return 0.25\n")
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        row = one(Consistency(scorer="mine:score", least=0.5), path)
    finally:
        sys.path.remove(str(tmp_path))
    assert row["av_score"] == 0.25 and "below" in row["rejected"]


# -- captions --------------------------------------------------------------------------------------------


def test_two_captions_become_one_structured_one():
    found = merged("a dog barks", "slow piano")
    assert found == {
        "sound": "a dog barks.",
        "music": "slow piano.",
        "text": "Sound: a dog barks. Music: slow piano.",
    }
    assert merged("a dog barks", None) == {"sound": "a dog barks.", "text": "a dog barks."}
    assert merged("none", "No music.") == {}
    assert merged("a dog", "a tune", "pure music")["text"] == "a tune."
    assert merged("a dog", "a tune", "pure sound")["text"] == "a dog."
    assert merged("a dog", "a tune", "sound with music")["text"] == "Sound: a dog. Music: a tune."


@pytest.mark.parametrize("text", ["a\x00b\x1b[31m\n c\u202e", None, 7, "", "x" * 5000, "word " * 5000])
def test_hostile_captions_become_harmless(text):
    plain = cleaned(text)
    assert len(plain) <= 601 and plain.isprintable()


def test_stages_in_a_row(tmp_path):
    frames, wave = hits()
    good = media.write(tmp_path / "a.mp4", frames, 25, Sound(wave, 48000))
    mute = clip(tmp_path / "b.mp4")
    found = [ClipRecord(good, results={"sound_caption": "two thuds"}), ClipRecord(mute)]
    rows = list(run_stages([Presence(most_silence=0.95), Consistency(), SoundCaption()], found))
    assert len(rows) == 2 and rows[0].results["audio_caption"]["text"] == "two thuds."
    assert rows[0].results["av_score"] > 0.5
    assert rows[1].rejected and "av_score" not in rows[1].results
