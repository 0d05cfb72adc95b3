"""hy starts in a moment: help imports no torch, and only the plugins that are named."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

HEAVY = {"torch", "numpy", "transformers", "lightning", "av", "PIL", "rich", "safetensors"}
PLUGIN = '''"""A plugin in a file."""
from __future__ import annotations
from dataclasses import dataclass
from hy_core.conditioner import Conditioner
from hy_core.hooks import hookimpl
from hy_core.options import option

class Dawn(Conditioner):
    """Follow a brightness curve."""
    @dataclass(frozen=True)
    class Options:
        curve: str = option("0,1", help="Brightness at evenly spaced moments.")

@hookimpl
def register_conditioners(register):
    register(Dawn)
'''


def modules(*arguments: str, cwd: Path | None = None) -> tuple[str, set[str]]:
    """What `hy ARGUMENTS` prints, and the modules it imported."""
    code = "import sys; from hy_core.cli import run; run(sys.argv[1:]); print('\\n::', *sys.modules)"
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=cwd
    )
    shown, _, names = child.stdout.rpartition("\n::")
    return shown, set(names.split())


def test_help_is_short_and_light() -> None:
    shown, names = modules("--help")
    assert len(shown.strip().splitlines()) <= 25
    assert not HEAVY & names
    assert len(names) < 300
    for command in ("generate", "inspect", "plugins", "config", "doctor"):
        assert f"  {command} " in shown
    others = {entry.value.partition(":")[0] for entry in entry_points(group="hy.commands")}
    assert not others & names  # commands of other packages are shown without importing them


def test_help_shows_the_commands_of_other_packages_by_their_summary() -> None:
    entries = [entry for entry in entry_points(group="hy.commands") if "." not in entry.name]
    if not entries:
        pytest.skip("no package with a command is installed")
    shown, _ = modules("--help")
    for entry in entries:
        assert entry.name in shown and entry.dist.metadata["Summary"][:20] in shown


def test_help_of_generate_with_a_plugin_is_light(tmp_path: Path) -> None:
    (tmp_path / "dawn.py").write_text(PLUGIN)
    shown, names = modules("generate", "-p", "./dawn.py", "--help", cwd=tmp_path)
    assert "dawn options" in shown and "--dawn-curve" in shown and "Follow a brightness curve" in shown
    assert not HEAVY & names
    assert len(names) < 350


@pytest.mark.parametrize(
    "name", sorted({entry.name for entry in entry_points(group="hy.plugins")}) or ["none"]
)
def test_every_installed_plugin_is_light(name: str) -> None:
    if name == "none":
        pytest.skip("no plugin is installed")
    _, names = modules("generate", "-p", name, "--help")
    assert not HEAVY & names
    other = {e.value for e in entry_points(group="hy.plugins") if e.name != name}
    assert not other & names  # the ones that were not named were not imported


def test_help_of_generate_names_the_plugins_that_there_are() -> None:
    shown, names = modules("generate", "--help")
    found = entry_points(group="hy.plugins")
    for entry in found:
        assert entry.name in shown and entry.value not in names


def test_a_wrong_option_costs_no_torch() -> None:
    _, names = modules("generate", "a fox", "--size", "33x33")
    assert not {"torch", "transformers"} & names


def test_help_takes_little_time() -> None:
    """The goal is 0.3 s of CPU; the bound is loose because other work slows a shared machine's seconds."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "hy_core", "--help"], capture_output=True, check=True)
        after = os.times()
        spent.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(spent) < 0.6
