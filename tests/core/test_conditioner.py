"""A Conditioner does nothing until a method is overridden."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest
from hy_core import Conditioner, UsageError, option
from hy_core.conditioner import LIFECYCLE


class NightSky(Conditioner):
    """With one option."""

    @dataclass(frozen=True)
    class Options:
        stars: int = option(5, help="How many stars.", minimum=0)


def test_the_defaults_do_nothing():
    plain = Conditioner()
    latents = object()
    assert plain.before_step(latents, 0.5, None) is latents
    assert list(plain.branches(None, None)) == [] and dict(plain.parallel_plan()) == {}
    nothing = [
        plain.validate(None),
        plain.attach(None),
        plain.encode(None, None),
        plain.training_condition({}, None),
    ]
    assert [*nothing, plain.finish(None, None), plain.weights()] == [None] * 6


def test_the_lifecycle_is_every_public_method():
    public = {
        name for name, _ in inspect.getmembers(Conditioner, inspect.isfunction) if not name.startswith("_")
    }
    assert public - {"error"} == set(LIFECYCLE)


def test_options_come_as_keywords_or_as_an_instance():
    assert NightSky().options.stars == 5
    assert NightSky(stars=7).options == NightSky(NightSky.Options(stars=7)).options
    with pytest.raises(TypeError):
        NightSky(Conditioner.Options())
    with pytest.raises(TypeError):
        NightSky(NightSky.Options(), stars=3)


def test_wrong_keywords_are_usage_errors_that_name_the_flag():
    with pytest.raises(UsageError, match="--night-sky-stars: -1 isn't a whole number at least 0"):
        NightSky(stars=-1)
    with pytest.raises(UsageError, match="--night-sky-stares: no such option"):
        NightSky(stares=1)


def test_an_error_names_the_flag_of_its_option():
    error = NightSky().error("stars", "are behind clouds")
    assert isinstance(error, UsageError) and str(error) == "--night-sky-stars: are behind clouds"


class Noted(NightSky):
    """Overrides two methods."""

    def validate(self, request):
        pass

    def finish(self, request, result):
        pass


def test_tracing_prints_each_call_of_a_method_that_a_plugin_has(monkeypatch, capsys):
    monkeypatch.setenv("HY_TRACE", "1")
    traced = Noted()
    traced.validate(None)
    traced.encode(None, None)
    traced.finish(None, None)
    lines = [line.split()[:3] for line in capsys.readouterr().err.splitlines()]
    assert lines == [["trace", "noted", "validate"], ["trace", "noted", "finish"]]


def test_without_tracing_nothing_is_printed(monkeypatch, capsys):
    monkeypatch.delenv("HY_TRACE", raising=False)
    Noted().validate(None)
    assert capsys.readouterr().err == ""
