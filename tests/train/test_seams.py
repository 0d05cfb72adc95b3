"""What strategies that shard or replicate a network need of an objective and of the module around it."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from hy_core.dit import DiT
from hy_core.training import Objective
from hy_core.training.materialise import is_meta, registered_methods
from hy_train import recipe
from hy_train.fit import run
from hy_train.module import TrainModule
from hy_train.objectives.flow import FlowObjective
from torch import nn
from train.test_flow_objective import TINY, needs_pocket


class Line(Objective):
    """Four numbers from four; a batch is a function of step and rank."""

    def __init__(self, settings, folder):
        super().__init__(settings, folder)
        with torch.device("meta"):
            self.model = nn.Linear(4, 4)
        self.frozen = {"teacher": nn.Linear(4, 4)}
        self.drawn = []

    def initial_state(self):
        generator = torch.Generator().manual_seed(self.recipe.seed)
        return {"weight": torch.randn(4, 4, generator=generator), "bias": torch.zeros(4)}

    def batch(self, step, rank=0, ranks=1):
        self.drawn.append((step, rank, ranks))
        return torch.randn(3, 4, generator=torch.Generator().manual_seed(100 * step + rank))

    def loss(self, batch, generator):
        noise = torch.randn(batch.shape, generator=generator)
        return (self.model(batch + noise) - self.frozen["teacher"](batch)).square().mean(), {}

    def export(self, folder):
        folder.mkdir(exist_ok=True)


class BothRanks(Line):
    """The batches of two ranks, one after the other, as one."""

    def batch(self, step, rank=0, ranks=1):
        return [super(BothRanks, self).batch(step, one, 2) for one in (0, 1)]

    def loss(self, batch, generator):
        from hy_core.training import seeded

        seeds = [
            seeded(self.recipe.seed, 1, len(self.seen) if hasattr(self, "seen") else 0, r) for r in (0, 1)
        ]
        self.seen = [*getattr(self, "seen", []), seeds]
        losses = [
            super(BothRanks, self).loss(b, torch.Generator().manual_seed(s))[0]
            for b, s in zip(batch, seeds, strict=True)
        ]
        return torch.stack(losses).mean(), {}


SETTINGS = {"objective": "line", "steps": 4, "batch": 3, "optim": {"warmup": 0, "name": "adamw", "lr": 0.1}}


def line(folder, cls=Line, **changes):
    settings = recipe.parse({**SETTINGS, **changes})
    torch.manual_seed(0)
    objective = cls(settings, folder)
    run(settings, objective, folder, quiet=True)
    return objective, torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def test_the_constructor_takes_no_memory_and_the_run_loads(tmp_path):
    assert is_meta(Line(recipe.parse(SETTINGS), tmp_path).model)
    objective, _ = line(tmp_path)
    assert not is_meta(objective.model)
    other = objective.without_networks()
    assert not hasattr(other, "model") and hasattr(objective, "model") and objective.frozen


def test_frozen_networks_stay_as_they_are_and_are_not_saved(tmp_path):
    objective, state = line(tmp_path)
    assert set(state) == {"model.weight", "model.bias"}
    teacher = objective.frozen["teacher"]
    assert not teacher.weight.requires_grad and not teacher.training


def test_accumulated_batches_are_those_of_further_ranks(tmp_path):
    accumulated, state = line(tmp_path / "one", accumulate=2)
    assert accumulated.drawn[:4] == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]
    _, expected = line(tmp_path / "two", BothRanks)
    for key, value in state.items():
        torch.testing.assert_close(value, expected[key])


def test_rank_is_that_of_data_parallelism():
    module = TrainModule(Line(recipe.parse({**SETTINGS, "accumulate": 3}), None), recipe.parse(SETTINGS))
    mesh = {"data_parallel": SimpleNamespace(get_local_rank=lambda: 1, size=lambda: 2)}
    module._device_mesh = mesh  # of four processes, two of which share each batch
    assert (module.data_rank, module.data_ranks) == (1, 2)
    assert [module.micro_rank(micro) for micro in range(3)] == [1, 3, 5]


@needs_pocket
def test_a_dit_starts_from_the_seed_whether_it_was_on_the_meta_device_or_not(tmp_path):
    objective = FlowObjective(recipe.parse({**TINY, "seed": 3}), tmp_path)
    assert is_meta(objective.model)
    objective.load()
    torch.manual_seed(3)
    expected = DiT(objective.config).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in objective.model.state_dict().items())


@needs_pocket
def test_a_sharded_dit_has_the_loss_and_gradients_of_a_whole_one(tmp_path, monkeypatch):
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    objective = FlowObjective(recipe.parse(TINY), tmp_path)
    objective.prepare()
    objective.load()
    for weight in objective.model.parameters():
        nn.init.normal_(weight, std=0.1)
    whole = objective.model
    objective.model = copy.deepcopy(whole)
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for block in (*objective.model.blocks, objective.model.txt_in):
            fully_shard(block, mesh=mesh)
        fully_shard(objective.model, mesh=mesh)
        methods = registered_methods(objective.model)
        assert [module for module, _ in methods] == [objective.model, objective.model.txt_in]
        for module, name in methods:
            register_fsdp_forward_method(module, name)
        batch = objective.batch(0)
        loss, _ = objective.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        gradients = {name: weight.grad.full_tensor() for name, weight in objective.model.named_parameters()}
    finally:
        destroy_process_group()
    objective.model = whole
    expected, _ = objective.loss(batch, torch.Generator().manual_seed(0))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, weight in whole.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, atol=1e-5, rtol=1e-3)


def test_the_average_of_a_sharded_network_is_that_of_the_whole(tmp_path):
    from hy_train.average import Average
    from torch.distributed import HashStore, destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    trainer = SimpleNamespace(global_step=100, accumulate_grad_batches=1)
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        network = nn.Linear(4, 4)
        start = network.weight.detach().clone()
        fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
        average = Average(network, 0.5)
        average.on_fit_start(trainer, None)
        with torch.no_grad():
            network.weight.add_(1.0)
        average.on_train_batch_end(trainer, None, None, None, 0)
        with average.in_place():
            torch.testing.assert_close(network.weight.full_tensor(), start + 0.5)
        torch.testing.assert_close(network.weight.full_tensor().detach(), start + 1.0)
    finally:
        destroy_process_group()
