"""Every package, alone in an empty environment, from its built wheel."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
]


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def ours(folder: Path) -> set[str]:
    """The packages of this workspace that a package needs, itself among them."""
    names = {project(folder)["name"]}
    for requirement in project(folder)["dependencies"]:
        name = requirement.split(">")[0].split("[")[0].strip()
        if (ROOT / "packages" / name).is_dir():
            names |= ours(ROOT / "packages" / name)
    return names


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        ["uv", "build", "--all-packages", "--wheel", "-q", "-o", str(folder)], cwd=ROOT, check=True
    )
    return folder


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_package_installs_and_imports_alone(folder, wheels, tmp_path):
    name, environment = project(folder)["name"], tmp_path / "environment"
    subprocess.run(["uv", "venv", "-q", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = ["uv", "pip", "install", "-q", "--python", str(python), "--find-links", str(wheels), name]
    subprocess.run(install, check=True, cwd=tmp_path)
    listed = subprocess.run(
        ["uv", "pip", "list", "--python", str(python), "--format", "freeze"],
        check=True, cwd=tmp_path, capture_output=True, text=True,
    ).stdout  # fmt: skip
    installed = {line.split("==")[0] for line in listed.splitlines()}
    assert {one for one in installed if one.startswith("hy-")} == ours(folder)
    module = name.replace("-", "_")
    walk = (
        f"import importlib, pkgutil, {module}\n"
        f"for found in pkgutil.walk_packages({module}.__path__, '{module}.'):\n"
        "    if not found.name.endswith(('__main__', '.testing.plugin', '.testing.contract', '.testing.tiny'))"
        " and '.template' not in found.name:\n"
        "        importlib.import_module(found.name)\n"
    )
    subprocess.run([python, "-c", walk], check=True, cwd=tmp_path)
    subprocess.run([environment / "bin" / "hy", "plugins", "list"], check=True, cwd=tmp_path)
    shutil.rmtree(environment)


def test_the_wheels_hold_pockets_weights_and_stay_small(wheels):
    import zipfile

    core = (
        "config.json",
        "dit.safetensors",
        "vae.safetensors",
        "llm/model.safetensors",
        "clip/model.safetensors",
    )
    avatar = ("avatar.safetensors",)
    audio = "audio.json", "dit.safetensors", "codec/vae.safetensors", "codec/vocoder.safetensors"
    for package, parts in (("hy_core", core), ("hy_avatar", avatar), ("hy_audio", audio)):
        (wheel,) = wheels.glob(f"{package}-*.whl")
        assert wheel.stat().st_size < 16 * 2**20
        names = zipfile.ZipFile(wheel).namelist()
        for part in parts:
            assert f"{package}/pocket/{part}" in names
