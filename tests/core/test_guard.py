"""Whatever goes wrong inside a plugin names the plugin, the call and the line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from hy_core import Conditioner, PluginError, Plugins, UsageError, generate, option
from hy_core.errors import is_out_of_memory
from plugins.made import entries, install, plugin

HEAD = "from hy_core import Conditioner, hookimpl\n\n\nclass Mist(Conditioner):\n    '''Mist.'''\n\n"
TAIL = "\n\n\n@hookimpl\ndef register_conditioners(register):\n    register(Mist)\n"


@pytest.fixture
def mist(tmp_path):
    """A file plugin `mist` with these lines of methods; the first is line 7. Returns its conditioner."""

    def make(methods: str) -> Conditioner:
        (tmp_path / "mist.py").write_text(
            HEAD + "\n".join(f"    {line}" for line in methods.split("\n")) + TAIL
        )
        some = Plugins([])
        some.load(str(tmp_path / "mist.py"))
        return some.conditioners(["mist"])["mist"]()

    return make


CASES = {
    "def finish(self, request, result):\n    1 / 0": "finish (mist.py:8): ZeroDivisionError: division by zero",
    "def finish(self, result):\n    pass": "finish (mist.py:7): TypeError: Mist.finish() takes 2 positional",
    "def finish(self, request, result):\n    return result.frames": "finish (mist.py:7): returned a ndarray, which",
    "def finish(self, request, result):\n    result.frames = result.frames / 2": (
        "finish (mist.py:7): left result.frames as float64 [9, 32, 32, 3]; they must be a uint8 array [F, H, W, 3]"
    ),
    "def finish(self, request, result):\n    import sys\n    sys.exit(0)": "finish (mist.py:9): SystemExit: 0",
    "def encode(self, request, cond):\n    raise ValueError('two\\nlines')": (
        "encode (mist.py:8): ValueError: two lines"
    ),
    "def encode(self, request):\n    pass": "encode (mist.py:7): TypeError: ",
    "def before_step(self, latents, t, cond):\n    latents.mul_(1)": (
        "before_step (mist.py:7): returned None instead of latents [1, 16, 3, 4, 4] of torch.float32"
    ),
    "def before_step(self, latents, t, cond):\n    return latents[:, :, :-1]": (
        "before_step (mist.py:7): returned [1, 16, 2, 4, 4] of torch.float32 instead of latents [1, 16, 3, 4, 4]"
    ),
    "def branches(self, request, cond):\n    yield 1 / 0": "branches (mist.py:8): ZeroDivisionError: division by zero",
    "def segments(self, request):\n    return 3": "segments (mist.py:7): returned a int instead of Segments or None",
    "def weights(self, folder=None):\n    return {}": "weights (mist.py:7): returned a dict instead of a path or None",
}


@pytest.mark.parametrize("methods", CASES)
def test_an_error_inside_a_plugin_names_it_and_the_line(mist, tiny, methods):
    with pytest.raises(PluginError) as caught:
        generate(tiny.request, [mist(methods)], model=tiny.model)
    assert caught.value.message.startswith(f"plugin 'mist', {CASES[methods]}"), caught.value.message
    assert "\n" not in caught.value.message and caught.value.hint


def test_errors_of_ours_and_a_lack_of_memory_pass(mist):
    with pytest.raises(UsageError, match="^--mist-depth: too deep$"):
        mist("def validate(self, request):\n    raise self.error('depth', 'too deep')").validate(None)
    with pytest.raises(MemoryError):
        mist("def validate(self, request):\n    raise MemoryError").validate(None)
    with pytest.raises(KeyboardInterrupt):
        mist("def validate(self, request):\n    raise KeyboardInterrupt").validate(None)
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(
        ValueError("out of memory")
    )


def test_the_innermost_line_of_the_plugin_is_named(mist):
    methods = "def validate(self, request):\n    self.look()\n\ndef look(self):\n    import json\n    json.loads('{')"
    with pytest.raises(PluginError, match=r"^plugin 'mist', validate \(mist.py:12\): JSONDecodeError: "):
        mist(methods).validate(None)


def test_a_method_of_a_parent_is_guarded_once_and_named_by_the_child(mist):
    class Fog(type(mist("def validate(self, request):\n    raise KeyError('fog')"))):
        def validate(self, request):
            super().validate(request)

    with pytest.raises(PluginError, match=r"^plugin 'fog', validate \(mist.py:8\): KeyError: 'fog'$"):
        Fog().validate(None)


def test_samplers_and_writers_of_plugins_are_named(tiny):
    some = Plugins([])
    some.add("oil", plugin(register_samplers=lambda register: register("oil", lambda *a: 1 / 0)))
    with pytest.raises(
        PluginError, match=r"^plugin 'oil', sampler 'oil' \(test_guard.py:\d+\): ZeroDivisionError"
    ):
        some.samplers()["oil"](1)
    some.add("flip", plugin(register_writers=lambda register: register(".flip", lambda result, path: 1 / 0)))
    with pytest.raises(
        PluginError, match=r"^plugin 'flip', writer '.flip' \(test_guard.py:\d+\): ZeroDivisionError"
    ):
        some.writers()[".flip"](None, None)


# -- requirements and records ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "need, message",
    [
        ("hy-core>=99", r"requires hy-core>=99, but hy-core 0.1.0 is installed"),
        ("nobody-has-this>=2", r"requires nobody-has-this>=2, which is not installed"),
    ],
)
def test_requirements_are_checked_when_a_plugin_is_loaded(tmp_path, monkeypatch, need, message):
    (tmp_path / "hy_tide.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "hy-tide", {"tide": "hy_tide"}, requires=[need, 'other>=1; extra == "more"'])
    some = Plugins(entries(tmp_path))
    with pytest.raises(PluginError, match=rf"^plugin 'tide' \(hy-tide 0.1.0\) {message}$") as caught:
        some.load("tide")
    assert caught.value.hint == f"hy plugins install --upgrade hy-tide '{need}'"
    health = some.examine("tide")
    assert health.state == "broken" and need in health.detail


def test_a_name_that_is_missing_says_which_versions_meet(tmp_path, monkeypatch):
    (tmp_path / "hy_ebb.py").write_text("from hy_core import SomethingNew")
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "hy-ebb", {"ebb": "hy_ebb"}, requires=["hy-core>=0.1"])
    with pytest.raises(PluginError, match="cannot import name 'SomethingNew'") as caught:
        Plugins(entries(tmp_path)).load("ebb")
    assert caught.value.hint == (
        "hy-core 0.1.0 is installed; hy-ebb 0.1.0 requires hy-core>=0.1: get versions that go together"
    )


def test_records_hold_the_path_and_hash_of_a_file_and_the_hash_of_a_module(tmp_path, monkeypatch, mist):
    mist("def validate(self, request):\n    pass")
    file = tmp_path / "mist.py"
    (tmp_path / "site").mkdir()
    code = "from hy_core import hookimpl\n@hookimpl\ndef on_run_start(): pass\n"
    (tmp_path / "site" / "hy_reed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "site")
    install(tmp_path / "site", "hy-reed", {"reed": "hy_reed"})
    some = Plugins(entries(tmp_path / "site"))
    some.load(str(file), "reed")
    first, second = some.records(["mist", "reed"])
    assert first == {
        "name": "mist",
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert (second["name"], second["path"]) == ("reed", "") and len(second["sha256"]) == 64
    assert some.distributions(["mist", "reed"]) == ["hy-reed"]
    (tmp_path / "site" / "hy_reed.py").write_text(code + "# changed\n")
    assert some.records(["reed"])[0]["sha256"] != second["sha256"]


def test_the_frames_of_a_good_finish_are_accepted(mist, tiny):
    methods = "def finish(self, request, result):\n    result.frames = result.frames // 2"
    made = generate(tiny.request, [mist(methods)], model=tiny.model)
    assert made.frames.dtype == np.uint8


# -- modules at ports, and training ------------------------------------------------------------------------

ATTACH = """def attach(self, dit, folder=None):
    from torch import nn

    class Odd(nn.Module):
        def forward(self, x, feed):
            BODY

    dit.time.attach(self.name, Odd())

