"""Every hook is called when it should be, with what it should get."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hy_core import Check, Conditioner, Plugins, hooks
from hy_core.plugins import HOOKS
from hy_core.request import Result, Sound
from plugins.made import plugin


class Night(Conditioner):
    """Nothing."""


def taking(hook: str, *arguments: object) -> Plugins:
    """Plugins with one, "night", that registers these arguments."""
    some = Plugins([])
    some.add("night", plugin(**{hook: lambda register: register(*arguments)}))
    return some


def observing(hook: str) -> tuple[Plugins, list[dict[str, object]]]:
    """Plugins with one that keeps what an observer hook tells."""
    told: list[dict[str, object]] = []
    names = inspect.signature(getattr(hooks, hook)).parameters
    scope = {"told": told}
    exec(f"def observe({', '.join(names)}): told.append(dict({', '.join(f'{n}={n}' for n in names)}))", scope)
    some = Plugins([])
    some.add("night", plugin(**{hook: scope["observe"]}))
    return some, told


def test_hook_register_conditioners():
    assert dict(taking("register_conditioners", Night).conditioners()) == {"night": Night}
    assert dict(taking("register_conditioners", Night, "dark").conditioners()) == {"dark": Night}


def test_hook_register_models():
    some = taking("register_models", "vae", "night", "math:sqrt")
    assert some.models("vae")["night"](4) == 2 and "night" not in some.models("dit")
    with pytest.raises(ValueError, match="unet"):
        some.models("unet")


def test_hook_register_samplers():
    found = taking("register_samplers", "night", "math:sqrt").samplers()
    assert list(found) == ["euler", "heun", "stochastic", "night"] and found["night"](4) == 2


def test_hook_register_presets(tmp_path):
    path = tmp_path / "night.toml"
    path.write_text("steps = 3\n")
    assert taking("register_presets", "night", str(path)).presets()["night"] == path


def test_hook_register_commands():
    some = taking("register_commands", "count", "click:Command")
    assert some.commands([*some.loaded])["count"].__name__ == "Command"


def test_hook_register_writers():
    assert taking("register_writers", ".night", "math:sqrt").writers()[".night"](4) == 2


def test_hook_register_objectives():
    assert taking("register_objectives", "night", "math:sqrt").objectives()["night"](4) == 2


def test_hook_register_recipes(tmp_path):
    path = tmp_path / "night.toml"
    path.write_text("steps = 3\n")
    assert taking("register_recipes", "night", str(path)).recipes()["night"] == path


def test_hook_register_strategies():
    assert taking("register_strategies", "night", "math:sqrt").strategies()["night"](4) == 2


def test_hook_register_datasets():
    assert taking("register_datasets", "night", "math:sqrt").datasets()["night"](4) == 2


def test_hook_register_stages():
    assert taking("register_stages", "night", "math:sqrt").stages()["night"](4) == 2


def test_hook_register_adapters():
    found = taking("register_adapters", "night", "hy_core.adapters:LoRA").adapters()
    assert {"lora", "dora", "lokr", "bottleneck"} < set(found) and found["night"] is found["lora"]


def test_hook_register_rewriters():
    assert taking("register_rewriters", "night", "math:sqrt").rewriters()["night"](4) == 2


def test_hook_register_checks():
    found = taking("register_checks", "night", lambda: Check(False, "it is day", "wait")).checks()
    assert found["night"]() == Check(ok=False, detail="it is day", hint="wait")


def test_hook_on_run_start():
    some, told = observing("on_run_start")
    some.run_start("request")
    assert told == [{"request": "request"}]


def test_hook_on_step():
    some, told = observing("on_step")
    some.step("request", 1, 20, 0.5)
    assert told == [{"request": "request", "step": 1, "steps": 20, "seconds": 0.5}]


def test_hook_on_run_end():
    some, told = observing("on_run_end")
    error = ValueError()
    result = Result(
        np.zeros((1, 2, 2, 3), np.uint8), 8.0, Sound(np.zeros((1, 4), np.float32), 8000), {"hy": {}}
    )
    some.run_end("request", result, None)
    some.run_end("request", None, error)
    assert told[1] == {"request": "request", "result": None, "error": error}
    seen = told[0]["result"]
    assert told[0]["error"] is None and seen.frames.shape == (1, 2, 2, 3) and seen.sound.rate == 8000


def test_an_observer_cannot_change_a_clip(caplog):
    def paint(result):
        result.provenance["hy"] = "changed"
        result.frames = None
        result.sound.samples = None

    def draw(result):
        result.frames[:] = 255

    def shout(result):
        result.sound.samples[:] = 1

    some = Plugins([])
    for name, observer in (("paint", paint), ("draw", draw), ("shout", shout)):
        some.add(name, plugin(on_run_end=observer))
    result = Result(
        np.zeros((1, 2, 2, 3), np.uint8), 8.0, Sound(np.zeros((1, 4), np.float32), 8000), {"hy": 1}
    )
    with caplog.at_level(logging.ERROR, "hy"):
        some.run_end("request", result, None)
    assert not result.frames.any() and not result.sound.samples.any() and result.provenance == {"hy": 1}
    assert result.frames.flags.writeable and result.sound.samples.flags.writeable
    assert ["draw" in r.getMessage() or "shout" in r.getMessage() for r in caplog.records] == [True, True]


def test_every_hook_has_a_test():
    assert {f"test_hook_{name}" for name in HOOKS} == {
        name for name in globals() if name.startswith("test_hook_")
    }


def test_a_failing_observer_is_logged_with_its_name_and_the_others_are_still_told(caplog):
    some, told = observing("on_run_start")
    some.add("bad", plugin(on_run_start=lambda: 1 / 0))
    some.add("last", plugin(on_run_start=lambda request: told.append(request)))
    with caplog.at_level(logging.ERROR, "hy"):
        some.run_start("request")
    assert told == [{"request": "request"}, "request"]
    expected = "plugin 'bad', on_run_start (test_hooks.py:167): ZeroDivisionError: division by zero"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_an_interrupt_in_an_observer_ends_the_run():
    def interrupt():
        raise KeyboardInterrupt

    some = Plugins([])
    some.add("bad", plugin(on_step=interrupt))
    with pytest.raises(KeyboardInterrupt):
        some.step(None, 1, 2, 0.1)


def test_registration_hooks_are_called_once():
    calls = []
    some = Plugins([])
    some.add("night", plugin(register_stages=lambda register: calls.append(register)))
    some.stages()
    some.stages()
    assert len(calls) == 1


def test_a_failed_registration_is_asked_again():
    calls = []

    def sometimes(register):
        calls.append(register)
        if len(calls) == 1:
            raise ValueError("not yet")
        register("night", max)

    some = Plugins([])
    some.add("night", plugin(register_stages=sometimes))
    with pytest.raises(Exception, match="not yet"):
        some.stages()
    assert list(some.stages()) == ["night"]


def test_tracing_prints_hooks_with_their_owners(monkeypatch, capsys):
    monkeypatch.setenv("HY_TRACE", "1")
    some, _ = observing("on_run_start")
    some.run_start(None)
    taking("register_stages", "x", max).stages()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["trace", "night", "on_run_start"],
        ["trace", "night", "register_stages"],
    ]
    assert all(line.endswith(" ms") for line in lines)


def test_registering_and_looking_up_imports_nothing_heavy():
    file = Path(__file__).parents[1] / "plugins" / "hy_dawn.py"
    code = (
        "import sys\n"
        "from hy_core import Plugins\n"
        "some = Plugins()\n"
        f"some.load({str(file)!r})\n"
        "tables = [some.conditioners(), some.samplers(), some.presets(), some.writers()]\n"
        "tables += [some.objectives(), some.strategies(), some.datasets(), some.stages(), some.checks()]\n"
        "cls = tables[0]['hy_dawn']\n"
        "cls(curve='0.1,0.9').validate(None)\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'click', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
