"""A session takes requests one after another, and several at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import numpy as np
import pytest
import torch
from hy_core import Conditioner, HyError, Request, option
from hy_core.dit import Additive
from hy_core.session import Session


def request(prompt="a red circle moves right", **changes):
    values = dict(width=32, height=32, frames=5, fps=8.0, steps=3, seed=7, cfg=3.0, shift=5.0)
    return Request(prompt, **(values | changes))


class Tint(Conditioner):
    """Adds a module with weights of its own value; `meet` makes two clips wait for each other before sampling."""

    @dataclass(frozen=True)
    class Options:
        value: float = option(1.0, help="Of the weights.")

    meet: Barrier | None = None

    def attach(self, dit, folder=None):
        dit.time.attach(self.name, Additive(1, dit.width))
        torch.nn.init.constant_(dit.time[self.name].proj.weight, self.options.value)

    def encode(self, request, cond):
        cond.set_adapter_inputs(self.name, torch.ones(1, cond.frames, 1))

    def before_step(self, latents, t, cond):
        if self.meet is not None and t == 1:
            self.meet.wait(60)
        return latents


class Shade(Tint):
    """A second plugin."""


def test_two_requests_in_two_threads_are_two_runs(model):
    """Different prompts, sizes, samplers, kernels and plugins, both sampling at the same time."""
    asked = [
        (request(attention="matmul"), Tint(value=0.5)),
        (request("stars", width=48, seed=1, cfg=1.0, sampler="heun"), Shade(value=-1.0)),
    ]
    alone = [Session(model).generate(one, [plugin]).frames for one, plugin in asked]
    meet, session = Barrier(2), Session(model)
    for _, plugin in asked:
        plugin.meet = meet
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(session.generate, one, [plugin]) for one, plugin in asked]
        together = [future.result(120).frames for future in futures]
    for expected, found in zip(alone, together, strict=True):
        assert np.array_equal(expected, found)
    assert not np.array_equal(alone[0], session.generate(asked[0][0]).frames)


def test_other_modules_of_a_plugin_wait_for_those_in_use(model):
    plugins = [Tint(value=value) for value in (0.5, -1.0, 2.0)]
    expected = [Session(model).generate(request(), [plugin]).frames for plugin in plugins]
    session = Session(model)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda plugin: session.generate(request(), [plugin]).frames, plugins))
    assert all(np.array_equal(*pair) for pair in zip(expected, found, strict=True))
    assert not np.array_equal(found[0], found[1])


def test_a_session_keeps_what_plugins_cache_and_attach(model):
    made = []

    class Loud(Tint):
        def attach(self, dit, folder=None):
            made.append("attach")
            super().attach(dit, folder)

        def finish(self, request, result):
            result.session_cache.get("loud.model", lambda: made.append("load"))

    with Session(model) as session:
        for seed in (1, 2):
            session.generate(request(seed=seed), [Loud()])
    assert made == ["attach", "load"]
    with pytest.raises(HyError, match="closed"):
        session.generate(request())


def test_branches_share_what_is_made_once(model):
    calls = []

    class Once(Conditioner):
        def encode(self, request, cond):
            calls.append(cond.encoding.clip_cache.get("once.features", lambda: object()))

    session = Session(model)
    session.generate(request(), [Once()])
    session.generate(request(), [Once()])
    assert len(calls) == 4 and calls[0] is calls[1] and calls[2] is calls[3] and calls[1] is not calls[2]
