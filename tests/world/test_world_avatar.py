"""`hy eval world --task avatar`: characters that follow speech, an actor's face and a dancer's body."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner
from hy_avatar.config import AvatarConfig
from hy_core.errors import HyError, UsageError
from hy_world import avatar
from hy_world.avatar import measure, pose_file
from hy_world.characters_geometry import truth
from hy_world.characters_render import render_stage
from hy_world.evaluate import command
from hy_world.sources.characters import sample_talking
from hy_world.tasks import EvalRequest


@dataclass(frozen=True)
class Played(EvalRequest):
    """Clips from a function of the stage that should be shown, in place of a network's."""

    play: object = None
    stages: list = None

    def make(self, prompts, options=()):
        # The last that portraits were made of; the second time of one part, others speak.
        stages, again = self.stages[-self.count :], len(options) and options[0]["image"] in SEEN
        SEEN.update(one["image"] for one in options)
        for index, (stage, one) in enumerate(zip(stages, options, strict=True)):
            assert all(path.exists() for key in one for path in np.atleast_1d(one[key]) if key != "pose_fit")
            yield self.play(stages[index - 1] if self.wrong else stage, stages[index - 1] if again else stage)

    wrong: bool = False


SEEN = set()


def reports(monkeypatch, play, count=8, wrong=False):
    stages, real = [], avatar.portrait
    monkeypatch.setattr(avatar, "portrait", lambda rng, stage: stages.append(stage) or real(rng, stage))
    SEEN.clear()
    asked = Played(None, ["combinations"], count, 17, 64, 64, play=play, stages=stages, wrong=wrong)
    found = {report.extra["driven"]: report for report in measure(asked)}
    assert list(found) == ["speech", "expression", "pose", "pose and expression"]
    json.dumps([report.to_json() for report in found.values()])
    return {
        name: ({line.attribute: line for line in report.lines}, report.extra)
        for name, report in found.items()
    }


def spoken(stage, speaker):
    """The stage as it should be, with the mouth of another."""
    (one,) = stage.characters
    mouth = speaker.characters[0].performance.mouth
    acted = replace(one, performance=replace(one.performance, mouth=mouth))
    return render_stage(replace(stage, characters=(acted,)), 64, 64)


def test_true_clips_are_right_in_everything(monkeypatch):
    found = reports(monkeypatch, spoken)
    lines, figures = found["speech"]
    assert figures["mouth_correlation"] == figures["real_mouth_correlation"] > 0.95
    assert figures["mouth_shuffled"] < 0.4
    assert figures["change_outside"] < 1e-3 * figures["change_inside"]
    assert lines["mouth"].made.rate == 1 and lines["mouth"].base < 0.5
    for name, wanted in (("expression", {"expression"}), ("pose", {"joints"})):
        lines, _ = found[name]
        assert set(lines) == wanted | {"identity", "background"}
        for line in lines.values():
            assert line.made == line.real and line.made.rate > 0.8, line
    assert found["pose"][0]["joints"].base < 0.9
    lines, _ = found["pose and expression"]
    assert set(lines) == {"expression", "joints", "identity", "background"}
    assert all(line.made.rate > 0.7 for line in lines.values())


def test_other_clips_are_right_by_chance_only(monkeypatch):
    found = reports(monkeypatch, lambda stage, speaker: render_stage(stage, 64, 64), wrong=True)
    assert found["speech"][1]["mouth_correlation"] < 0.4
    assert found["speech"][0]["identity"].made.rate < 0.3
    assert found["pose"][0]["joints"].made.rate < 0.95 < found["pose"][0]["joints"].real.rate
    assert found["expression"][0]["expression"].made.rate < 0.7


def test_a_pose_file_is_read_as_one():
    pose = pytest.importorskip("hy_avatar.pose")
    clip_features = pytest.importorskip("hy_avatar.clip_features")
    stage, _ = sample_talking(np.random.default_rng(3), "train", 9, "upper")
    real = truth(stage, 48, 64)
    known = {
        "joints": np.stack([one.joints for one in real]),
        "visible": np.stack([one.visible for one in real]),
        "landmarks": np.stack([one.landmarks for one in real]),
        "fps": stage.fps,
    }
    wanted = clip_features.pose_track(known, 48, 64)
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(pose_file(stage, 48, 64)))
        track = pose.load(path)
    assert track.fps == 8 and track.aspect == pytest.approx(4 / 3)
    np.testing.assert_allclose(track.points[:, :, :18], wanted.points[:, :, :18], atol=1e-6)
    np.testing.assert_allclose(track.points[:, :, 24:92], wanted.points[:, :, 24:92], atol=1e-6)


SMALL = ("--task", "avatar", "--size", "32x32", "--frames", "9", "--steps", "1", "--count", "2", "--json")


@pytest.fixture
def run(tiny, monkeypatch):
    from hy_core import models
    from hy_core.plugins import installed

    monkeypatch.setattr(models, "load", lambda name, *_: tiny.model)

    def run(*arguments):
        installed.cache_clear()
        result = CliRunner().invoke(command, [*SMALL, *arguments])
        if isinstance(result.exception, HyError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    yield run
    installed.cache_clear()


def own_weights(path, **config):
    from hy_avatar import network
    from hy_core.testing.tiny import Tiny
    from hy_core.weights import save_port_weights

    made, dit = AvatarConfig(**config), Tiny().dit
    network.attach_modules(dit, "avatar", made)
    save_port_weights(dit, "avatar", path, {"config": json.dumps(made.to_json())})
    return path


def test_a_model_with_an_avatar_is_measured(run, tmp_path):
    pytest.importorskip("cv2")
    from hy_avatar.config import Expression, Speech

    speech = Speech(layers=1, channels=20, hidden=8, inner=8, encoder="mel")
    everything = {"speech": speech, "expression": Expression(hidden=8, tokens=2, inner=8), "pose": "guided"}
    own_weights(tmp_path / "all.safetensors", **everything)
    summary = run("--option", f"weights={tmp_path / 'all.safetensors'}")
    assert [group["driven"] for group in summary["groups"]] == [
        "speech", "expression", "pose", "pose and expression",
    ]  # fmt: skip
    first = summary["groups"][0]
    assert first["count"] == 2 and first["real_mouth_correlation"] > 0.8
    assert first["attributes"]["identity"]["total"] == 2
    own_weights(tmp_path / "speech.safetensors", speech=speech)
    only = run("--option", f"weights={tmp_path / 'speech.safetensors'}")
    assert [group["driven"] for group in only["groups"]] == ["speech"]


def test_a_model_without_one_is_one_line(run, tmp_path):
    with pytest.raises(HyError, match="no avatar in it"):
        run()
    own_weights(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="follows no speech"):
        run("--option", f"weights={tmp_path / 'none.safetensors'}")
