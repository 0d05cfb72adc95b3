"""hy plugins: list, info, new, install, bisect."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hy_core.cli.bisect import culprits, spelt_out, without
from hy_core.cli.plugins import installer
from hy_core.errors import MissingError
from hy_core.plugins import Plugins
from plugins.made import entries, install

FOLDER = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path with a good plugin, a broken one, and one that imports torch."""
    monkeypatch.delenv("HY_PLUGINS", raising=False)
    folder = tmp_path / "site"
    install(folder, "hy-dawn", {"dawn": "hy_dawn"}, version="0.3.0", summary="Follow a brightness curve")
    install(folder, "hy-broken", {"broken": "hy_broken"})
    install(folder, "hy-slow", {"slow": "hy_slow"})
    for path in (FOLDER, folder):
        monkeypatch.syspath_prepend(str(path))
    return folder


def hy_alone(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run hy in a process of its own, with the plugins of `site`."""
    known = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{FOLDER}"} | environment
    command = [sys.executable, "-m", "hy_core", *arguments]
    return subprocess.run(command, env=known, capture_output=True, text=True)


def test_list_shows_every_plugin_and_a_broken_one_is_a_row(site):
    done = hy_alone(site, "plugins", "list")
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert done.returncode == 0
    assert rows["name"] == ["name", "version", "package", "hooks", "ms", "state"]
    assert rows["dawn"][:4] == ["dawn", "0.3.0", "hy-dawn", "1"] and rows["dawn"][5:] == ["ok"]
    assert " ".join(rows["slow"][5:]) == "slow: imports torch at start-up"
    broken = " ".join(rows["broken"][5:])
    assert broken == "broken: plugin 'broken' failed to load: No module named 'a_module_that_nobody_has'"
    assert "plugin API 1" in done.stderr


def test_plugins_alone_lists(hy, site):
    both = (["plugins"], ["plugins", "list"])
    names = [[line.split()[0] for line in hy(*words).stdout.splitlines()] for words in both]
    assert names[0] == names[1] and "dawn" in names[0]


def test_list_as_json(hy, site):
    run = hy("plugins", "list", "--json")
    found = json.loads(run.stdout)
    rows = {row["name"]: row for row in found["plugins"]}
    assert found["api"] == 1 and run.stderr == ""
    assert rows["dawn"]["hooks"] == ["register_conditioners"] and rows["dawn"]["state"] == "ok"
    assert rows["broken"]["state"] == "broken" and "a_module_that_nobody_has" in rows["broken"]["hint"]


def test_list_shows_what_hy_plugins_leaves_out(hy, site, monkeypatch):
    monkeypatch.setenv("HY_PLUGINS", "dawn")
    rows = {line.split()[0]: line for line in hy("plugins", "list").stdout.splitlines()}
    assert rows["broken"].endswith("off: HY_PLUGINS leaves it out") and rows["dawn"].endswith("ok")


def test_list_without_plugins_says_what_to_do(site):
    code = (
        "from hy_core.cli import plugins; plugins.installed = lambda: plugins.Plugins([]); plugins.listed([])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "" and "hy plugins new NAME" in done.stderr


def test_info_shows_options_as_flags(hy, site):
    run = hy("plugins", "info", "dawn")
    assert run.exit_code == 0 and run.stdout.startswith("dawn 0.3.0: Follow a brightness curve\n")
    text = " ".join(run.stdout.split())
    assert "package hy-dawn module hy_dawn state ok" in text and "conditioners dawn" in text
    assert "--dawn-curve TEXT Brightness, 0 to 1, at evenly spaced moments: 0.1,0.9 [required]" in text


def test_info_as_json_has_the_schema(hy, site):
    found = json.loads(hy("plugins", "info", "dawn", "--json").stdout)
    assert found["options"]["dawn"]["required"] == ["curve"]
    assert found["registers"] == {"register_conditioners": ["dawn"]}


def test_info_of_a_file(hy, site):
    run = hy("plugins", "info", FOLDER / "hy_dawn.py")
    assert run.exit_code == 0 and "--hy-dawn-curve TEXT" in run.stdout


def test_info_of_a_broken_one_says_what_is_known_and_exits_3(hy, site):
    run = hy("plugins", "info", "broken")
    assert run.exit_code == 3 and "package    hy-broken" in run.stdout
    assert run.stderr.startswith("Error: plugin 'broken' failed to load: No module named")


def test_info_of_none_suggests(hy, site):
    run = hy("plugins", "info", "dwan")
    assert (run.exit_code, run.stderr) == (3, "Error: no plugin 'dwan'\nHint: did you mean dawn?\n")


def test_new_writes_a_package_with_the_name_in_all_places(hy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = hy("plugins", "new", "night-sky")
    folder = tmp_path / "hy-night-sky"
    assert run.exit_code == 0 and run.stdout == f"{folder}\n"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["README.md", "hy_night_sky.py", "pyproject.toml", "tests/test_night_sky.py"]
    assert len(files) == 4 and os.listdir(tmp_path) == ["hy-night-sky"]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["hy.plugins"] == {"night-sky": "hy_night_sky"}
    for path in files:
        assert "$" not in (folder / path).read_text()
    some = Plugins([])
    assert some.conditioners([str(folder / "hy_night_sky.py")])["hy_night_sky"].__name__ == "NightSky"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dawn", "isn't a name for a plugin"),
        ("a b", "isn't a name"),
        ("../up", "isn't a name"),
        ("1st", "isn't a name"),
        ("a" * 41, "isn't a name"),
        ("", "isn't a name"),
        ("hy-dusk", "hy plugins new dusk"),
        ("core", "there is a module hy_core already"),
        ("dawn", "there is a plugin 'dawn' already: hy-dawn 0.3.0"),
    ],
)
def test_new_refuses_bad_names_and_writes_nothing(hy, site, tmp_path, monkeypatch, name, message):
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    run = hy("plugins", "new", name)
    assert run.exit_code == 2 and message in run.stderr and not list(place.iterdir())


def test_new_refuses_a_folder_that_exists(hy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hy-dusk").mkdir()
    run = hy("plugins", "new", "dusk")
    assert (
        run.exit_code == 2 and "exists already" in run.stderr and not list((tmp_path / "hy-dusk").iterdir())
    )


def program(folder: Path, name: str, text: str) -> Path:
    """An executable in `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_install_asks_uv_first_and_names_the_new_plugin(hy, site, tmp_path, monkeypatch):
    """The stand-in for uv installs as uv would, by writing metadata, and keeps what it was asked."""
    said = tmp_path / "said"
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r})\n"
        f"open({str(said)!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        "from pathlib import Path\nfrom plugins.made import install\n"
        f"install(Path({str(site)!r}), 'hy-dusk', {{'dusk': 'hy_dawn'}})"
    )
    program(tmp_path / "bin", "uv", code)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    run = hy("plugins", "install", "hy-dusk[all]", "--upgrade")
    assert run.exit_code == 0 and run.stdout == "dusk\n"
    assert said.read_text() == f"pip install --python {sys.executable} hy-dusk[all] --upgrade"


def test_install_that_fails_is_one_line(hy, tmp_path, monkeypatch):
    program(tmp_path / "bin", "uv", "raise SystemExit(2)")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    run = hy("plugins", "install", "hy-dusk")
    assert run.exit_code == 1 and "Error: couldn't install hy-dusk" in run.stderr


def test_install_without_uv_takes_pip_and_without_both_says_the_command(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert installer(["hy-dusk"]) == [sys.executable, "-m", "pip", "install", "hy-dusk"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError) as caught:
        installer(["hy-dusk"])
    assert caught.value.hint == f"get uv, then: uv pip install --python {sys.executable} hy-dusk"


@pytest.mark.parametrize("guilty", ["a", "d", "h", "ad", "bgh", "abcdefgh"])
def test_bisecting_finds_the_smallest_failing_set(guilty):
    runs = []

    def fails(names):
        runs.append(names)
        return set(guilty) <= set(names)

    assert "".join(culprits("abcdefgh", fails)) == guilty
    if len(guilty) == 1:
        assert len(runs) <= 6  # halves: three times at most two runs


def test_a_command_line_without_a_plugin(site):
    some = Plugins(entries(site))
    line = "generate text -p dawn --dawn-curve 0.1,0.9 --plugin=slow -pbroken --dawn-scale=2 --broken-x 3"
    spelt = spelt_out([*line.split(), "--seed", "4"])
    assert spelt[-4:] == ["--broken-x", "3", "--seed", "4"] and spelt.count("-p") == 3
    assert without(spelt, {"dawn"}, some) == "generate text -p slow -p broken --broken-x 3 --seed 4".split()
    rest = "generate text -p dawn --dawn-curve 0.1,0.9 -p slow --dawn-scale=2 --seed 4"
    assert without(spelt, {"broken"}, some) == rest.split()
    assert without(spelt, {"dawn", "slow", "broken"}, some) == "generate text --seed 4".split()


def test_bisect_finds_the_broken_plugin_in_a_real_run(site):
    install(site, "hy-watch", {"watch": "hy_watch"})
    line = ["config", "show", "generate", "-p", "watch", "--dawn-curve", "0.1", "-p", "broken"]
    done = hy_alone(site, "plugins", "bisect", "--", *line)
    assert (done.returncode, done.stdout) == (0, "broken\n"), done.stderr
    assert (
        "no plugins: works" in done.stderr and "broken: Error: plugin 'broken' failed to load" in done.stderr
    )


def test_bisect_has_nothing_to_do(site):
    assert "selects no plugins" in hy_alone(site, "plugins", "bisect", "--", "doctor").stderr
    line = ["config", "show", "generate", "-p", "dawn", "--dawn-curve", "0.1"]
    assert "nothing to find" in hy_alone(site, "plugins", "bisect", "--", *line).stderr
    done = hy_alone(site, "plugins", "bisect", "--", *line, "--steps", "many")
    assert done.returncode == 1 and "fails without plugins too" in done.stderr
