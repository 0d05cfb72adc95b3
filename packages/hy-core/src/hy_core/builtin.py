"""What the core registers itself, through the same door as everybody else."""

from __future__ import annotations

from pathlib import Path

from hy_core.hooks import Register, hookimpl


@hookimpl
def register_samplers(register: Register) -> None:
    """Euler, Heun, and one that draws noise on the way."""
    register("euler", "hy_core.flow.sampler:sample_euler")
    register("heun", "hy_core.flow.sampler:sample_heun")
    register("stochastic", "hy_core.flow.sampler:sample_stochastic")


@hookimpl
def register_adapters(register: Register) -> None:
    """LoRA, DoRA and LoKr of linear layers, and bottlenecks behind blocks."""
    register("lora", "hy_core.adapters.linear:LoRA")
    register("dora", "hy_core.adapters.linear:DoRA")
    register("lokr", "hy_core.adapters.linear:LoKr")
    register("bottleneck", "hy_core.adapters.bottleneck:Bottleneck")


@hookimpl
def register_presets(register: Register) -> None:
    """The files in `presets/`."""
    for path in sorted(Path(__file__).with_name("presets").glob("*.toml")):
        register(path.stem, path)
