"""`hy data run`: videos and pictures to scores and sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from hy_core.cli import output
from hy_core.errors import UsageError

if TYPE_CHECKING:
    from hy_data.recipe import Recipe


@click.command("run")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run."
)
@click.option(
    "--recipe", "recipe_name", default="video", metavar="NAME|FILE", help="Recipe, by name or file.  [video]"
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe; repeat."
)
@click.option("--executor", type=click.Choice(["local", "ray"]), help="Where stages run.  [local]")
@click.option("--workers", type=click.IntRange(1, 4096), help="CPU cores that are busy at most.  [all]")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many files.")
@click.option("--retry-failed", is_flag=True, help="Run stages again where they failed.")
@click.option("--dry-run", is_flag=True, help="Check input and recipe, show the stages, run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--progress", type=click.Choice(output.MODES), default="auto", help="How progress is shown.  [auto]"
)
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    source: Path,
    out: Path,
    recipe_name: str,
    overrides: tuple[str, ...],
    executor: str | None,
    workers: int | None,
    limit: int | None,
    retry_failed: bool,
    dry_run: bool,
    as_json: bool,
    progress: str,
    quiet: bool,
) -> None:
    """Run a recipe on INPUT: a folder of videos and pictures, a file, or a list (.txt, .jsonl) of paths and addresses.

    The same command resumes a stopped run. A changed option of a stage runs that stage again and those that need it;
    changed sets run none.

    \b
    $ hy data run raw/ -o sets/
    $ hy data run raw/ -o sets/ --recipe mine.toml --set stage.shots.longest=5 --workers 8
    """
    from hy_data import recipe as recipes

    more = [f"engine.executor={executor}"] if executor else []
    more += [f"engine.workers={workers}"] if workers else []
    recipe = recipes.load(recipe_name, [*overrides, *more])
    if dry_run:
        _dry_run(source, out, recipe, limit, as_json)
        return
    from hy_data.cli.progress import RunProgress
    from hy_data.engine.run import run

    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out} is not a folder")
    with RunProgress(progress, quiet) as shown:
        try:
            report = run(
                source,
                out,
                recipe,
                limit=limit,
                retry_failed=retry_failed,
                observer=shown.update,
                note=shown.note,
            )
        except KeyboardInterrupt:
            shown.close()
            output.note("interrupted; what is done is kept, the same command resumes")
            click.get_current_context().exit(130)
    for line in report.notes:
        shown.note(line)
    if as_json:
        click.echo(json.dumps({"out": str(out), **report.to_json()}))
    elif not quiet:
        for line in report.lines(out):
            click.echo(output.clean(line))
        if report.decision is not None:
            from hy_data.cli.decide import show

            show(report.decision, as_json=False)


def _dry_run(source: Path, out: Path, recipe: Recipe, limit: int | None, as_json: bool) -> None:
    """Show what would run."""
    from hy_data import recipe as recipes
    from hy_data.engine.run import check_recipe
    from hy_data.sources.files import list_inputs

    plan = check_recipe(recipe, recipes.load_plugins(recipe))
    listing = list_inputs(source, out)
    count = min(len(listing.entries), limit or len(listing.entries))
    size = sum(entry["size"] for entry in listing.entries[:count])
    if as_json:
        stages = [
            {"stage": one.name, "worker": one.group + 1, "scores": [score.name for score in one.scores]}
            for one in plan.stages
        ]
        ignored = dict(listing.ignored)
        click.echo(json.dumps({"inputs": count, "bytes": size, "ignored": ignored, "stages": stages}))
        return
    click.echo(
        f"{count} inputs, {size / 1e9:.2f} GB; recipe {recipe.name}, kinds of workers and their stages:"
    )
    for one in plan.stages:
        scores = ", ".join(score.name for score in one.scores)
        click.echo(f"  {one.group + 1:2}  {one.name:20} {scores}".rstrip())
    for name, ignored_count in sorted(listing.ignored.items()):
        click.echo(output.clean(f"  ignored: {ignored_count} {name}"))
