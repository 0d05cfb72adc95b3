"""A stranger's path: write a plugin from the template, install it, run its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest
from plugins.made import install


@pytest.fixture(params=[(), ("--adapter",)], ids=["finish", "adapter"])
def rendered(request, hy, tmp_path, monkeypatch):
    """The folder of a new plugin, installed by what its own pyproject.toml says."""
    monkeypatch.chdir(tmp_path)
    run = hy("plugins", "new", "morning-mist", *request.param)
    assert run.exit_code == 0, run.stderr
    folder = tmp_path / "hy-morning-mist"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    plugins = project["entry-points"]["hy.plugins"]
    needs = project["dependencies"]
    install(tmp_path / "site", project["name"], plugins, version=project["version"], requires=needs)
    return folder


def path_of(folder) -> dict[str, str]:
    """An environment in which the plugin is installed."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder.parent / "site"), str(folder)])}


@pytest.mark.timeout(900)  # imports torch and transformers in a process of its own
def test_the_tests_of_a_new_plugin_pass(rendered):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(rendered)]
    done = subprocess.run(command, cwd=rendered, env=path_of(rendered), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_tests_of_a_new_plugin_can_fail(rendered):
    module = rendered / "hy_morning_mist.py"
    adapter = "def attach" in module.read_text()
    broken = ("values[:, None]", "0 * values[:, None]") if adapter else ("* self.options.level", "* 1.0")
    module.write_text(module.read_text().replace(*broken))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "scales or stretched",
        str(rendered),
    ]
    done = subprocess.run(command, cwd=rendered, env=path_of(rendered), capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed" in done.stdout


def test_a_new_plugin_is_listed_and_gives_its_options(rendered):
    def hy_says(*arguments: str) -> str:
        command = [sys.executable, "-m", "hy_core", *arguments]
        return subprocess.run(command, env=path_of(rendered), capture_output=True, text=True).stdout

    row = next(line for line in hy_says("plugins", "list").splitlines() if line.startswith("morning-mist"))
    assert row.split()[1:3] == ["0.1.0", "hy-morning-mist"] and row.endswith("ok")
    flag = "--morning-mist-curve" if (rendered / "hy_morning_mist.toml").exists() else "--morning-mist-level"
    assert flag in hy_says("generate", "-p", "morning-mist", "--help")
    if flag.endswith("curve"):  # its recipe is found by name and is read
        assert "morning-mist" in hy_says("train", "--list")
