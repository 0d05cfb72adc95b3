"""Plugins as their metadata and files describe them, without importing them: names, requirements, fingerprints."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hy_core import hooks
from hy_core.errors import PluginError

Entry = importlib.metadata.EntryPoint


@dataclass(frozen=True)
class Found:
    """One plugin: its name, the distribution that brings it, and its module, or the path of its file."""

    name: str
    distribution: str
    version: str = ""
    summary: str = ""
    module: str = ""
    rivals: tuple[str, ...] = ()
    """Further packages with a plugin of this name."""
    requires: tuple[str, ...] = ()
    """The `Requires-Dist` lines of the distribution."""
    file: str = ""
    """The absolute path of a plugin that is a file."""
    sha256: str = field(default="", compare=False)
    """The hash of that file when it was loaded."""

    @property
    def package(self) -> str:
        """Distribution and version: `hy-dawn 0.1.0`."""
        return f"{self.distribution} {self.version}".strip()

    def record(self) -> dict[str, str]:
        """What the provenance of a clip holds of this plugin: `name`, `path` ("" if installed) and `sha256`.

        `sha256` is that of the file, or of all Python files of the installed module.
        """
        return {"name": self.name, "path": self.file, "sha256": self.sha256 or module_sha256(self.module)}


def read_installed(entries: Iterable[Entry] | None = None) -> dict[str, tuple[Entry, Found]]:
    """The entry points of the group `hy.plugins` by name, sorted; of `entries` alone if they are given."""
    if entries is None:
        entries = importlib.metadata.entry_points(group=hooks.GROUP)
    together: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        together.setdefault(entry.name, {})[_package(entry)] = entry
    table = {}
    for name in sorted(together):
        first, *rivals = sorted(together[name])
        entry = together[name][first]
        found = Found(name, first, module=entry.value, rivals=tuple(rivals))
        if entry.dist:
            about = entry.dist.metadata
            found = Found(
                name,
                about["Name"],
                about["Version"],
                about["Summary"] or "",
                entry.value,
                tuple(rivals),
                tuple(entry.dist.requires or ()),
            )
        table[name] = (entry, found)
    return table


def _package(entry: Entry) -> str:
    return f"{entry.dist.metadata['Name']} {entry.dist.metadata['Version']}" if entry.dist else entry.value


def check_requirements(found: Found) -> None:
    """PluginError for the first requirement of a plugin's distribution that this environment doesn't meet.

    Requirements of extras are skipped, and so are lines that can't be read.
    """
    if not found.requires:
        return
    from packaging.requirements import InvalidRequirement, Requirement

    for line in found.requires:
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{need.name}{need.specifier}"
        hint = f"hy plugins install --upgrade {shlex.quote(found.distribution)} {shlex.quote(wanted)}"
        have = installed_version(need.name)
        start = f"plugin {found.name!r} ({found.package}) requires {wanted}"
        if have is None:
            raise PluginError(f"{start}, which is not installed", hint)
        if not need.specifier.contains(have, prereleases=True):
            raise PluginError(f"{start}, but {need.name} {have} is installed", hint)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def remedy(error: BaseException, found: Found) -> str:
    """A hint against an error while a plugin loads: for a failed import, the extra or the versions involved."""
    if not isinstance(error, ImportError):
        return "HY_DEBUG=1 shows the traceback; or leave this plugin out"
    missing = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and missing and missing != "hy_core":
        for need in found.requires:
            wanted = re.match(r"[\w.-]+", need)
            extra = re.search(r"""extra\s*==\s*["']([\w.-]+)["']""", need)
            if wanted and extra and wanted[0].replace("-", "_").lower() == missing.lower():
                return f"hy plugins install {shlex.quote(f'{found.distribution}[{extra[1]}]')}"
        return f"install the package that brings the module {missing!r}"
    owners = importlib.metadata.packages_distributions().get(missing) or [missing.replace("_", "-")]
    have = ", ".join(f"{one} {version}" for one in sorted(set(owners)) if (version := installed_version(one)))
    needs = [need for need in found.requires if re.match(r"[\w.-]+", need)[0] in owners]  # type: ignore[index]
    asks = f"; {found.package} requires {', '.join(needs)}" if needs else ""
    return f"{have or 'no such package'} is installed{asks}: get versions that go together"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def module_sha256(module: str) -> str:
    """One SHA-256 of the Python files of a module, or of the package that it is in; "" if there are none."""
    top = module.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    folders = [Path(one) for one in spec.submodule_search_locations or ()]
    files = [(one.relative_to(folder), one) for folder in folders for one in folder.rglob("*.py")]
    if not folders and spec.origin and Path(spec.origin).is_file():
        files = [(Path(spec.origin).name, Path(spec.origin))]  # type: ignore[list-item]
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name} {file_sha256(path)}\n".encode())
    return digest.hexdigest() if files else ""
