from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hy_core.errors import HyError, UsageError
from hy_train import recipe
from hy_train.fit import run
from hy_train.objectives.vae import VAEObjective

TINY = {
    "objective": "vae",
    "steps": 6,
    "batch": 2,
    "threads": 1,
    "save_every": 2,
    "plugins": ["world"],
    "model": {"channels": [4, 4, 4, 4], "layers": 1, "groups": 2, "latent_channels": 4},
    "optim": {"warmup": 2},
    "data": {
        "source": "world",
        "size": 32,
        "frames": 5,
        "phases": [{"until": 1.0, "crop": 16, "frames": [1, 5]}],
    },
}


def vae(folder, **changes):
    settings = recipe.parse({**TINY, **changes})
    return settings, VAEObjective(settings, folder), folder


def tiny_flags(**changes):
    """The command-line flags that make a built-in recipe a tiny one."""
    sets = {
        "eval_every": 0,
        "model.channels": [4, 4, 4, 4],
        "model.groups": 2,
        "model.latent_channels": 4,
        "data.size": 32,
        "data.frames": 5,
        "data.phases": "[{until = 1.0, crop = 16, frames = [1, 5]}]",
        **changes,
    }
    return [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_in_two_parts_equals_one_run(tmp_path):
    run(*vae(tmp_path / "whole"), quiet=True)
    run(*vae(tmp_path / "parts", steps=3, optim={"warmup": 2, "decay": "constant"}), quiet=True)
    run(*vae(tmp_path / "parts", optim={"warmup": 2, "decay": "constant"}), quiet=True)
    run(*vae(tmp_path / "constant", optim={"warmup": 2, "decay": "constant"}), quiet=True)
    once, twice = weights(tmp_path / "constant"), weights(tmp_path / "parts")
    assert all(torch.equal(once[key], twice[key]) for key in once)
    decayed = weights(tmp_path / "whole")
    assert not all(torch.equal(once[key], decayed[key]) for key in once), "the schedule must matter"


def test_what_was_learnt_is_exported_averaged_and_loads(tmp_path):
    from hy_train.objectives.vae import read_vae

    report = run(*vae(tmp_path), quiet=True)
    assert report["step"] == 6 and report["psnr"] > 0
    loaded = read_vae(tmp_path / "export")
    average = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Average"]["average"]
    key = "decoder.conv_out.conv.weight"
    torch.testing.assert_close(loaded.state_dict()[key], average[key].half().float())
    assert not torch.equal(average[key], weights(tmp_path)[f"model.{key}"])
    assert loaded.config.scaling == pytest.approx(1 / report["latent_std"], rel=0.5)


def test_a_decoder_alone_is_trained_under_the_latents_of_before(tmp_path):
    from hy_train.objectives.vae import read_vae

    run(*vae(tmp_path / "both"), quiet=True)
    settings = {
        "options": {"decoder_only": True},
        "init_from": str(tmp_path / "both/export"),
    }
    run(*vae(tmp_path / "decoder", **settings), quiet=True)
    before, after = (read_vae(tmp_path / name / "export") for name in ("both", "decoder"))
    assert before.config.scaling == after.config.scaling
    changed = {k for k, v in before.state_dict().items() if not torch.equal(v, after.state_dict()[k])}
    assert changed and all(key.startswith(("decoder.", "post_quant_conv.")) for key in changed)


def test_another_model_in_the_same_folder_is_refused(tmp_path):
    run(*vae(tmp_path), quiet=True)
    with pytest.raises(UsageError, match="another model"):
        run(*vae(tmp_path, model={**TINY["model"], "groups": 1}), quiet=True)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(tmp_path):
    settings, objective, folder = vae(tmp_path)
    with torch.no_grad():
        objective.model.decoder.conv_out.conv.bias.fill_(float("nan"))
    with pytest.raises(HyError, match="loss is nan at step 0"):
        run(settings, objective, folder, quiet=True)


@pytest.mark.slow
def test_two_processes_train_one_model_on_different_batches(tmp_path):
    command = [sys.executable, "-m", "hy_core", "train", "pocket-vae", "-q", "--json", "--out", str(tmp_path)]
    out = subprocess.run(
        [*command, *tiny_flags(steps=3, devices=2)], check=True, capture_output=True, text=True
    )
    (line,) = out.stdout.splitlines()
    assert json.loads(line)["step"] == 3
    _, objective, _ = vae(tmp_path / "alone")
    first, second = (objective.batch(0, rank, 2) for rank in (0, 1))
    assert first.shape != second.shape or not torch.equal(first, second)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    command = [sys.executable, "-m", "hy_core", "train", "pocket-vae", "-q", "--out", str(tmp_path)]
    command += tiny_flags(steps=40, save_every=1)
    first = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < before < 40
    subprocess.run(command, check=True)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 40


def test_the_log_is_a_table_for_each_part_of_a_run(tmp_path):
    def rows(name):
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            return [
                {key: value for key, value in row.items() if key not in ("samples_per_s", "data_wait")}
                for row in csv.DictReader(file)
            ]

    run(*vae(tmp_path, steps=12), quiet=True)
    first = rows("log")
    assert first and float(first[0]["loss"]) > 0
    run(*vae(tmp_path, steps=24), quiet=True)
    assert rows("log") == first and int(rows("log-2")[0]["step"]) > int(first[-1]["step"])
    (tmp_path / "last.ckpt").unlink()
    run(*vae(tmp_path, steps=12), quiet=True)
    assert rows("log") == first  # from the beginning again
