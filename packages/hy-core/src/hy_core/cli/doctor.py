"""hy doctor: is this machine ready? One line per check, each tried and not only looked up."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from hy_core.cli import output
from hy_core.errors import HyError

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}
ROOM = 1e9  # bytes of free disk below which results may not fit


@dataclass(frozen=True)
class Line:
    """One check: `state` is ok, warn (works without it) or fail."""

    name: str
    state: str
    detail: str
    hint: str | None = None


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for an issue.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Is this machine ready? Exits with 1 if something failed."""
    lines = []
    for line in examine():
        lines.append(line)
        if not as_json:
            show(line)
    failed = sum(line.state == "fail" for line in lines)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(line) for line in lines]}, indent=2))
    else:
        click.echo("all well" if not failed else f"{failed} of {len(lines)} checks failed")
    context.exit(1 if failed else 0)


def show(line: Line) -> None:
    state = f"{line.state:<4}"
    if sys.stdout.isatty():
        state = click.style(state, fg=COLORS[line.state])
    click.echo(f"{state}  {line.name:<22} {output.clean(line.detail)}")
    if line.hint and line.state != "ok":
        click.echo(f"{'':<29}{output.clean(line.hint)}")


def examine() -> Iterator[Line]:
    """Every check in turn; one that breaks is a line that failed."""
    checks: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("python", check_python),
        ("torch", check_torch),
        ("attention", check_attention),
        ("media", check_media),
        ("disk", check_disk),
        ("pocket", check_pocket),
        ("settings", check_settings),
        ("plugins", check_plugins),
        ("commands", check_commands),
    ]
    for name, check in checks:
        try:
            yield from check()
        except HyError as error:
            yield Line(name, "fail", str(error), error.hint)
        except Exception as error:
            yield Line(name, "fail", f"{type(error).__name__}: {error}")


def check_python() -> Iterator[Line]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 11)
    yield Line("python", "ok" if good else "fail", found, "hy needs Python 3.11 or newer")


def check_torch() -> Iterator[Line]:
    import torch

    from hy_core.device import describe, pick_device

    yield Line("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    device = pick_device()
    ones = torch.ones(64, 64, device=device)
    right = float((ones @ ones).sum()) == 64.0**3
    yield Line("device", "ok" if right else "fail", describe(device), "a product of ones is wrong here")


def check_attention() -> Iterator[Line]:
    """Each back-end by running its kernel; only the absence of all of them is a failure."""
    from hy_core.dit.attention import available

    found = available()
    for name, problem in found.items():
        yield Line(f"attention {name}", "warn" if problem else "ok", problem or "runs")
    if all(found.values()):
        yield Line("attention", "fail", "no back-end works", "reinstall torch")


def check_media() -> Iterator[Line]:
    """Each container by writing and reading a little clip."""
    import tempfile

    import numpy as np

    from hy_core import media

    frames = np.zeros((3, 32, 32, 3), np.uint8)
    frames[:, 8:24, 8:24] = (200, 40, 40)
    with tempfile.TemporaryDirectory() as folder:
        for suffix, kind in ((".mp4", "H.264"), (".webm", "VP9"), (".gif", "GIF"), (".webp", "WebP")):
            try:
                path = media.write(Path(folder) / f"clip{suffix}", frames[: 1 if suffix == ".webp" else 3], 8)
                seen = media.read(path).frames
                right = abs(int(seen[0, 16, 16, 0]) - 200) < 24
                yield Line(f"{kind} ({suffix})", "ok" if right else "fail", "writes and reads")
            except Exception as error:
                yield Line(
                    f"{kind} ({suffix})",
                    "fail",
                    f"{type(error).__name__}: {error}",
                    "reinstall av and pillow",
                )


def check_disk() -> Iterator[Line]:
    free = shutil.disk_usage(Path.cwd()).free
    yield Line("disk", "ok" if free > ROOM else "warn", f"{free / 1e9:.1f} GB free here", "make some room")


def check_pocket() -> Iterator[Line]:
    """The shipped model is there and can be read."""
    from hy_core import models

    spec = models.find("pocket")
    missing = [path.name for path in (spec.dit, spec.vae) if not path.exists()]
    if missing:
        yield Line("pocket", "fail", f"{', '.join(missing)} missing in {spec.folder}", "reinstall hy-core")
        return
    size = sum(path.stat().st_size for path in spec.folder.rglob("*") if path.is_file())
    dit, _ = models.configs(spec)
    yield Line("pocket", "ok", f"{size / 1e6:.1f} MB, width {dit.width}, {spec.folder}")


def check_settings() -> Iterator[Line]:
    from hy_core import settings

    path = settings.user_file()
    layer = settings.user_layer()
    if layer is None:
        yield Line("settings", "ok", f"no {path}")
        return
    merged = settings.Settings([layer])
    for key in layer.core:
        if key not in settings.CORE:
            raise settings.unknown(layer.label(key), key, list(settings.CORE))
        merged.core(key)
    yield Line("settings", "ok", str(path))


def check_plugins() -> Iterator[Line]:
    """Each installed plugin loaded, and the checks that plugins bring."""
    from hy_core.plugins import installed

    plugins = installed()
    states = {"ok": "ok", "slow": "warn", "off": "warn", "broken": "fail"}
    for name in [*plugins.found, *plugins.off]:
        health = plugins.examine(name)
        detail = f"{health.found.package}, {health.milliseconds:.0f} ms"
        said = f"{detail}: {health.detail}" if health.detail else detail
        yield Line(f"plugin {name}", states.get(health.state, "fail"), said, health.hint)
    checks = plugins.checks()
    for name in checks:
        try:
            found = checks[name]()
            yield Line(name, "ok" if found.ok else "fail", found.detail, found.hint)
        except Exception as error:
            yield Line(name, "fail", f"its check broke: {type(error).__name__}: {error}")


def check_commands() -> Iterator[Line]:
    """Commands that two packages claim."""
    from importlib.metadata import entry_points

    from hy_core.cli.lazy import owner

    owners: dict[str, set[str]] = {}
    for entry in entry_points(group="hy.commands"):
        owners.setdefault(entry.name, set()).add(owner(entry))
    for name, rivals in owners.items():
        if len(rivals) > 1:
            yield Line(
                f"command {name}", "fail", f"installed by {' and '.join(sorted(rivals))}", "uninstall one"
            )
    yield Line("commands", "ok", ", ".join(sorted(owners)) or "none from other packages")
