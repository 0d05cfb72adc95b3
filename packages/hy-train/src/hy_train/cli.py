"""`hy train`: run a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


class Train(click.Command):
    """The command of recipes, of which `hy train lora` and `hy train full` are commands of their own."""

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> click.Context:
        if args and args[0] in ("lora", "full"):
            from hy_train.own import command as own

            found: click.Command = getattr(own, args[0])
            return found.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command("train", cls=Train)
@click.argument("recipe", required=False)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run [runs/NAME]."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe; repeat."
)
@click.option("--minutes", type=float, help="Stop after this many minutes; the same command resumes.")
@click.option("--dry-run", is_flag=True, help="Check the recipe; tell memory, FLOPs and time; train nothing.")
@click.option("--list", "listing", is_flag=True, help="List the shipped recipes.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def command(
    recipe: str | None,
    out: Path | None,
    overrides: tuple[str, ...],
    minutes: float | None,
    dry_run: bool,
    listing: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train by RECIPE: a TOML file, or the name of a shipped one.

    The same command resumes a stopped run. `hy train lora FOLDER` and `hy train full FOLDER` train on your own clips:
    see `hy train lora --help`.

    \b
    $ hy train --list
    $ hy train pocket-vae --out runs/vae --minutes 30
    $ hy train lora my-clips/
    """
    from hy_train import recipe as recipes

    if listing:
        for name, path in recipes.builtin().items():
            first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            click.echo(f"{name:22} {first}")
        return
    if not recipe:
        raise click.UsageError("Missing argument 'RECIPE' (hy train --list shows those that come along).")
    loaded = recipes.load(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    from hy_train.objectives import find

    objective = find(loaded)(loaded, folder)
    if dry_run:
        from hy_train.fit import check
        from hy_train.planning import plan

        check(loaded, objective)
        found = plan(loaded, objective)
        report = {
            "recipe": loaded.name,
            "objective": loaded.objective,
            "out": str(folder),
            **(found.to_json() if as_json else found.lines()),
        }
        if loaded.unfreeze:
            from hy_train.unfreeze import Unfreezing

            report["unfreeze"] = Unfreezing(objective.model, loaded.unfreeze, loaded.steps).stages()
    else:
        from hy_train.fit import run

        report = run(loaded, objective, folder, minutes, quiet)
        if "step" not in report:  # not the first of several processes
            if report:
                click.get_current_context().exit(130)
            return
        if "stopped" in report:
            click.echo(
                f"saved at step {report['step']} after {report['stopped']}; the same command resumes",
                err=True,
            )
            click.get_current_context().exit(130)
    if as_json:
        click.echo(json.dumps(report))
    else:
        for key, value in report.items():
            click.echo(f"{key}: {value}", err=not dry_run)
        if not dry_run:
            click.echo(folder / "export")
