"""Layers that join the training one after the other."""

from __future__ import annotations

import pytest
import torch
from hy_core.errors import UsageError
from hy_core.training import Objective
from hy_train import recipe
from hy_train.fit import run
from hy_train.recipe import Unfreeze
from hy_train.unfreeze import Unfreezing, schedule
from torch import nn

GROUPS = [{"layers": ["last"], "at": 0.0}, {"layers": ["first.*"], "at": 0.5}]
TABLE = {
    "objective": "toy",
    "steps": 6,
    "batch": 4,
    "save_every": 1,
    "ema": 0.5,
    "optim": {"warmup": 0, "decay": "constant", "weight_decay": 0.5},
}


class Toy(Objective):
    """Two layers that are trained, and one between them that no group names."""

    def __init__(self, settings, folder):
        super().__init__(settings, folder)
        torch.manual_seed(0)
        self.model = nn.ModuleDict(
            {"first": nn.Linear(4, 4), "middle": nn.Linear(4, 4), "last": nn.Linear(4, 4, bias=False)}
        )
        self.seen = []

    def batch(self, step, rank=0, ranks=1):
        return torch.randn(self.recipe.batch, 4, generator=torch.Generator().manual_seed(step))

    def loss(self, batch, generator):
        named = self.model.named_parameters()
        self.seen.append({name for name, weight in named if weight.requires_grad})
        out = self.model["last"](self.model["middle"](self.model["first"](batch)))
        return (out - batch.flip(1)).square().mean(), {}

    def export(self, folder):
        folder.mkdir(exist_ok=True)


def train(folder, **changes):
    settings = recipe.parse({**TABLE, "unfreeze": GROUPS, **changes})
    objective = Toy(settings, folder)
    run(settings, objective, folder, quiet=True)
    return objective, torch.load(folder / "last.ckpt", weights_only=True)


def test_a_group_is_trained_from_its_step_on_and_the_rest_never(tmp_path):
    start = Toy(recipe.parse(TABLE), tmp_path).model.state_dict()
    half, _ = train(tmp_path / "half", steps=6, unfreeze=[GROUPS[0], {**GROUPS[1], "at": 1.0}])
    for name, weight in half.model.state_dict().items():
        assert torch.equal(weight, start[name]) == (name != "last.weight"), name
    whole, state = train(tmp_path / "whole")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, start[name]) == name.startswith("middle"), name
    assert whole.seen == [{"last.weight"}] * 3 + [{"last.weight", "first.weight", "first.bias"}] * 3
    # A frozen weight has no state in the optimiser, and no decay although the recipe has one.
    assert len(state["optimizer_states"][0]["state"]) == 3
    torch.testing.assert_close(
        state["callbacks"]["Average"]["average"]["middle.weight"], start["middle.weight"]
    )


@pytest.mark.parametrize("first", [2, 4])  # before and after the second group joins
def test_a_run_that_was_stopped_goes_on_as_it_would_have(tmp_path, first, monkeypatch):
    _, once = train(tmp_path / "once")

    class Stop(Exception):
        pass

    plain = Toy.loss

    def stop(self, batch, generator):
        if len(self.seen) == first:
            raise Stop
        return plain(self, batch, generator)

    monkeypatch.setattr(Toy, "loss", stop)
    with pytest.raises(Stop):
        train(tmp_path / "twice")
    monkeypatch.setattr(Toy, "loss", plain)
    objective, twice = train(tmp_path / "twice")
    assert len(objective.seen) == 6 - first
    assert all(torch.equal(weight, twice["state_dict"][key]) for key, weight in once["state_dict"].items())
    ours, theirs = (state["optimizer_states"][0]["state"] for state in (once, twice))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(a["momentum"], theirs[k]["momentum"]) for k, a in ours.items() if "momentum" in a)


def test_frozen_weights_have_no_part_in_clipping_where_processes_share_gradients():
    objective = Toy(recipe.parse(TABLE), None)
    callback = Unfreezing(objective.model, [Unfreeze(("last",))], 6)

    class Trainer:
        world_size, global_step = 2, 0

    callback.on_train_batch_start(Trainer())
    objective.loss(objective.batch(0), None)[0].backward()
    assert objective.model["first"].weight.grad is not None  # every process computes all of them
    callback.on_before_optimizer_step(Trainer())
    left = [name for name, weight in objective.model.named_parameters() if weight.grad is not None]
    assert left == ["last.weight"]


def test_the_schedule_says_when_how_much_is_trained():
    model = Toy(recipe.parse(TABLE), None).model
    groups = [Unfreeze(("last",)), Unfreeze(("first",), 0.25), Unfreeze(("*.bias", "first.weight"), 0.1)]
    callback = Unfreezing(model, groups, 30)
    assert callback.stages() == [{"step": 0, "trained": 16}, {"step": 3, "trained": 40}]
    assert callback.begins["middle.weight"] == float("inf") and callback.begins["first.bias"] == 3


def test_what_an_objective_freezes_stays_frozen():
    model = Toy(recipe.parse(TABLE), None).model
    model["first"].requires_grad_(False)
    assert set(schedule(model, [Unfreeze(("*",))], 10)) == {"middle.weight", "middle.bias", "last.weight"}
    with pytest.raises(UsageError, match="'first' matches no layer"):
        schedule(model, [Unfreeze(("*", "first"))], 10)


@pytest.mark.parametrize(
    ("groups", "message", "hint"),
    [
        ([{"layers": ["lastt"]}], "'lastt' matches no layer", "did you mean last"),
        ([{"layers": ["blocks.*"]}], "matches no layer", "it has first, last, middle"),
        ([{"layers": ["last"], "at": 0.5}], "nothing would be trained at first", "at = 0"),
        ([{"layers": ["last"], "at": 1.5}], "must be from 0 to 1", "share"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_anything_is_done(tmp_path, groups, message, hint):
    with pytest.raises(UsageError, match=message) as error:
        train(tmp_path / "run", unfreeze=groups)
    assert hint in error.value.hint
    assert not (tmp_path / "run" / "log").exists()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([{"at": 0.5}], "layers must be given"),
        ([{"layers": "last"}], "needs a list"),
        (["last"], "needs a table"),
        ([{"layers": ["last"], "from": 0.5}], "unknown key 'from'"),
    ],
)
def test_a_table_that_does_not_fit_is_named(groups, words):
    with pytest.raises(UsageError, match=words):
        recipe.parse({**TABLE, "unfreeze": groups})
