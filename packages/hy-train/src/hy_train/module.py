"""The LightningModule around an objective: loss, optimiser, guards against steps that can't be taken."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import torch
from hy_core.errors import HyError, UsageError
from hy_core.training import Objective, seeded
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader

from hy_train import optim
from hy_train.average import Average
from hy_train.guard import BadStepError, LossHistory, batch_number
from hy_train.loading import LoaderError, loader
from hy_train.recipe import Recipe

__all__ = ["Average", "TrainModule"]
_OWN = "hy_train"


class TrainModule(pl.LightningModule):
    """Train the objective's model by its recipe, and its critic, where it has one.

    Its state is that of these two alone: frozen networks of the objective are moved to the device and not saved.
    `skipped` are the numbers of batches that are left out; the batch of a step is the next that isn't.
    """

    def __init__(self, objective: Objective[Any], recipe: Recipe) -> None:
        super().__init__()
        self.objective, self.recipe = objective, recipe
        self.model, self.critic = objective.model, objective.critic
        self.strict_loading = objective.trained is None  # else a checkpoint lacks what isn't trained
        self.skipped: set[int] = set()
        self.history = LossHistory(recipe.spike)
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

    @property
    def number(self) -> int:
        """The number of the batch of this step."""
        return batch_number(self.global_step, self.skipped)

    def micro_rank(self, micro: int) -> int:
        """The rank of the batch with this number of a step: accumulated batches count as those of further ranks."""
        return micro * self.data_ranks + self.data_rank

    def configure_model(self) -> None:
        self.objective.load()

    def on_fit_start(self) -> None:
        for network in self.objective.frozen.values():
            network.to(self.device).eval().requires_grad_(False)

    def on_train_start(self) -> None:
        # The optimiser's state brings the settings that it was saved with; those of the recipe count.
        optimizers = self.optimizers(use_pl_optimizer=False)
        schedules = self.lr_schedulers() or []
        for optimizer, schedule, network in zip(
            optimizers if isinstance(optimizers, list) else [optimizers],
            schedules if isinstance(schedules, list) else [schedules],
            (self.model, self.critic),
            strict=False,
        ):
            if network is not None:
                fresh = optim.build(network, self.recipe.optim)
                optim.restate(optimizer, cast(LambdaLR, schedule), fresh)

    def training_step(self, batch: Any, index: int) -> torch.Tensor | None:
        """Train on the batch of a step; returns the loss, a scalar tensor, or None with a critic."""
        if isinstance(batch, LoaderError):
            batch.throw()
        # Noise, like batches, depends on the step and the rank alone, so that a resumed run repeats the killed one.
        rank = self.micro_rank(index % self.recipe.accumulate)
        seed = seeded(self.recipe.seed, 1, self.number, rank)
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

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.recipe.optim.max_grad_norm or float("inf"))
        # A gradient scaler finds infinite gradients itself, and leaves out the step.
        if not self.recipe.precision.startswith("16") and not torch.isfinite(norm):
            raise BadStepError(f"the gradient is {norm.item()} at step {self.global_step}", self.number)
        self.log("grad_norm", norm)

    def _checked(self, name: str, loss: torch.Tensor, logs: dict[str, float]) -> torch.Tensor:
        history = self.history if name == "loss" else LossHistory(0)
        problem = history.problem(loss.item(), name.replace("_", " "), self.global_step)
        if self.trainer.world_size > 1:  # all processes go back, or none
            flag = torch.tensor(float(problem is not None), device=self.device)
            if self.trainer.strategy.reduce(flag, reduce_op="max"):
                problem = problem or f"the loss of another process is bad at step {self.global_step}"
        if problem:
            raise BadStepError(problem, self.number)
        self.log_dict({name: loss.detach(), **logs}, prog_bar=True)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if (names := self.objective.trained) is not None:
            keep = {f"model.{name}" for name in names}
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {key: value for key, value in state.items() if key in keep}
        for name, weight in self.model.named_parameters():
            if not bool(weight.detach().sum(dtype=torch.float32).isfinite()) and not weight.isfinite().all():
                number = batch_number(max(self.global_step - 1, 0), self.skipped)
                raise BadStepError(f"{name} isn't finite after step {self.global_step}", number)
        checkpoint[_OWN] = {
            "ranks": self.data_ranks * self.recipe.accumulate,
            "skipped": sorted(self.skipped),
            "losses": list(self.history.losses),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in self.objective.trained or ():
            if f"model.{name}" not in checkpoint["state_dict"]:
                raise HyError(f"the checkpoint has no {name}", "it is another run's: choose another --out")
        own = checkpoint.get(_OWN, {})
        ranks, before = self.data_ranks * self.recipe.accumulate, own.get("ranks")
        if before not in (None, ranks):
            raise UsageError(
                f"the run was with {before} batches a step (devices x nodes x accumulate), now there are {ranks}",
                f"keep their product, such as --set accumulate={max(before // self.data_ranks, 1)}"
                if before % self.data_ranks == 0
                else "start with the same number of processes, or choose another --out",
            )
        self.skipped |= set(own.get("skipped", ()))
        self.history = LossHistory(self.recipe.spike, own.get("losses", ()))

    def configure_optimizers(self) -> list[OptimizerLRSchedulerConfig]:
        return [self._optimizer(one) for one in (self.model, self.critic) if one is not None]

    def _optimizer(self, network: torch.nn.Module) -> OptimizerLRSchedulerConfig:
        optimizer = optim.build(network, self.recipe.optim)
        schedule = LambdaLR(optimizer, lambda step: optim.rate(self.recipe.optim, self.recipe.steps, step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self)
