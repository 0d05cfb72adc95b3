"""Sound is put into files: pictures untouched, lengths equal, bad files one line and nothing lost."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from audio.clips import clip, lasts, packets, pictures, tone, uneven
from hy_audio.frame_sampler import FrameSampler
from hy_audio.limiter import true_peak
from hy_audio.loudness import loudness
from hy_audio.sound_files import write_sound
from hy_audio.soundtrack import add_soundtrack, generate_soundtrack
from hy_audio.soundtrack_options import SoundtrackOptions
from hy_core import Conditioner, generate, media
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import timeline
from hy_core.request import Sound


class Hum:
    """A generator for tests: a tone whose pitch is the brightness of what it saw in the middle of the window."""

    rate = 16000

    def __init__(self, seconds: float = 4.0, channels: int = 1) -> None:
        self.seconds, self.channels, self.windows = seconds, channels, []
        self.samplers = {"light": FrameSampler(8, lambda frame: float(frame.mean()))}

    def generate(self, seen, seconds, index):
        light = seen["light"]
        assert len(light) == max(round(seconds * 8), 1)
        self.windows.append(seconds)
        return tone(seconds, self.rate, 200 + 4 * light[len(light) // 2], 0.1, self.channels)


def heard(path: Path, rate: int = 48000, channels: int = 1) -> np.ndarray:
    return np.concatenate(list(timeline.sound(path, rate, channels)), axis=1)


def pitch(wave: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * rate / len(wave))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(("frames", "fps"), [(17, 8), (100, 29.97), (181, 60), (1, 8)])
def test_pictures_are_copied_bit_for_bit_and_the_sound_is_as_long(tmp_path, suffix, frames, fps):
    source = clip(tmp_path / f"a{'.webm' if suffix == '.webm' else '.mp4'}", frames, fps)
    made = add_soundtrack(source, tmp_path / f"b{suffix}", Hum())
    assert packets(made) == packets(source)
    extent = timeline.measure(made)
    assert extent.frames == frames and extent.sounds == 1
    assert abs(lasts(made, "audio") - lasts(made, "video")) < 1 / fps
    assert abs(heard(made).shape[1] / 48000 - frames / fps) < max(1 / fps, 1024 / 48000)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, made.name])


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_alone_is_exact(tmp_path, suffix, channels):
    import soundfile

    source = clip(tmp_path / "a.mp4", 100, 25)
    path = add_soundtrack(
        source, tmp_path / f"b{suffix}", Hum(), SoundtrackOptions(channels=channels, lufs=-20)
    )
    samples, rate = soundfile.read(path, always_2d=True)
    assert rate == 16000 and samples.shape == (64000, channels)
    assert loudness(samples.T, rate) == pytest.approx(-20, abs=0.2) and true_peak(samples.T) <= -0.9
    assert soundfile.info(str(path)).format == suffix[1:].upper()


def test_loudness_and_peak_hold_in_the_file(tmp_path):
    source = clip(tmp_path / "a.mp4", 150, 25)
    for lufs in (-16.0, -23.0):
        made = add_soundtrack(source, tmp_path / "b.mp4", Hum(), SoundtrackOptions(lufs=lufs, channels=2))
        wave = heard(made, channels=2)
        assert loudness(wave, 48000) == pytest.approx(lufs, abs=0.5)
        assert np.allclose(wave[0], wave[1], atol=0.02)


def test_existing_sound_is_replaced_kept_or_mixed(tmp_path):
    old = tone(4, hertz=3000, level=0.2)
    source = clip(tmp_path / "a.mp4", 100, 25, old)
    generator, first = Hum(), packets(source, "audio")
    replaced = add_soundtrack(source, tmp_path / "b.mp4", generator)
    assert timeline.measure(replaced).sounds == 1 and pitch(heard(replaced)[0], 48000) < 1500
    kept = add_soundtrack(source, tmp_path / "c.mp4", generator, SoundtrackOptions(existing="keep"))
    assert timeline.measure(kept).sounds == 2 and packets(kept, "audio", 0) == first
    assert pitch(heard(kept)[0], 48000) == pytest.approx(3000, abs=2)
    both = heard(add_soundtrack(source, tmp_path / "d.mp4", generator, SoundtrackOptions(existing="mix")))[0]
    spectrum = np.abs(np.fft.rfft(both)) ** 2
    frequency = np.fft.rfftfreq(len(both), 1 / 48000)
    high, low = (spectrum[mask].sum() for mask in (abs(frequency - 3000) < 50, frequency < 1500))
    assert 0.2 < high / low < 2  # as loud as each other, by ears that hear 3 kHz better
    more = heard(
        add_soundtrack(source, tmp_path / "e.mp4", generator, SoundtrackOptions(existing="mix", balance=12))
    )[0]
    spectrum = np.abs(np.fft.rfft(more)) ** 2
    assert spectrum[frequency < 1500].sum() > 10 * spectrum[abs(frequency - 3000) < 50].sum()
    for mode in ("keep", "mix"):  # nothing to keep
        silent = clip(tmp_path / "s.mp4", 50, 25)
        assert (
            timeline.measure(
                add_soundtrack(silent, tmp_path / "f.mp4", generator, SoundtrackOptions(existing=mode))
            ).sounds
            == 1
        )


def test_windows_end_where_scenes_change_and_sound_follows_the_picture(tmp_path):
    dark, bright = np.full((100, 48, 64, 3), 40, np.uint8), np.full((75, 48, 64, 3), 200, np.uint8)
    source = media.write(tmp_path / "a.mp4", np.concatenate([dark, bright]), 25)
    generator = Hum(seconds=8)
    wave = heard(add_soundtrack(source, tmp_path / "b.mp4", generator))[0]
    assert generator.windows == pytest.approx([4.0, 3.0])
    assert pitch(wave[: 3 * 48000], 48000) == pytest.approx(200 + 4 * 40, abs=15)
    assert pitch(wave[-2 * 48000 :], 48000) == pytest.approx(200 + 4 * 200, abs=15)


def test_metadata_and_subtitles_and_comment_stay(tmp_path):
    source = media.write(tmp_path / "a.mp4", pictures(25), 25, comment='{"made": "so"}')
    assert media.probe(add_soundtrack(source, tmp_path / "b.mp4", Hum())).comment == '{"made": "so"}'


# -- hostile and odd files -------------------------------------------------------------------------------


def test_a_variable_rate_keeps_its_times_and_is_seen_at_its_times(tmp_path):
    times = [0, 40, 80, 500, 1500, 1540, 3000]
    source, seen = uneven(tmp_path / "a.mp4", times), []

    class Watcher(Hum):
        def generate(self, found, seconds, index):
            seen.extend(round(light / 8) for light in found["light"])
            return super().generate(found, seconds, index)

    made = add_soundtrack(source, tmp_path / "b.mp4", Watcher(seconds=10), SoundtrackOptions(cuts=False))
    assert packets(made) == packets(source)
    found = [time for time, _ in timeline.frames(made)]
    assert found == pytest.approx([t / 1000 for t in times], abs=0.002)
    assert seen == [sum(t <= 125 * i + 1 for t in times) - 1 for i in range(len(seen))]
    assert abs(lasts(made, "audio") - timeline.measure(source).duration) < 0.04


def test_a_rotated_clip_stays_rotated(tmp_path):
    plain = clip(tmp_path / "a.mp4", 25, 25)
    with av.open(str(plain)) as box, av.open(str(tmp_path / "r.mp4"), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        for packet in box.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = bytearray((tmp_path / "r.mp4").read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # the matrix of a version 0 track header: turn it by 90 degrees
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    (tmp_path / "r.mp4").write_bytes(data)
    frame = next(timeline.frames(tmp_path / "r.mp4"))[1]
    assert frame.shape == (64, 48, 3)  # upright
    made = add_soundtrack(tmp_path / "r.mp4", tmp_path / "b.mp4", Hum())
    assert next(timeline.frames(made))[1].shape == (64, 48, 3)
    assert packets(made) == packets(plain)


def test_a_clock_that_starts_late_keeps_sound_in_step(tmp_path):
    with av.open(str(tmp_path / "late.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, image in enumerate(pictures(50)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index + 75
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    extent = timeline.measure(tmp_path / "late.mkv")
    assert extent.start == pytest.approx(3, abs=0.1) and extent.duration == pytest.approx(2, abs=0.01)
    made = add_soundtrack(tmp_path / "late.mkv", tmp_path / "b.mkv", Hum())
    with av.open(str(made)) as box:
        first = next(box.decode(audio=0))
    assert first.time == pytest.approx(timeline.measure(made).start, abs=0.03)
    assert heard(made).shape[1] / 48000 == pytest.approx(2, abs=0.04)


def test_a_file_that_breaks_off_gets_sound_up_to_there(tmp_path, caplog):
    source = media.write(tmp_path / "a.mp4", pictures(250), 25)
    with av.open(str(source)) as box, av.open(str(tmp_path / "whole.mkv"), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        for packet in box.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    extent = timeline.measure(tmp_path / "half.mkv")
    assert 20 < extent.frames < 240
    made = add_soundtrack(tmp_path / "half.mkv", tmp_path / "b.mp4", Hum())
    assert abs(lasts(made, "audio") - extent.duration) < 0.1
    assert packets(made) == packets(source)[: len(packets(made))] and len(packets(made)) == extent.frames
    data = source.read_bytes()
    (tmp_path / "moov.mp4").write_bytes(data[: len(data) * 3 // 4])  # header first: packets end early
    with caplog.at_level(logging.WARNING):
        made = add_soundtrack(tmp_path / "moov.mp4", tmp_path / "c.mp4", Hum())
    assert timeline.measure(made).frames > 50 and len(packets(made)) >= 50


def test_what_is_no_clip_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    sound = write_sound(tmp_path / "only.wav", [tone(1)], 48000)
    media.write(tmp_path / "one.png", pictures(1), 1)
    before = sorted(path.name for path in tmp_path.iterdir())
    for name, kind in [
        ("text.mp4", HyError),
        ("empty.mp4", HyError),
        (sound.name, HyError),
        ("one.png", HyError),
    ]:
        with pytest.raises(kind) as error:
            add_soundtrack(tmp_path / name, tmp_path / "out.mp4", Hum())
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(MissingError):
        add_soundtrack(tmp_path / "none.mp4", tmp_path / "out.mp4", Hum())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_wrong_targets_and_settings_are_refused_before_anything_is_made(tmp_path):
    source, generator = clip(tmp_path / "a.mp4"), Hum()
    for target in ("b.gif", "b", "a.mp4", "a.mp4/c.mp4"):
        with pytest.raises(UsageError):
            add_soundtrack(source, tmp_path / target, generator)
    assert generator.windows == []
    for wrong in ({"existing": "both"}, {"channels": 6}, {"lufs": 3.0}, {"peak": 2.0}):
        with pytest.raises(UsageError):
            SoundtrackOptions(**wrong)
    with pytest.raises(UsageError, match="holds no"):
        add_soundtrack(source, tmp_path / "b.webm", generator)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_interrupted_run_keeps_what_was_there(tmp_path):
    class Breaking(Hum):
        def generate(self, seen, seconds, index):
            if index == 1:
                raise KeyboardInterrupt
            return super().generate(seen, seconds, index)

    source = clip(tmp_path / "a.mp4", 300, 25)
    (tmp_path / "b.mp4").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        add_soundtrack(source, tmp_path / "b.mp4", Breaking())
    assert (tmp_path / "b.mp4").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 2


def test_length_costs_no_memory(tmp_path):
    """Five times the length takes no more memory: nothing holds a whole clip."""

    def peak(seconds: int) -> int:
        with av.open(str(tmp_path / "long.mp4"), "w") as out:
            stream = out.add_stream("libx264", rate=4, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for image in np.tile(pictures(48), (seconds // 12, 1, 1, 1)):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode(None))
        tracemalloc.start()
        made = add_soundtrack(
            tmp_path / "long.mp4", tmp_path / "out.mp4", Hum(8), SoundtrackOptions(channels=2)
        )
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert abs(lasts(made, "audio") - seconds) < 0.25
        return most

    add_soundtrack(clip(tmp_path / "a.mp4", 25, 25), tmp_path / "b.mp4", Hum())  # imports are no part of it
    short, long = peak(24), peak(120)
    assert long < 1.5 * short and long < 40 << 20


# -- generated clips -------------------------------------------------------------------------------------


def test_frames_in_memory_get_sound_of_their_length():
    frames = np.concatenate([np.full((20, 48, 64, 3), 30, np.uint8), np.full((20, 48, 64, 3), 220, np.uint8)])
    generator = Hum(8)
    sound = generate_soundtrack(frames, 8, generator)
    assert sound.rate == 16000 and sound.samples.shape == (1, 80000) and generator.windows == [2.5, 2.5]
    assert loudness(sound.samples, 16000) == pytest.approx(-16, abs=0.2)
    assert generate_soundtrack(frames[:1], 8, Hum(8)).samples.shape == (1, 2000)


class Humming(Conditioner):
    """Sets a sound when a clip is finished."""

    def finish(self, request, result):
        result.sound = generate_soundtrack(np.asarray(result.frames), result.fps, Hum(8))


def test_a_plugin_that_sets_sound_has_it_in_the_file(tiny, tmp_path):
    result = generate(tiny.request, [Humming()], model=tiny.model)
    assert isinstance(result.sound, Sound)
    made = media.write(tmp_path / "a.mp4", result.frames, result.fps, result.sound)
    length = len(result.frames) / result.fps
    assert abs(lasts(made, "audio") - lasts(made, "video")) < 1 / result.fps
    assert heard(made).shape[1] / 48000 == pytest.approx(length, abs=1 / result.fps)
    assert np.abs(heard(made)).max() > 0.1


def test_hy_generate_writes_a_plugins_sound(hy, tmp_path):
    (tmp_path / "beep.py").write_text(
        "from __future__ import annotations\n"
        "from hy_core import Conditioner, hookimpl\n"
        "from hy_core.request import Sound\n"
        "class Beep(Conditioner):\n"
        "    def finish(self, request, result):\n"
        "        import numpy as np\n"
        "        count = round(len(result.frames) / result.fps * 16000)\n"
        "        wave = 0.4 * np.sin(np.arange(count) / 16000 * 2 * np.pi * 500)\n"
        "        result.sound = Sound(wave[None].astype(np.float32), 16000)\n"
        "@hookimpl\n"
        "def register_conditioners(register):\n"
        "    register(Beep)\n"
    )
    out = tmp_path / "a.mp4"
    done = hy("generate", "a red circle", "-p", str(tmp_path / "beep.py"), "--steps", "1", "-o", str(out))
    assert done.exit_code == 0, done
    assert timeline.measure(out).sounds == 1
    assert pitch(heard(out)[0], 48000) == pytest.approx(500, abs=2)
    assert abs(lasts(out, "audio") - lasts(out, "video")) < 1 / 8
