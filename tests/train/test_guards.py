"""What a run does when a step, a disk, a process or the user goes wrong, and how it continues."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from hy_core.errors import HyError, MemoryLimitError, UsageError
from hy_core.training import Objective
from hy_train import recipe
from hy_train.checkpoints import AtomicCheckpointIO, kept
from hy_train.fit import EVENTS, run
from hy_train.guard import LossHistory, batch_number
from hy_train.launch import check_world, lost_process_in_one_line
from hy_train.loggers import make_loggers
from torch import nn

SETTINGS = {
    "objective": "line",
    "steps": 8,
    "batch": 3,
    "save_every": 2,
    "optim": {"warmup": 0, "decay": "constant", "lr": 0.01, "name": "adamw"},
}


class Line(Objective):
    """Four numbers from four; batches of `bad` numbers are not finite, those of `huge` give huge losses."""

    bad: set = set()
    huge: set = set()
    at_step = None

    def __init__(self, settings, folder):
        super().__init__(settings, folder)
        torch.manual_seed(0)
        self.model = nn.Linear(4, 4)
        self.seen = []

    def batch(self, step, rank=0, ranks=1):
        if self.at_step is not None:
            self.at_step(step)
        batch = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        return batch, step

    def loss(self, batch, generator):
        batch, number = batch
        self.seen.append(number)
        scale = float("nan") if number in self.bad else 1e4 if number in self.huge else 1.0
        return (self.model(batch) * scale - batch).square().mean(), {}

    def export(self, folder):
        folder.mkdir(exist_ok=True)


def line(folder, objective=None, minutes=None, **changes):
    settings = recipe.parse({**SETTINGS, **changes})
    objective = objective or Line(settings, folder)
    objective.recipe = settings
    return objective, run(settings, objective, folder, minutes, quiet=True)


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def made(**attributes):
    objective = Line(recipe.parse({**SETTINGS}), None)
    for name, value in attributes.items():
        setattr(objective, name, value)
    return objective


def equal(first, second):
    one, two = weights(first)["state_dict"], weights(second)["state_dict"]
    return all(torch.equal(one[key], two[key]) for key in one)


def test_a_nan_goes_back_to_the_last_checkpoint_and_leaves_out_the_batch(tmp_path, capsys):
    objective, report = line(tmp_path / "nan", made(bad={5}))
    assert report["step"] == 8
    assert objective.seen == [0, 1, 2, 3, 4, 5, 4, 6, 7, 8]  # the checkpoint was of step 4
    assert "loss is nan at step 5" in capsys.readouterr().err
    (event,) = map(json.loads, (tmp_path / "nan" / EVENTS).read_text().splitlines())
    assert "batch 5 is left out" in event["line"]
    # What comes of it is what comes of a run that never had the batch.
    line(tmp_path / "never", made(batch=lambda step, rank, ranks: Line.batch(objective, step + (step >= 5))))
    assert equal(tmp_path / "nan", tmp_path / "never")
    # And a later part of the run leaves it out too.
    assert weights(tmp_path / "nan")["hy_train"]["skipped"] == [5]


def test_a_spike_is_a_bad_step_and_a_slow_rise_is_none():
    history = LossHistory(10.0)
    assert all(history.problem(1.0 + 0.01 * step, "loss", step) is None for step in range(40))
    assert "jumps to 20" in history.problem(20.0, "loss", 40)
    assert history.problem(5.0, "loss", 41) is None
    assert LossHistory(0, [1.0] * 64).problem(1e9, "loss", 0) is None
    assert "nan" in LossHistory(0).problem(float("nan"), "loss", 0)


def test_a_spike_in_a_run_is_left_out(tmp_path):
    objective, report = line(tmp_path, made(huge={40}), steps=44, save_every=8)
    assert report["step"] == 44 and objective.seen.count(40) == 1 and objective.seen[-1] == 44


def test_a_run_that_stays_bad_ends_in_one_line_with_the_last_good_checkpoint(tmp_path):
    with pytest.raises(HyError, match="loss is nan at step 5") as error:
        line(tmp_path, made(bad=set(range(5, 99))))
    assert "optim.lr" in error.value.hint and "\n" not in str(error.value)
    kept_state = weights(tmp_path)
    assert kept_state["global_step"] == 4 and all(
        v.isfinite().all() for v in kept_state["state_dict"].values()
    )


def test_a_shard_that_cannot_be_read_ends_the_run_in_one_line_with_the_last_good_checkpoint(tmp_path):
    def damaged(step):
        if step == 5:
            raise HyError("latents/a.safetensors is damaged", "remove it")

    with pytest.raises(HyError, match="^latents/a.safetensors is damaged$"):
        line(tmp_path / "parts", made(at_step=damaged))
    assert weights(tmp_path / "parts")["global_step"] == 4
    line(tmp_path / "parts")
    line(tmp_path / "whole")
    assert equal(tmp_path / "parts", tmp_path / "whole")


def test_without_an_average_the_weights_are_exported_and_none_is_kept(tmp_path):
    seen = []
    objective = made(
        export=lambda folder: seen.append({k: v.clone() for k, v in objective.model.state_dict().items()})
    )
    line(tmp_path, objective, ema=0)
    state = weights(tmp_path)
    assert state["callbacks"]["Average"]["average"] == {}
    assert torch.equal(seen[-1]["weight"], state["state_dict"]["model.weight"])


def test_numbers_of_batches_pass_over_those_that_are_left_out():
    assert [batch_number(step, {2, 3, 6}) for step in range(6)] == [0, 1, 4, 5, 7, 8]


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(tmp_path):
    path, writer = tmp_path / "last.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint({"value": torch.ones(4)}, path)
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        with pytest.raises(HyError, match="cannot write .*last.ckpt") as error:
            writer.save_checkpoint({"value": torch.ones(1 << 20)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_is_written_in_the_folder_of_the_run(tmp_path, monkeypatch):
    """Written in another file system and copied, it was a file of 0 bytes when the run was killed meanwhile."""
    renamed = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: renamed.append((str(a), str(b))) or replace(a, b))
    AtomicCheckpointIO().save_checkpoint({"value": 1}, tmp_path / "last.ckpt")
    (source, target), *others = renamed
    assert not others and target == str(tmp_path / "last.ckpt") and source.startswith(str(tmp_path))


def test_checkpoints_are_kept_by_rule(tmp_path):
    line(tmp_path, steps=12, save_every=1, keep_last=2, keep_every=5)
    steps = [torch.load(path, weights_only=True)["global_step"] for path in kept(tmp_path)]
    assert steps == [5, 10, 11, 12]
    assert os.path.samefile(kept(tmp_path)[-1], tmp_path / "last.ckpt")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_and_the_run_continues(tmp_path, number):
    line(tmp_path / "whole", save_every=100)
    objective = made(at_step=lambda step: step == 5 and os.kill(os.getpid(), number))
    _, report = line(tmp_path / "parts", objective, save_every=100)
    assert (
        report["stopped"] == number.name
        and 3 <= report["step"] < 8
        and "export" not in os.listdir(tmp_path / "parts")
    )
    assert weights(tmp_path / "parts")["global_step"] == report["step"]
    line(tmp_path / "parts", save_every=100)
    assert equal(tmp_path / "whole", tmp_path / "parts")


def test_minutes_count_from_the_start_of_each_part(tmp_path):
    steps = [
        line(tmp_path, made(at_step=lambda _: time.sleep(0.02)), minutes=1e-4, steps=60)[1]["step"]
        for _ in range(3)
    ]
    assert 0 < steps[0] < steps[1] < steps[2]


def test_settings_of_the_optimiser_count_on_a_resume(tmp_path):
    line(tmp_path, steps=4)
    line(tmp_path, steps=8, optim={**SETTINGS["optim"], "lr": 1e-4, "weight_decay": 0.5})
    (state,) = weights(tmp_path)["optimizer_states"]
    assert {group["lr"] for group in state["param_groups"]} == {1e-4}
    assert state["param_groups"][0]["weight_decay"] == 0.5
    with pytest.raises(UsageError, match="another optimiser"):
        line(tmp_path, optim={**SETTINGS["optim"], "name": "muon"})


def test_another_number_of_processes_is_refused_unless_batches_make_up_for_it(tmp_path):
    line(tmp_path, steps=4, accumulate=2)
    with pytest.raises(UsageError, match="was with 2 batches a step") as error:
        line(tmp_path)
    assert "accumulate=2" in error.value.hint


def test_accumulation_continues_where_it_was(tmp_path):
    line(tmp_path / "whole", accumulate=2, steps=8, save_every=100)
    line(tmp_path / "parts", accumulate=2, steps=3, save_every=100)
    line(tmp_path / "parts", accumulate=2, steps=8, save_every=100)
    assert equal(tmp_path / "whole", tmp_path / "parts")


def test_short_runs_are_logged_for_tensorboard_and_as_csv(tmp_path):
    line(tmp_path, steps=3)
    with open(tmp_path / "log" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(float(row["loss"]) > 0 and float(row["samples_per_s"]) > 0 for row in rows)
    assert all(0 <= float(row["data_wait"]) < 1 for row in rows)
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))


def test_loggers_are_checked(tmp_path):
    with pytest.raises(UsageError, match="no logger of the recipe"):
        make_loggers(recipe.parse({**SETTINGS, "logger_options": {"wandb": {}}}), tmp_path)
    with pytest.raises(HyError, match="loggers: 'nowhere'"):
        make_loggers(recipe.parse({**SETTINGS, "loggers": ["nowhere"]}), tmp_path)
    with pytest.raises(UsageError, match="logger_options.csv"):
        make_loggers(recipe.parse({**SETTINGS, "logger_options": {"csv": {"colour": 1}}}), tmp_path)


def test_the_bar_starts_where_the_run_continues(tmp_path, monkeypatch):
    from hy_train.progress import StepBar

    seen = []
    start = StepBar.on_train_start
    monkeypatch.setattr(
        StepBar, "on_train_start", lambda bar, *more: (start(bar, *more), seen.append(bar.completed))
    )
    for steps in (4, 8):
        settings = recipe.parse({**SETTINGS, "steps": steps})
        run(settings, Line(settings, tmp_path), tmp_path)
    assert seen == [0, 4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "half"}, "precision = 'half': unknown"),
        ({"precision": "16-mixed"}, "needs a GPU"),
        ({"nodes": 2}, "nodes = 2"),
        ({"batch": 0}, "batch"),
        ({"devices": 0}, "devices"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what is refused differs")
def test_values_that_cannot_work_are_one_line(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words) as error:
        line(tmp_path, **changes)
    assert "unexpected" not in str(error.value)


def test_a_launcher_that_starts_another_number_of_processes_is_refused():
    settings = recipe.parse(SETTINGS)
    check_world(settings, {})
    check_world(settings, {"LOCAL_RANK": "0", "WORLD_SIZE": "1"})
    with pytest.raises(UsageError, match="devices = 1 and nodes = 1, but 2 processes") as error:
        check_world(settings, {"LOCAL_RANK": "0", "WORLD_SIZE": "2"})
    assert "devices=2" in error.value.hint


def test_a_process_that_is_gone_is_one_line():
    with pytest.raises(HyError, match="another process of this run is gone"), lost_process_in_one_line(2):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    with pytest.raises(RuntimeError, match="shapes"), lost_process_in_one_line(2):
        raise RuntimeError("shapes differ")


def test_one_run_at_a_time_in_a_folder(tmp_path):
    errors = []

    def second(step):
        if step == 1 and not errors:
            thread = threading.Thread(target=lambda: errors.append(attempt()))
            thread.start()
            thread.join()

    def attempt():
        try:
            line(tmp_path)
        except UsageError as error:
            return error
        return None

    line(tmp_path, made(at_step=second))
    assert "another process trains" in str(errors[0])


def test_the_largest_batch_is_tried_before_the_first_step(tmp_path):
    """Peers' users met memory that ran out hours into a run, when the rare largest bucket came."""
    objective = made(largest_batch=lambda: (torch.zeros(3, 4), "largest"))
    line(tmp_path / "fits", objective)
    assert objective.seen[:2] == ["largest", 0]
    line(tmp_path / "without")
    assert equal(tmp_path / "fits", tmp_path / "without")

    def full(batch, generator):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryLimitError, match="largest batch"):
        line(tmp_path / "full", made(largest_batch=lambda: (torch.zeros(3, 4), 0), loss=full))


