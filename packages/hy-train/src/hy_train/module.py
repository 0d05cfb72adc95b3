"""The LightningModule around an objective: loss, optimiser, averaged weights."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import torch
from hy_core.errors import HyError
from hy_core.training import Objective, seeded
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from hy_train import optim
from hy_train.loading import LoaderError, loader
from hy_train.recipe import Recipe


class TrainModule(pl.LightningModule):
    """Train the objective's model by its recipe, and its critic, where it has one.

    Its state is that of these two alone: frozen networks of the objective are moved to the device and not saved.
    """

    def __init__(self, objective: Objective[Any], recipe: Recipe) -> None:
        super().__init__()
        self.objective, self.recipe = objective, recipe
        self.model, self.critic = objective.model, objective.critic
        self.strict_loading = objective.trained is None  # else a checkpoint lacks what isn't trained
        # Lightning runs one optimiser by itself; two are run by hand below.
        self.automatic_optimization = self.critic is None

    @property
    def data_rank(self) -> int:
        """The place of this process among those that get different batches."""
        if self.device_mesh is None:
            return self.global_rank
        return int(self.device_mesh["data_parallel"].get_local_rank())

    @property
    def data_ranks(self) -> int:
        """The number of processes that get different batches."""
        if self.device_mesh is None:
            return int(self.trainer.world_size)
        return int(self.device_mesh["data_parallel"].size())

    def micro_rank(self, micro: int) -> int:
        """The rank of the batch with this number of a step: accumulated batches count as those of further ranks."""
        return micro * self.data_ranks + self.data_rank

    def configure_model(self) -> None:
        self.objective.load()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = self.objective.trained
        if names is not None:
            state = checkpoint["state_dict"]
            keep = {f"model.{name}" for name in names}
            checkpoint["state_dict"] = {key: value for key, value in state.items() if key in keep}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in self.objective.trained or ():
            if f"model.{name}" not in checkpoint["state_dict"]:
                raise HyError(f"the checkpoint has no {name}", "it is another run's: choose another --out")

    def on_fit_start(self) -> None:
        for network in self.objective.frozen.values():
            network.to(self.device).eval().requires_grad_(False)

    def training_step(self, batch: Any, index: int) -> torch.Tensor | None:
        """Train on the batch of a step; returns the loss, a scalar tensor, or None with a critic."""
        if isinstance(batch, LoaderError):
            batch.throw()
        # Noise, like batches, depends on the step and the rank alone, so that a resumed run repeats the killed one.
        rank = self.micro_rank(index % self.recipe.accumulate)
        seed = seeded(self.recipe.seed, 1, self.global_step, rank)
        generator = torch.Generator(self.device).manual_seed(seed)
        if self.critic is None:
            return self._checked("loss", *self.objective.loss(batch, generator))
        # A step is one of the model's: Lightning must not count the critic's, so it gets the bare optimiser.
        _, critics = cast(list[Optimizer], self.optimizers(use_pl_optimizer=False))
        critics.zero_grad()
        self.manual_backward(self._checked("critic_loss", *self.objective.critic_loss(batch, generator)))
        self.clip_gradients(critics, self.recipe.optim.max_grad_norm)
        critics.step()
        models, _ = cast(list[LightningOptimizer], self.optimizers())
        models.zero_grad()
        self.critic.requires_grad_(False)
        self.manual_backward(self._checked("loss", *self.objective.loss(batch, generator)))
        self.critic.requires_grad_(True)
        models.step()
        for schedule in cast(list[LRScheduler], self.lr_schedulers()):
            schedule.step()
        return None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Only the model's optimiser comes here, after the callbacks, which may take gradients away.
        if not self.automatic_optimization:
            self.clip_gradients(optimizer, self.recipe.optim.max_grad_norm)

    def _checked(self, name: str, loss: torch.Tensor, logs: dict[str, float]) -> torch.Tensor:
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the {name.replace('_', ' ')} is {loss.item()} at step {self.global_step}"
            )
        self.log_dict({name: loss.detach(), **logs}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> list[OptimizerLRSchedulerConfig]:
        return [self._optimizer(one) for one in (self.model, self.critic) if one is not None]

    def _optimizer(self, network: torch.nn.Module) -> OptimizerLRSchedulerConfig:
        optimizer = optim.build(network, self.recipe.optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: optim.rate(self.recipe.optim, self.recipe.steps, step)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self)


def train_module(module: pl.LightningModule) -> TrainModule:
    """Return the module that Lightning hands to callbacks as what it is here."""
    assert isinstance(module, TrainModule)
    return module


def averaged_weights(module: TrainModule) -> dict[str, torch.Tensor]:
    """Return the tensors of which averages are kept, of any shape: those that are trained."""
    names, state = module.objective.trained, module.model.state_dict()
    return state if names is None else {name: state[name] for name in state if name in names}


class Average(pl.Callback):
    """Keep an exponential moving average of the weights; it is what is measured and exported.

    The decay grows from 0 as (1 + step) / (10 + step) up to the recipe's, so that early weights are forgotten.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = averaged_weights(train_module(pl_module))
        if not self.average:
            self.average = {k: v.detach().clone() for k, v in weights.items()}
        # A checkpoint is read on the CPU.
        self.average = {k: v.to(weights[k].device) for k, v in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % train_module(pl_module).recipe.accumulate:
            return
        decay = min(self.decay, (1 + trainer.global_step) / (10 + trainer.global_step))
        weights = averaged_weights(train_module(pl_module))
        names = [k for k, v in weights.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in names], [weights[k] for k in names], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = {k: v.clone() for k, v in state["average"].items()}
