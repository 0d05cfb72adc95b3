"""One run: list the input, run the stages, write the table of scores, decide the sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hy_core.errors import UsageError
from hy_core.files import write_text
from hy_core.plugins import Plugins

from hy_data import recipe as recipes
from hy_data.engine.clip import Clip
from hy_data.engine.driver import Driver
from hy_data.engine.executor import Executor
from hy_data.engine.ledger import Ledger
from hy_data.engine.plan import Plan, make_plan
from hy_data.engine.rows import score_rows, walk
from hy_data.recipe import EngineOptions, Recipe
from hy_data.select.decide import Decision, decide
from hy_data.select.sets import read_sets
from hy_data.sources.files import Listing, list_inputs
from hy_data.sources.intake import Intake
from hy_data.table import open_scores, write_scores

SCORES = "scores.parquet"
DOWNLOADS = "downloads"


@dataclass
class Report:
    """What a run did: clips by status, inputs, seconds, and lines to tell."""

    inputs: int
    clips: dict[str, int]
    seconds: float
    rows: int
    notes: list[str] = field(default_factory=list)
    decision: Decision | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "inputs": self.inputs,
            "clips": self.clips,
            "rows": self.rows,
            "seconds": round(self.seconds, 1),
            "sets": list(self.decision.sets) if self.decision else [],
        }

    def lines(self, out: Path) -> list[str]:
        """Return it as lines for people."""
        clips = self.clips
        return [
            f"{self.inputs} files, {sum(clips.values())} clips: {clips['ok']} ok, {clips['filtered']} filtered, "
            f"{clips['failed']} failed, in {self.seconds:.0f} s",
            f"{out / SCORES}",
        ]


def run(
    source: Path,
    out: Path,
    recipe: Recipe,
    *,
    limit: int | None = None,
    retry_failed: bool = False,
    observer: Callable[[Driver], Any] | None = None,
    note: Callable[[str], Any] = lambda text: None,
) -> Report:
    """Run a recipe on a folder, list or file; an interrupted run resumes when it is called again.

    `UsageError` and `MissingError` for wrong input or recipes, `HyError` for what ends a run; faults of clips are rows.
    """
    start = time.monotonic()
    plugins = recipes.load_plugins(recipe)
    plan = make_plan(recipe, plugins)
    check_recipe(recipe, plugins)
    listing, downloads = list_inputs(source, out), out / DOWNLOADS
    with Ledger(out) as ledger:
        if ledger.note:
            note(ledger.note)
        write_text(out / "recipe.toml", recipes.to_toml(recipe))
        if retry_failed:
            note(f"{ledger.forget_failed()} failed results are forgotten")
        ledger.set_inputs(islice(listing.entries, limit))

        def drive(plan: Plan, source: Callable[[Driver], Generator[Clip | None, None, None]]) -> Driver:
            driver = Driver(plan, ledger, lambda: make_executor(plan, recipe.engine), recipe.engine)
            if observer is not None:
                driver.pace.observer = observer
            clips = source(driver)
            begun = time.monotonic()
            try:
                driver.run(clips)
            finally:
                clips.close()
                driver.close()
                _store_totals(driver, time.monotonic() - begun)
            return driver

        def inputs(driver: Driver) -> Generator[Clip | None, None, None]:
            driver.pace.inputs, driver.pace.total_bytes = ledger.input_sizes()
            return Intake(ledger, recipe.source, downloads, driver.pace).clips()

        pace = drive(plan, inputs).pace
        rows = write_scores(score_rows(plan, ledger, downloads), out / SCORES, plan.scores())
        decision = decide(out, vars(recipe)) if recipe.sets else None
        if recipe.finish:
            kept = kept_clips(out) if recipe.sets else None
            longer = make_plan(recipe, plugins, finish=True)
            drive(longer, lambda driver: scored_clips(plan, ledger, downloads, kept))
            write_scores(score_rows(longer, ledger, downloads), out / SCORES, longer.scores())
            decision = decide(out, vars(recipe)) if recipe.sets else None
    seconds = time.monotonic() - start
    return Report(pace.inputs, dict(pace.clips), seconds, rows, _notes(listing), decision)


def check_recipe(recipe: Recipe, plugins: Plugins) -> Plan:
    """Return the plan of all stages; `UsageError` for what would be refused when the stages have run."""
    if recipe.sets:
        read_sets(recipe.sets)
    return make_plan(recipe, plugins, finish=True)


def kept_clips(out: Path) -> set[str]:
    """Return the ids of the clips that a set of a decided folder keeps."""
    with open_scores(out / "manifest.parquet") as file:
        names = [name for name in file.schema_arrow.names if name.startswith("kept_")]
        table = file.read(["id", *names])
    kept: set[str] = set()
    for name in names:
        kept.update(table["id"].filter(table[name]).to_pylist())
    return kept


def scored_clips(
    plan: Plan, ledger: Ledger, downloads: Path, kept: set[str] | None
) -> Generator[Clip | None, None, None]:
    """Yield the clips that went through all stages well and are in `kept`, to run more stages on them."""
    for one in walk(plan, ledger, downloads):
        if isinstance(one, Clip) and one.is_done and one.dropped is None and (kept is None or one.id in kept):
            one.is_done = False
            yield one


def make_executor(plan: Plan, options: EngineOptions) -> Executor:
    """Return the executor that the options name."""
    if options.executor == "ray":
        from hy_data.engine.ray import RayExecutor

        return RayExecutor(plan, options)
    from hy_data.engine.local import LocalExecutor

    return LocalExecutor(plan, options)


def open_run(out: Path) -> tuple[Recipe, Plan, Ledger]:
    """Return the recipe, plan and ledger, to read, of an output folder; `UsageError` if it is none."""
    path = out / "recipe.toml"
    if not path.is_file():
        raise UsageError(f"{out} has no recipe.toml", "give the folder of a run: hy data run INPUT -o OUT")
    recipe = recipes.load(path)
    return recipe, make_plan(recipe, recipes.load_plugins(recipe), finish=True), Ledger(out, read_only=True)


def _store_totals(driver: Driver, seconds: float) -> None:
    for name, (clips, busy, media) in driver.pace.totals().items():
        driver.ledger.add_total(name, clips, busy, media)
    driver.ledger.set_fact("seconds", driver.ledger.fact("seconds", 0.0) + seconds)
    driver.ledger.commit()


def _notes(listing: Listing) -> list[str]:
    if not listing.ignored:
        return []
    kinds = ", ".join(f"{count} {reason}" for reason, count in sorted(listing.ignored.items())[:6])
    return [f"ignored {sum(listing.ignored.values())} files that are no videos or pictures ({kinds})"]
