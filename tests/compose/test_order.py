"""The exact order of all hooks and lifecycle calls in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hy_core import HyError, Plugins, generate

FOLDER = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def watched():
    """Plugins with the one that writes down its calls, its conditioner, and the list of calls so far."""
    some = Plugins([])
    some.load(str(FOLDER / "hy_watch.py"))
    conditioner = some.conditioners()["hy_watch"]()
    import sys

    return some, conditioner, sys.modules["hy_local_hy_watch"].CALLS


def test_every_call_of_a_run_in_order(tiny, watched):
    some, conditioner, calls = watched
    request = replace(tiny.request, cfg=3.0, steps=2, shift=1.0)
    conditioner.validate(request)
    generate(request, [conditioner], model=tiny.model, plugins=some)
    assert [call for call in calls if call != "register_samplers"] == [
        "register_conditioners",
        "validate",
        "on_run_start",
        "weights",  # its fingerprint, before the model is used
        "weights",  # the file to load
        "attach",
        "weights",  # the provenance record
        "encode positive",
        "encode negative",
        "branches",
        "before_step 1.00",
        "on_step 1/2",
        "before_step 0.50",
        "on_step 2/2",
        "finish",
        "on_run_end made",
    ]


def test_a_failed_run_ends_once_for_observers(tiny, watched):
    some, conditioner, calls = watched
    conditioner.finish = lambda request, result: 1 / 0
    with pytest.raises(ZeroDivisionError):
        generate(tiny.request, [conditioner], model=tiny.model, plugins=some)
    assert calls[-1] == "on_run_end ZeroDivisionError" and sum(c.startswith("on_run_end") for c in calls) == 1


def test_an_error_of_ours_reaches_observers_too(tiny, watched):
    some, conditioner, calls = watched
    with pytest.raises(HyError, match="hern"):
        generate(replace(tiny.request, sampler="hern"), [conditioner], model=tiny.model, plugins=some)
    assert calls[-1] == "on_run_end UsageError"


def test_the_watching_plugin_has_every_hook(watched):
    from hy_core.plugins import HOOKS

    assert set(watched[0].hooks("hy_watch")) == set(HOOKS)
