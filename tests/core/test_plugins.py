"""Plugins are found without imports, loaded when selected, and a broken one is one line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hy_core import Conditioner, PluginError, Plugins, UsageError
from hy_core.flow.sampler import SAMPLERS
from plugins.made import entries, install, plugin

FOLDER = Path(__file__).parents[1] / "plugins"


@pytest.fixture(autouse=True)
def _fixture_plugins(monkeypatch):
    monkeypatch.delenv("HY_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def site(tmp_path):
    """A folder with three installed plugins: a good one, a broken one, and one that imports torch."""
    install(tmp_path, "hy-dawn", {"dawn": "hy_dawn"}, version="0.3.0", summary="Follow a brightness curve")
    needs = ['a_module_that_nobody_has>=1; extra == "all"']
    install(tmp_path, "hy-broken", {"broken": "hy_broken"}, requires=needs)
    install(tmp_path, "hy-slow", {"slow": "hy_slow"})
    return tmp_path


def test_found_tells_names_and_packages_without_importing(site):
    code = (
        "import sys\n"
        "from hy_core import Plugins\n"
        "found = Plugins().found\n"
        "print(*found, found['dawn'].package, found['dawn'].summary, sep='|')\n"
        "names = ('hy_dawn', 'hy_broken', 'hy_slow', 'torch', 'numpy', 'click')\n"
        "print([name for name in names if name in sys.modules])"
    )
    path = f"{site}:{FOLDER}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    names, imported = done.stdout.splitlines()
    assert {"broken", "dawn", "slow"} <= set(names.split("|"))
    assert names.endswith("hy-dawn 0.3.0|Follow a brightness curve")
    assert imported == "[]"


def test_only_the_selected_plugin_is_imported(site, monkeypatch):
    for name in ("hy_dawn", "hy_broken", "hy_slow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    some = Plugins(entries(site))
    some.load("dawn")
    assert [name for name in ("hy_dawn", "hy_broken", "hy_slow") if name in sys.modules] == ["hy_dawn"]
    assert list(some.loaded) == ["dawn"] and some.hooks("dawn") == ["register_conditioners"]


def test_conditioners_come_in_the_order_of_selection_and_bear_their_names(site):
    class Other(Conditioner):
        """Nothing."""

    some = Plugins(entries(site))
    some.add("zebra", plugin(register_conditioners=lambda register: register(Other)))
    both = some.conditioners(["zebra", "dawn"])
    assert list(both) == ["zebra", "dawn"] and list(some.conditioners(["dawn", "zebra"])) == ["dawn", "zebra"]
    assert both["zebra"].name == "zebra" and both.owner("dawn") == "dawn"


def test_a_broken_plugin_is_one_line_with_a_remedy_and_the_rest_works(site):
    some = Plugins(entries(site))
    with pytest.raises(PluginError) as caught:
        some.load("broken")
    assert str(caught.value) == "plugin 'broken' failed to load: No module named 'a_module_that_nobody_has'"
    assert caught.value.hint == "hy plugins install 'hy-broken[all]'" and caught.value.exit_code == 3
    assert list(some.conditioners(["dawn"])) == ["dawn"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "raise ValueError('two\\nlines')",
            r"plugin 'odd' failed to load \(odd.py:1\): ValueError: two lines",
        ),
        ("import sys; sys.exit(4)", r"plugin 'odd' failed to load \(odd.py:1\): SystemExit: 4"),
        ("def broken(:", "plugin 'odd' failed to load: SyntaxError: "),
        ("x = 1", "plugin 'odd' has no hooks"),
        (
            "from hy_core import hookimpl\n@hookimpl\ndef register_conditioner(register): pass",
            "plugin 'odd': there is no hook 'register_conditioner'",
        ),
        (
            "from hy_core import hookimpl\n@hookimpl\ndef on_step(request, colour): pass",
            "plugin 'odd': .*colour",
        ),
        (
            "from hy_core import hookimpl\n@hookimpl\ndef register_samplers(register): 1 / 0",
            r"plugin 'odd', register_samplers \(odd.py:3\): ZeroDivisionError: division by zero",
        ),
        (
            "import hy_core as h\n@h.hookimpl\ndef register_samplers(register): register('x', 'nowhere')",
            "plugin 'odd', register_samplers .odd.py:3.: ValueError: 'x': 'nowhere' isn't \"module:attribute\"",
        ),
    ],
)
def test_each_way_to_be_broken_is_one_line_and_leaves_nothing_behind(tmp_path, text, message):
    (tmp_path / "odd.py").write_text(text)
    some = Plugins([])
    with pytest.raises(PluginError, match=f"^{message}") as caught:
        some.load(str(tmp_path / "odd.py"))
        some.samplers()
    assert "\n" not in str(caught.value)
    if "register_samplers" not in text:
        assert not some.loaded and "hy_local_odd" not in sys.modules
        (tmp_path / "odd.py").write_text("from hy_core import hookimpl\n@hookimpl\ndef on_run_start(): pass")
        assert some.load(str(tmp_path / "odd.py")) == ["odd"]


def test_a_misspelt_hook_gets_a_suggestion():
    with pytest.raises(PluginError) as caught:
        Plugins([]).add("odd", plugin(register_sampler=lambda register: None))
    assert caught.value.hint == "did you mean register_samplers?"


def test_a_missing_plugin_gets_a_suggestion(site):
    with pytest.raises(PluginError, match="^no plugin 'down'$") as caught:
        Plugins(entries(site)).load("down")
    assert caught.value.hint == "did you mean dawn?"
    with pytest.raises(PluginError) as caught:
        Plugins(entries(site)).load("avatar")
    assert caught.value.hint == "installed: broken, dawn, slow; more: hy plugins install"


def test_a_name_installed_twice_is_reported_with_both_packages_when_selected(site, tmp_path):
    install(tmp_path / "more", "hy-dusk", {"dawn": "hy_dusk"}, version="2.0")
    some = Plugins(entries(site, tmp_path / "more"))
    assert some.found["dawn"].rivals == ("hy-dusk 2.0",)
    with pytest.raises(
        PluginError, match="^plugin 'dawn' is installed twice: by hy-dawn 0.3.0 and hy-dusk 2.0$"
    ):
        some.load("dawn")


def test_a_name_registered_twice_names_both_owners(site):
    some = Plugins(entries(site))
    other = type("Dawn", (Conditioner,), {})
    some.add("dusk", plugin(register_conditioners=lambda register: register(other, "dawn")))
    with pytest.raises(PluginError, match="^'dawn' is registered by hy-dawn and dusk$"):
        some.conditioners(["dawn", "dusk"])
    some.add("oil", plugin(register_samplers=lambda register: register("euler", "math:sqrt")))
    with pytest.raises(PluginError, match="^'euler' is registered by hy-core and oil$"):
        some.samplers()


def test_an_entry_point_that_no_flag_can_begin_with_is_refused(tmp_path):
    install(tmp_path, "hy-odd", {"Odd.One": "hy_dawn"})
    with pytest.raises(PluginError, match="^hy-odd 0.1.0: 'Odd.One' isn't a name for a plugin$"):
        Plugins(entries(tmp_path)).load("Odd.One")


def test_one_class_has_one_name():
    other = type("Dawn", (Conditioner,), {})

    def both(register):
        register(other)
        register(other, "again")

    some = Plugins([])
    some.add("dawn", plugin(register_conditioners=both))
    with pytest.raises(PluginError, match="plugin 'dawn' registers one class twice"):
        some.conditioners()


def test_hy_plugins_restricts_what_may_be_selected(site, monkeypatch):
    monkeypatch.setenv("HY_PLUGINS", "slow, broken")
    some = Plugins(entries(site))
    assert list(some.found) == ["broken", "slow"] and list(some.off) == ["dawn"]
    with pytest.raises(PluginError, match="plugin 'dawn' is switched off by HY_PLUGINS=broken,slow"):
        some.load("dawn")
    monkeypatch.setenv("HY_PLUGINS", "")
    assert not Plugins(entries(site)).found
    with pytest.raises(PluginError, match="switched off"):
        Plugins(entries(site)).load(str(FOLDER / "hy_dawn.py"))


def test_a_file_is_a_plugin_named_by_its_stem():
    some = Plugins([])
    path = str(FOLDER / "hy_dawn.py")
    assert some.load(path, path) == ["hy_dawn", "hy_dawn"]
    cls = some.conditioners()["hy_dawn"]
    assert cls.name == "hy_dawn" and some.loaded["hy_dawn"].summary.startswith("hy-dawn: let the brightness")
    with pytest.raises(UsageError, match="^--hy-dawn-curve: needs numbers"):
        cls(curve="a").validate(None)


def test_a_file_may_not_take_the_name_of_an_installed_plugin(site, tmp_path):
    path = tmp_path / "dawn.py"
    path.write_text("")
    with pytest.raises(PluginError, match="dawn.py and hy-dawn 0.3.0 both are plugin 'dawn'"):
        Plugins(entries(site)).load(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dawn.py", "isn't a name"),
        ("a b.py", "isn't a name"),
        ("absent.py", "no such plugin file"),
        ("./x", "no such"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, message):
    with pytest.raises(PluginError, match=message):
        Plugins([]).load(str(tmp_path / name))


def test_examining_tells_states_and_a_bad_one_never_spoils_the_next(site, monkeypatch):
    for name in ("hy_dawn", "hy_broken", "hy_slow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    some = Plugins(entries(site))
    some.add("odd", plugin(register_stages=lambda register: None))
    states = {name: some.examine(name) for name in some.found}
    assert {name: health.state for name, health in states.items() if name != "slow"} == {
        "broken": "broken",
        "dawn": "ok",
    }
    assert states["broken"].detail.endswith("No module named 'a_module_that_nobody_has'")
    assert states["dawn"].hooks == ["register_conditioners"] and states["dawn"].milliseconds > 0


def test_examining_sees_who_imports_torch(site):
    code = "from hy_core import Plugins; print(*[Plugins().examine(name).state for name in ('dawn', 'slow')])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": f"{site}:{FOLDER}"}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["ok", "slow"]


def test_the_second_of_two_that_clash_is_the_broken_one():
    first, second = (EntryPoint(name, f"clash_{name}", "hy.plugins") for name in ("a", "b"))
    for name in ("a", "b"):
        module = plugin(register_objectives=lambda register: register("flow", "math:sqrt"))
        sys.modules[f"clash_{name}"] = module
    some = Plugins([first, second])
    states = [some.examine(name) for name in ("a", "b")]
    assert [health.state for health in states] == ["ok", "broken"]
    assert states[1].detail == "'flow' is registered by clash_a and clash_b" and list(some.loaded) == ["a"]


def test_targets_are_imported_on_use_and_fail_in_one_line():
    some = Plugins([])

    def samplers(register):
        register("root", "math:sqrt")
        register("gone", "math:nothing")
        register("object", max)

    some.add("oil", plugin(register_samplers=samplers))
    found = some.samplers()
    assert found["root"](9) == 3 and found["object"](2, 3) == 3 and found.owner("root") == "oil"
    with pytest.raises(PluginError, match="plugin 'oil': sampler 'gone': can't import math:nothing"):
        found["gone"]
    with pytest.raises(UsageError, match="^no sampler 'heum'$") as caught:
        found.pick("heum")
    assert caught.value.hint == "did you mean heun?"
    assert found.pick("heun") is SAMPLERS["heun"] and "heum" not in found


def test_presets_of_the_core_are_files_that_are_there():
    for path in Plugins([]).presets().values():
        assert path.is_file() and path.suffix == ".toml"


@pytest.mark.parametrize(
    ("hook", "arguments", "message"),
    [
        ("register_conditioners", (int,), "isn't a subclass of Conditioner"),
        ("register_conditioners", (Conditioner(),), "isn't a subclass of Conditioner"),
        ("register_conditioners", (Conditioner, "Two words"), "'Two words' isn't a name for a conditioner"),
        ("register_models", ("unet", "x", max), "a model is one of dit, vae, text, vocoder, not 'unet'"),
        ("register_presets", ("x", "/nowhere.toml"), "no such file"),
        ("register_writers", ("webp", max), 'isn\'t a suffix such as ".webp"'),
        ("register_checks", ("x", 3), "isn't a function"),
        ("register_stages", (3, max), "isn't a name"),
    ],
)
def test_what_does_not_fit_a_hook_is_refused(hook, arguments, message):
    some = Plugins([])
    some.add("odd", plugin(**{hook: lambda register: register(*arguments)}))
    with pytest.raises(PluginError, match=message):
        getattr(some, hook.removeprefix("register_"))(*(("dit",) if hook == "register_models" else ()))
