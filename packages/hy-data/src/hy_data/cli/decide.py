"""`hy data decide` and `hy data report`: sets from scores, and what they dropped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hy_data.recipe import Recipe

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("decide")
@click.argument("folder", type=FOLDER)
@click.option("--recipe", help="A TOML file or the name of a shipped recipe [FOLDER/recipe.toml].")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe; repeat."
)
@click.option("--json", "as_json", is_flag=True, help="Print the funnel as JSON.")
def decide(folder: Path, recipe: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Decide again which clips of FOLDER each set gets; no stage runs.

    Its recipe.toml gets the sets of the recipe that is given, and the values that are changed.

    \b
    $ hy data decide sets/ --set 'sets.256p.keep=0.3'
    """
    from hy_core.files import write_text

    from hy_data.recipe import to_toml
    from hy_data.select.decide import decide as decide_sets

    loaded = load(folder, recipe, overrides)
    decision = decide_sets(folder, vars(loaded))
    write_text(folder / "recipe.toml", to_toml(loaded))
    show(decision, as_json)


@click.command("report")
@click.argument("folder", type=FOLDER)
@click.option(
    "--pictures", type=click.IntRange(0), default=6, show_default=True, help="Clips shown for each rule."
)
@click.option("--no-page", is_flag=True, help="Print the funnel only; write no report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the funnel as JSON.")
def report(folder: Path, pictures: int, no_page: bool, as_json: bool) -> None:
    """Show what each set of FOLDER keeps and drops, and write FOLDER/report.html with histograms and pictures."""
    from hy_data.select.decide import read_decision

    show(read_decision(folder), as_json)
    if not no_page:
        from hy_data.report.page import write_page

        click.echo(f"written: {write_page(folder, pictures)}", err=True)


def load(folder: Path, name: str | None, overrides: tuple[str, ...]) -> Recipe:
    """Return the recipe that a folder was made with, or its stages and the sets of another one."""
    from hy_core.errors import MissingError

    from hy_data import recipe as recipes

    own = folder / "recipe.toml"
    if name is None:
        if not own.is_file():
            raise MissingError(f"{folder} has no recipe.toml", "give --recipe, or a folder of hy data run")
        return recipes.load(own, overrides)
    given = recipes.load(name, overrides)
    if not own.is_file():
        return given
    return replace(recipes.load(own), sets=given.sets, duplicates=given.duplicates, concepts=given.concepts)


def show(decision: Any, as_json: bool) -> None:
    """Print a decision as tables, or as JSON."""
    if as_json:
        click.echo(json.dumps({"sets": decision.sets, "notes": decision.notes}, indent=1))
        return
    from rich.console import Console

    from hy_data.report.terminal import funnels

    console = Console(highlight=False)
    for table in funnels(decision.sets):
        console.print(table)
    for note in decision.notes:
        click.echo(note, err=True)
