"""Who may import whom: the core names no sibling, siblings don't know each other, thin modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
ALLOWED = {
    "hy_core": set(),
    "hy_i2v": {"hy_core"},
    "hy_avatar": {"hy_core"},
    "hy_audio": {"hy_core"},
    "hy_data": {"hy_core"},
    "hy_world": {"hy_core"},
    "hy_train": {"hy_core", "hy_world"},
}
HEAVY = ("torch", "numpy", "transformers", "lightning", "av", "rich")
THIN = [
    "hy_core",
    "hy_core.builtin",
    "hy_core.cli",
    "hy_core.cli.lazy",
    "hy_core.cli.output",
    "hy_core.cli.plugins",
    "hy_core.cli.select",
    "hy_core.conditioner",
    "hy_core.errors",
    "hy_core.hooks",
    "hy_core.models",
    "hy_core.options",
    "hy_core.plugins",
    "hy_core.registered",
    "hy_core.request",
    "hy_core.settings",
    "hy_core.testing.plugin",
    "hy_core.trace",
]


def sources(package: str) -> list[Path]:
    """The Python files of a package."""
    return sorted((PACKAGES / package.replace("_", "-") / "src" / package).rglob("*.py"))


def names(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, and every string that could name one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.value.replace(":", ".")


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_those_below_it(package):
    assert sources(package)
    allowed = ALLOWED[package] | {package}
    for path in sources(package):
        for name in names(path):
            first = name.split(".")[0]
            assert first not in ALLOWED or first in allowed, f"{path} names {name}"


def test_the_check_sees_imports_inside_functions_and_in_strings(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from hy_i2v.pinning import pin\n    return 'hy_world:World'\n")
    assert list(names(path)) == ["hy_i2v.pinning", "hy_world.World"]


@pytest.mark.parametrize("package", ALLOWED)
def test_no_package_uses_forward_hooks_on_the_network(package):
    for path in sources(package):
        assert "register_forward" not in path.read_text(encoding="utf-8"), path


def test_thin_modules_import_nothing_heavy():
    code = (
        "import importlib, sys\n"
        f"for name in {THIN!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [one for one in {HEAVY!r} if one in sys.modules]\n"
        "    assert not heavy, (name, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_says_what_it_is_about():
    for package in ALLOWED:
        for path in sources(package):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), f"{path} has no docstring"
            assert "from __future__ import annotations" in path.read_text(encoding="utf-8"), path