FLAGS = [
    "eval_every=0", "model.channels=[4,4,4,4]", "model.groups=2", "model.latent_channels=4", "data.size=32",
    "data.frames=5", "data.phases=[{until = 1.0, crop = 16, frames = [1, 5]}]", "threads=1",
]  # fmt: skip


def command(folder, *sets):
    start = [sys.executable, "-m", "hy_core", "train", "pocket-vae", "-q", "--json", "--out", str(folder)]
    return [*start, *(part for one in (*FLAGS, *sets) for part in ("--set", one))]


@pytest.mark.slow
def test_kill_9_at_any_moment_and_the_same_curve_bit_for_bit(tmp_path):
    sets = ("steps=14", "save_every=1")
    subprocess.run(command(tmp_path / "whole", *sets), check=True, capture_output=True)
    killed = 0
    for wait in (0.0, 0.05):
        process = subprocess.Popen(
            command(tmp_path / "parts", *sets), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        before = (
            weights(tmp_path / "parts")["global_step"] if (tmp_path / "parts" / "last.ckpt").exists() else 0
        )
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            if (tmp_path / "parts" / "last.ckpt").exists() and weights(tmp_path / "parts")[
                "global_step"
            ] > before + 2:
                time.sleep(wait)
                process.kill()
                killed += 1
                break
            time.sleep(0.01)
        process.communicate()
        assert weights(tmp_path / "parts")["global_step"] > 0  # never a damaged file
    assert killed == 2
    subprocess.run(command(tmp_path / "parts", *sets), check=True, capture_output=True)
    assert equal(tmp_path / "whole", tmp_path / "parts")
    one, two = (weights(tmp_path / name)["optimizer_states"][0]["state"] for name in ("whole", "parts"))
    for key, state in one.items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(two[key][name])) for name, v in state.items()
        )


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_in_one_line(tmp_path):
    sets = ("steps=5000", "devices=2", "save_every=1000")
    process = subprocess.Popen(
        command(tmp_path, *sets), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children, deadline = [], time.monotonic() + 100
    while len(children) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
        children = found.stdout.split()
    while not list(tmp_path.glob("log/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=100)
    assert process.returncode not in (0, 130)
    assert "process 1 of 2 ended with SIGKILL" in err and "Traceback" not in err


@pytest.mark.slow
def test_torchrun_with_one_device_is_refused(tmp_path):
    environment = {**os.environ, "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}
    done = subprocess.run(command(tmp_path, "steps=2"), capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "2 processes were started" in done.stderr
