"""Plugins made by hand: out of functions, or as the metadata of an installed distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import ModuleType

from hy_core import hookimpl


def plugin(**hooks: Callable[..., object]) -> ModuleType:
    """A module with these hooks."""
    module = ModuleType("made")
    vars(module).update({name: hookimpl(function) for name, function in hooks.items()})
    return module


def install(
    site: Path,
    name: str,
    plugins: Mapping[str, str],
    *,
    version: str = "0.1.0",
    summary: str = "",
    requires: Sequence[str] = (),
    commands: Mapping[str, str] | None = None,
) -> None:
    """Make `site` (a folder on a path) hold a distribution with these entry points."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Summary: {summary}"]
    lines += [f"Requires-Dist: {need}" for need in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    groups = {"hy.plugins": plugins, "hy.commands": commands or {}}
    text = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in table.items())
        for group, table in groups.items()
    )
    (info / "entry_points.txt").write_text(text, encoding="utf-8")


def entries(*sites: Path) -> list[EntryPoint]:
    """The plugins that are installed in these folders, and nowhere else."""
    found = distributions(path=[str(site) for site in sites])
    return [entry for one in found for entry in one.entry_points if entry.group == "hy.plugins"]
