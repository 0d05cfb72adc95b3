"""Every hook of hy: what it is called with, and when.

A plugin is a module with some of these functions, each marked with `@hookimpl`, named by an entry point of
the group `hy.plugins`. What a plugin *does* lives in a `Conditioner`; hooks only announce names. A *target*
is an object or a string "module:attribute" that is imported on first use, so that registering stays cheap:
registration hooks must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from hy_core.request import Request, Result

API = 1  # grows when a hook, a lifecycle method or a port changes in a way that a plugin must know about
GROUP = "hy.plugins"

hookspec = pluggy.HookspecMarker("hy")
hookimpl = pluggy.HookimplMarker("hy")

Register = Callable[..., None]


@dataclass(frozen=True)
class Check:
    """What a check of `hy doctor` found: fine or not, a few words about it, and what to do when it isn't."""

    ok: bool
    detail: str
    hint: str | None = None


@hookspec
def register_conditioners(register: Register) -> None:
    """`register(cls, name=None)`: a Conditioner, under the plugin's own name unless another is given."""


@hookspec
def register_models(register: Register) -> None:
    """`register(kind, name, target)`: a network to use in place of ours; kinds: dit, vae, text, vocoder."""


@hookspec
def register_samplers(register: Register) -> None:
    """`register(name, target)`: a function with the signature of `hy_core.flow.sampler.sample_euler`."""


@hookspec
def register_adapters(register: Register) -> None:
    """`register(name, target)`: a kind of adapter for `--kind NAME`, a subclass of one in `hy_core.adapters`."""


@hookspec
def register_presets(register: Register) -> None:
    """`register(name, path)`: a TOML file of defaults for `--preset NAME`."""


@hookspec
def register_writers(register: Register) -> None:
    """`register(suffix, target)`: a function `(result, path)` that writes files ending in, say, ".webp"."""


@hookspec
def register_objectives(register: Register) -> None:
    """`register(name, target)`: a subclass of `hy_core.training.Objective`, or what is called like one."""


@hookspec
def register_recipes(register: Register) -> None:
    """`register(name, path)`: a TOML file for `hy train NAME`."""


@hookspec
def register_strategies(register: Register) -> None:
    """`register(name, target)`: a Lightning strategy, or a function that makes one."""


@hookspec
def register_datasets(register: Register) -> None:
    """`register(name, target)`: a source of training clips."""


@hookspec
def register_rewriters(register: Register) -> None:
    """`register(name, target)`: a function of a folder or an address that returns a `hy_core.rewrite.Rewriter`."""


@hookspec
def register_stages(register: Register) -> None:
    """`register(name, target)`: a step of the data pipeline, clip record to clip records."""


@hookspec
def register_commands(register: Register) -> None:
    """`register(name, target)`: a click command for `hy plugins run PLUGIN NAME`."""


@hookspec
def register_checks(register: Register) -> None:
    """`register(name, function)`: a line of `hy doctor`; the function takes nothing and returns a Check."""


@hookspec
def on_run_start(request: Request) -> None:
    """A run begins; nothing is loaded yet."""


@hookspec
def on_step(request: Request, step: int, steps: int, seconds: float) -> None:
    """A sampling step is done: `step` counts from 1, `seconds` is what this one took."""


@hookspec
def on_run_end(request: Request, result: Result | None, error: BaseException | None) -> None:
    """A run is over, always and once: with its result, or with the error that ended it."""