def encode(self, request, cond):
    cond.set_adapter_inputs(self.name, 1.0)"""


@pytest.mark.parametrize(
    "body, message",
    [
        (
            "return x + feed.missing",
            "plugin 'mist', Odd at a port (mist.py:12): AttributeError: 'float' object has no",
        ),
        ("return x[:, :1]", "plugin 'mist', Odd at a port: returned [1, 1, 48] for x [1, 3, 48]"),
        ("return None", "plugin 'mist', Odd at a port: returned NoneType for x [1, 3, 48]"),
    ],
)
def test_a_module_at_a_port_is_named(mist, tiny, body, message):
    with pytest.raises(PluginError) as caught:
        generate(tiny.request, [mist(ATTACH.replace("BODY", body))], model=tiny.model)
    assert caught.value.message.startswith(message)


def test_adapter_inputs_that_nothing_reads_are_refused(mist, tiny):
    methods = "def encode(self, request, cond):\n    cond.set_adapter_inputs(self.name, 1.0)"
    with pytest.raises(
        PluginError, match="^plugin 'mist' sets adapter inputs, but attached no module that reads"
    ):
        generate(tiny.request, [mist(methods)], model=tiny.model)


def test_in_training_required_options_are_none():
    class Needs(Conditioner):
        @dataclass(frozen=True)
        class Options:
            image: str = option(help="A picture.")
            size: int = option(3, help="A size.")

    made = Needs.for_training()
    assert made.options.image is None and made.options.size == 3
    with pytest.raises(UsageError, match="--needs-image is required"):
        Needs()


def test_a_recipe_finds_a_plugin_that_is_a_file_beside_it(tmp_path):
    from hy_train.recipe import load

    (tmp_path / "r.toml").write_text(
        "objective = 'flow'\nsteps = 1\nbatch = 1\nplugins = ['./mist.py', 'i2v']\n"
    )
    assert load(str(tmp_path / "r.toml")).plugins == (str(tmp_path / "mist.py"), "i2v")
