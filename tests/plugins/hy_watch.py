"""A plugin that writes down every call that it gets: all hooks, and a Conditioner's whole life."""

from __future__ import annotations

from dataclasses import dataclass

from hy_core import Check, Conditioner, hookimpl, option

CALLS: list[str] = []


class Watch(Conditioner):
    """Write down what is called."""

    @dataclass(frozen=True)
    class Options:
        note: str = option("", help="A word to remember.")

    def validate(self, request):
        CALLS.append("validate")

    def attach(self, dit, folder=None):
        CALLS.append("attach")

    def encode(self, request, cond):
        CALLS.append(f"encode {'negative' if cond.negative else 'positive'}")

    def branches(self, request, cond):
        CALLS.append("branches")
        return ()

    def before_step(self, latents, t, cond):
        CALLS.append(f"before_step {t:.2f}")
        return latents

    def finish(self, request, result):
        CALLS.append("finish")

    def weights(self, folder=None):
        CALLS.append("weights")


@hookimpl
def register_conditioners(register):
    CALLS.append("register_conditioners")
    register(Watch)


@hookimpl
def register_models(register):
    CALLS.append("register_models")


@hookimpl
def register_samplers(register):
    CALLS.append("register_samplers")


@hookimpl
def register_adapters(register):
    CALLS.append("register_adapters")


@hookimpl
def register_rewriters(register):
    CALLS.append("register_rewriters")


@hookimpl
def register_presets(register):
    CALLS.append("register_presets")


@hookimpl
def register_commands(register):
    CALLS.append("register_commands")


@hookimpl
def register_writers(register):
    CALLS.append("register_writers")


@hookimpl
def register_objectives(register):
    CALLS.append("register_objectives")


@hookimpl
def register_recipes(register):
    CALLS.append("register_recipes")


@hookimpl
def register_strategies(register):
    CALLS.append("register_strategies")


@hookimpl
def register_datasets(register):
    CALLS.append("register_datasets")


@hookimpl
def register_stages(register):
    CALLS.append("register_stages")


@hookimpl
def register_checks(register):
    CALLS.append("register_checks")
    register("watching", lambda: Check(True, f"{len(CALLS)} calls"))


@hookimpl
def on_run_start(request):
    CALLS.append("on_run_start")


@hookimpl
def on_step(request, step, steps, seconds):
    CALLS.append(f"on_step {step}/{steps}")


@hookimpl
def on_run_end(request, result, error):
    CALLS.append(f"on_run_end {'made' if result else type(error).__name__}")
