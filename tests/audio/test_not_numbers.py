"""A clip whose own sound holds NaN or infinity: told in one line wherever it is heard, and early."""

from __future__ import annotations

import json

import numpy as np
import pytest
from audio.clips import lasts, not_numbers, tone
from hy_audio.metrics.measures import measure
from hy_audio.sound_files import write_sound
from hy_audio.soundtrack import add_soundtrack
from hy_audio.soundtrack_options import SoundtrackOptions
from hy_audio.stages import Bandwidth, Consistency, Presence
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_core.media import timeline

TOLD = r"the sound of .*a\.mkv has samples that are not numbers"


class AudioGenerator:
    """Noise, and how often it was made."""

    rate, seconds, samplers, made = 16000, 8.0, {}, 0

    def generate(self, seen, seconds, index):
        self.made += 1
        return 0.1 * np.random.default_rng(0).standard_normal((1, round(seconds * self.rate)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [48000, 16000])
def test_reading_ends_at_what_is_no_number(tmp_path, value, rate):
    path = not_numbers(tmp_path / "a.mkv", value)
    with pytest.raises(HyError, match=TOLD):
        list(timeline.sound(path, rate))
    before = np.concatenate(list(timeline.sound(path, rate, 1, (0.0, 1.0))), axis=1)
    assert before.shape == (1, rate) and np.isfinite(before).all() and before.max() > 0.2


def test_it_is_not_mixed_and_that_is_told_before_sound_is_made(tmp_path):
    path, generator = not_numbers(tmp_path / "a.mkv"), AudioGenerator()
    with pytest.raises(HyError, match=TOLD):
        add_soundtrack(path, tmp_path / "b.mkv", generator, SoundtrackOptions(existing="mix"))
    assert generator.made == 0 and not (tmp_path / "b.mkv").exists()
    for existing in ("replace", "keep"):
        target = add_soundtrack(
            path, tmp_path / f"{existing}.mkv", generator, SoundtrackOptions(existing=existing)
        )
        assert lasts(target, "video") == pytest.approx(2, abs=0.1)


def test_stages_reject_it_and_metrics_leave_it_out(tmp_path, hy):
    path = not_numbers(tmp_path / "a.mkv")
    for stage in (Presence(), Bandwidth(), Consistency()):
        (row,) = stage.run(ClipRecord(path))
        assert row.rejected.startswith(f"{stage.name}: the sound of") and "not numbers" in row.rejected
    with pytest.raises(HyError, match=TOLD):
        measure(path, {})
    write_sound(tmp_path / "good.wav", [tone(1)], 48000)
    done = hy("eval", "audio", str(tmp_path), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["files"] == 1
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert "not numbers" in line
