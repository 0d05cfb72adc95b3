"""`hy train lora` and `hy train full`: from a folder of clips to files that `hy generate` loads."""

from __future__ import annotations

import json
import shlex
import tomllib

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hy_core import media, models
from hy_core.cli import cli
from hy_core.errors import HyError, MemoryLimitError, UsageError
from hy_core.models import Defaults
from hy_train import recipe
from hy_train.fit import run
from hy_train.objectives import find
from hy_train.own.clips import ClipFile, Scanned, shapes
from hy_train.own.memory import memory
from hy_train.own.plan import Wishes, make
from hy_train.own.recipe_file import dumps
from safetensors.torch import load_file

SMALL = ("--resolution", "32x32", "--batch", "2", "--prior", "none", "--rank", "4", "-q")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four clips and a picture, with captions."""
    folder = tmp_path_factory.mktemp("own") / "my-clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        frames = np.full((9, 32, 48, 3), 40 * number, np.uint8)
        for index, frame in enumerate(frames):
            frame[8:24, 4 * index : 4 * index + 8] = rng.integers(0, 255, 3)
        media.write(folder / f"{number}.mp4", frames, 8.0)
        (folder / f"{number}.txt").write_text(f"a zorb of kind {number} moves right\n")
    media.write(folder / "still.png", frames[:1], 1.0)
    (folder / "still.txt").write_text("a zorb\n")
    return folder


def hy(*arguments):
    result = CliRunner().invoke(cli, [str(one) for one in arguments])
    return result, result.output


def test_a_folder_becomes_an_adapter_that_generate_loads(clips, tmp_path):
    out = tmp_path / "run"
    result, text = hy("train", "lora", clips, "-o", out, "--steps", 3, *SMALL, "--prompt", "a zorb moves")
    assert result.exit_code == 0, text
    assert "4 videos and 1 pictures" in text and "memory     about" in text
    command = shlex.split(result.stdout.strip().splitlines()[-1])
    assert command[:3] == ["hy", "generate", "a zorb moves"] and command[3] == "--lora"
    made = {path.name for path in (out / "export").iterdir()}
    names = ("", "-diffusers", "-comfyui", "-kohya", "-official")
    assert made == {f"my-clips-lora{name}.safetensors" for name in names}
    assert media.read(sorted((out / "previews").glob("*.png"))[-1]).frames.shape[0] == 1
    report = json.loads((out / "report.json").read_text())
    assert report["step"] == 3 and "loss_0.5" in report
    base = models.load("pocket").dit.state_dict()
    changed = models.load("pocket", lora=command[4]).dit.state_dict()
    assert sum(not torch.equal(base[key], changed[key]) for key in base) > 20
    state = torch.load(out / "last.ckpt", weights_only=True)["state_dict"]
    assert state and all(".adapter." in key for key in state), "a checkpoint holds the adapter alone"
    # the recipe that the command wrote is one for `hy train`
    result, text = hy("train", out / "recipe.toml", "--dry-run")
    assert result.exit_code == 0 and "objective: finetune" in text
    # the same command is done; another rank would be another run
    result, text = hy("train", "lora", clips, "-o", out, "--steps", 3, *SMALL, "--rank", 8)
    assert result.exit_code and "another options" in str(result.exception)


def table_of(clips, **changes):
    wishes = {"size": (32, 32), "batch": 2, "prior": "none", "rank": 4, "steps": 4, "targets": ("blocks",)}
    table = dict(make(clips, Wishes(**{**wishes, **changes})).table)
    table["options"] = {**table["options"], "previews": []}
    table["optim"] = {**table["optim"], "decay": "constant", "warmup": 1}
    return table


def train(table, folder, **changes):
    loaded = recipe.parse({**table, **changes})
    return run(loaded, find(loaded)(loaded, folder), folder, quiet=True)


@pytest.mark.parametrize("kind", ["dora", "bottleneck"])
def test_a_stopped_run_resumes_exactly(clips, tmp_path, kind):
    table = {**table_of(clips, kind=kind), "data": {**table_of(clips)["data"], "cache": str(tmp_path / "c")}}
    train(table, tmp_path / "once")
    train(table, tmp_path / "twice", steps=2)
    train(table, tmp_path / "twice")
    name = f"my-clips-{kind}.safetensors"
    one, two = (load_file(tmp_path / part / "export" / name) for part in ("once", "twice"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_that_a_signal_ended_names_no_result(clips, tmp_path, monkeypatch):
    from hy_train.own import command

    monkeypatch.setattr(command, "_train", lambda *_: {"step": 2, "seconds": 1.0, "stopped": "SIGINT"})
    result, text = hy("train", "lora", clips, "-o", tmp_path, "--steps", 3, *SMALL)
    assert result.exit_code == 0 and "the same command resumes" in text and "hy generate" not in text
    result, text = hy("train", "lora", clips, "-o", tmp_path, "--steps", 3, *SMALL, "--json")
    assert json.loads(result.stdout)["result"] is None


def test_the_whole_dit_becomes_a_model_folder(clips, tmp_path):
    train(table_of(clips, kind=""), tmp_path, steps=1)
    found = models.find(str(tmp_path / "export"))
    assert found.dit.is_file() and found.layout == "pocket"


def test_checkpoints_of_another_adapter_are_refused(clips, tmp_path):
    table = table_of(clips, targets=("attention",))
    train(table, tmp_path, steps=1)
    wider = {**table, "options": {**table["options"], "targets": ["all"]}}
    with pytest.raises(HyError, match="the checkpoint has no"):
        train(wider, tmp_path, steps=2)


def test_clips_without_captions_are_an_error_that_names_hy_data(clips, tmp_path):
    media.write(tmp_path / "bare.png", np.zeros((1, 32, 32, 3), np.uint8), 1.0)
    with pytest.raises(UsageError, match="1 of 1 clips have no caption, such as bare.png") as found:
        make(tmp_path, Wishes(prior="none"))
    assert "hy data run" in found.value.hint


def test_held_out_clips_are_measured_and_not_trained_on(tmp_path):
    for number in range(12):
        media.write(tmp_path / f"{number}.png", np.full((1, 32, 32, 3), 20 * number, np.uint8), 1.0)
        (tmp_path / f"{number}.txt").write_text(f"a zorb {number}\n")
    table = table_of(tmp_path)
    assert table["data"]["sources"]["folder"]["heldout"] > 0
    report = train({**table, "name": "x"}, tmp_path / "run", steps=1)
    assert "heldout_loss_0.5" in report
    loaded = recipe.parse(table)
    objective = find(loaded)(loaded, tmp_path / "run")
    objective.prepare()
    trained = {str(one.file) for one in objective.latents.clips(0, range(len(objective.sources[0])))}
    held = {str(one.file) for one in objective.latents.clips(1, range(len(objective.heldout)))}
    assert held and trained and not held & trained and len(held | trained) == 12


def test_prior_clips_are_half_of_all_rows(clips):
    buckets = make(clips, Wishes(size=(32, 32))).table["data"]["buckets"]
    assert buckets[-1]["source"] == "world"
    assert buckets[-1]["sampling_weight"] == pytest.approx(
        sum(one["sampling_weight"] for one in buckets[:-1]), abs=1e-3
    )
    with pytest.raises(UsageError, match="no dataset 'wolrd'"):
        make(clips, Wishes(size=(32, 32), prior="wolrd"))


def test_buckets_follow_lengths_and_shapes_of_the_clips(tmp_path):
    def clip(width, height, seconds):
        return ClipFile(tmp_path, width, height, 24.0, seconds, "x")

    files = (*[clip(1920, 1080, 6.0)] * 3, clip(1080, 1920, 6.0), clip(1920, 1080, 1.0), clip(640, 360, 0))
    found = shapes(Scanned(tmp_path, files), Defaults(), 24.0, None, None)
    assert {(one.frames, one.files) for one in found} == {(129, 3), (129, 1), (21, 1), (1, 1)}
    wide = found[0]
    assert wide.files == 3 and wide.width / wide.height == pytest.approx(16 / 9, rel=0.05)
    assert wide.width * wide.height == pytest.approx(1280 * 720, rel=0.05)
    (only,) = shapes(Scanned(tmp_path, files[:3]), Defaults(), 24.0, (512, 320), 33)
    assert (only.frames, only.width, only.height) == (33, 512, 320)
    with pytest.raises(UsageError, match="no clip has 201 frames"):
        shapes(Scanned(tmp_path, files[:5]), Defaults(), 24.0, None, 201)


def test_memory_is_planned_before_anything_is_loaded(clips, monkeypatch):
    dit, vae = models.configs(models.find("pocket"))
    one = memory(dit, vae, (17, 64, 64), 1, 1000, False, 4, False)
    eight = memory(dit, vae, (17, 64, 64), 8, 1000, False, 4, False)
    less = memory(dit, vae, (17, 64, 64), 8, 1000, False, 4, True)
    assert eight.activations == 8 * one.activations > less.activations and eight.weights == one.weights
    monkeypatch.setattr("hy_train.own.plan.free_memory", lambda device: 1 << 20)
    with pytest.raises(MemoryLimitError, match="not enough memory"):
        make(clips, Wishes(prior="none"))


def test_recipes_survive_being_written():
    table = {
        "name": 'a "quoted" \\ name\n\x7f\u2028é',
        "steps": 3,
        "lr": 2e-05,
        "on": True,
        "list": ["a", "b"],
        "empty": {},
        "data": {
            "sources": {"with space": {"x": 1.5}},
            "buckets": [{"frames": 1, "options": {"path": "/x"}}],
        },
    }
    assert tomllib.loads(dumps(table)) == table
