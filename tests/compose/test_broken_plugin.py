"""A broken plugin is one line and its own exit code; everything else goes on."""

from __future__ import annotations

import logging

import pytest
from hy_core import Conditioner, ConflictError, PluginError, Plugins, generate
from plugins.made import install, plugin

IMPORTS = "import a_module_that_nobody_has"
REGISTERS = "from hy_core import hookimpl\n@hookimpl\ndef register_conditioners(register): register(3)"
VALIDATES = """
from __future__ import annotations
from dataclasses import dataclass
from hy_core import Conditioner, hookimpl, option
class Bad(Conditioner):
    "Refuses everything."
    @dataclass(frozen=True)
    class Options:
        word: str = option("no", help="A word.")
    def validate(self, request):
        raise self.error("word", "is never right")
@hookimpl
def register_conditioners(register): register(Bad)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installed: plugins that break on import, on registration, and on validation, and a good one."""
    monkeypatch.delenv("HY_PLUGINS", raising=False)
    good = VALIDATES.replace("raise self.error", "return (lambda *words: None)").replace("Bad", "Good")
    for name, text in (
        ("imports", IMPORTS),
        ("registers", REGISTERS),
        ("validates", VALIDATES),
        ("good", good),
    ):
        (tmp_path / f"bad_{name}.py").write_text(text)
        install(tmp_path, f"hy-{name}", {name: f"bad_{name}"})
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("imports", 3, "Error: plugin 'imports' failed to load: No module named 'a_module_that_nobody_has'"),
        (
            "registers",
            3,
            "Error: plugin 'registers', register_conditioners (bad_registers.py:3): TypeError: 3 isn't a subclass",
        ),
        ("validates", 2, "Error: --validates-word: is never right"),
    ],
)
def test_each_way_to_break_is_one_line_and_its_exit_code(hy, site, name, code, line):
    run = hy("generate", "a red circle", "-p", "good", "-p", name, "-o", site / "x.mp4")
    assert run.exit_code == code and run.stdout == ""
    errors = run.stderr.splitlines()
    assert errors[0].startswith(line) and all(more.startswith("Hint: ") for more in errors[1:])
    assert not (site / "x.mp4").exists()


def test_what_does_not_select_a_broken_plugin_does_not_notice_it(hy, site):
    for arguments in (
        ["--help"],
        ["generate", "--help"],
        ["generate", "-p", "good", "--help"],
        ["plugins", "list"],
    ):
        run = hy(*arguments)
        assert run.exit_code == 0, (arguments, run.stderr)
        assert "Traceback" not in run.stderr
    states = {line.split()[0]: line.split()[5] for line in hy("plugins", "list").stdout.splitlines()}
    assert [states[name] for name in ("good", "imports", "registers", "validates")] == [
        "ok",
        "broken:",
        "broken:",
        "ok",
    ]


class Greedy(Conditioner):
    """Takes the first frame for itself."""

    def encode(self, request, cond):
        import torch

        cond.fix_frames(self.name, [0], torch.zeros(1, 16, 1, *cond.size))


def test_two_that_want_the_same_frame_are_a_conflict_that_names_both(tiny):
    first, second = type("First", (Greedy,), {}), type("Second", (Greedy,), {})
    with pytest.raises(ConflictError, match="^first and second both set latent frame 0") as caught:
        generate(tiny.request, [first(), second()], model=tiny.model)
    assert caught.value.exit_code == 2


def test_two_that_attach_the_same_name_are_a_conflict(tiny):
    class Mine(Conditioner):
        def attach(self, dit, folder=None):
            from hy_core.dit import Additive

            dit.time.attach("shared", Additive(1, dit.width))

    first, second = type("First", (Mine,), {}), type("Second", (Mine,), {})
    keys = list(tiny.dit.state_dict())
    with pytest.raises((ConflictError, PluginError), match="shared"):
        generate(tiny.request, [first(), second()], model=tiny.model)
    with tiny.model.attached([]):
        pass
    assert list(tiny.dit.state_dict()) == keys


def test_an_observer_that_fails_never_ends_a_run(tiny, caplog):
    def fail(request):
        raise RuntimeError("no disk")

    some = Plugins([])
    some.add("gallery", plugin(on_run_start=fail, on_step=fail, on_run_end=fail))
    with caplog.at_level(logging.ERROR, "hy"):
        result = generate(tiny.request, model=tiny.model, plugins=some)
    assert result.frames.shape == (9, 32, 32, 3)
    hooks = ("on_run_start", "on_step", "on_step", "on_run_end")
    for record, hook in zip(caplog.records, hooks, strict=True):
        start, end = f"plugin 'gallery', {hook} (test_broken_plugin.py:", "): RuntimeError: no disk"
        assert record.getMessage().startswith(start) and record.getMessage().endswith(end)
