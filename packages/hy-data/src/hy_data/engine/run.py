"""One run: list the input, run the stages, write the table of scores, decide the sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hy_core.errors import UsageError
from hy_core.files import write_text

from hy_data import recipe as recipes
from hy_data.engine.driver import Driver
from hy_data.engine.executor import Executor
from hy_data.engine.ledger import Ledger
from hy_data.engine.plan import Plan, make_plan
from hy_data.engine.rows import score_rows
from hy_data.recipe import EngineOptions, Recipe
from hy_data.select.decide import Decision, decide
from hy_data.sources.files import Listing, list_inputs
from hy_data.sources.intake import Intake
from hy_data.table import write_scores

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
    listing = list_inputs(source, out)
    with Ledger(out) as ledger:
        if ledger.note:
            note(ledger.note)
        write_text(out / "recipe.toml", recipes.to_toml(recipe))
        if retry_failed:
            note(f"{ledger.forget_failed()} failed results are forgotten")
        ledger.set_inputs(islice(listing.entries, limit))
        driver = Driver(plan, ledger, lambda: make_executor(plan, recipe.engine), recipe.engine)
        pace = driver.pace
        pace.inputs, pace.total_bytes = ledger.input_sizes()
        if observer is not None:
            pace.observer = observer
        intake = Intake(ledger, recipe.source, out / DOWNLOADS, pace)
        clips = intake.clips()
        try:
            driver.run(clips)
        finally:
            clips.close()
            driver.close()
            _store_totals(driver, time.monotonic() - start)
        rows = write_scores(score_rows(plan, ledger, out / DOWNLOADS), out / SCORES, plan.scores())
        decision = decide(out, vars(recipe)) if recipe.sets else None
    seconds = time.monotonic() - start
    return Report(pace.inputs, dict(pace.clips), seconds, rows, _notes(listing), decision)


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
    return recipe, make_plan(recipe, recipes.load_plugins(recipe)), Ledger(out, read_only=True)


def _store_totals(driver: Driver, seconds: float) -> None:
    for name, (clips, busy, media) in driver.pace.totals().items():
        driver.ledger.add_total(name, clips, busy, media)
    driver.ledger.set_fact("seconds", driver.ledger.fact("seconds", 0.0) + seconds)
    driver.ledger.commit()


def _notes(listing: Listing) -> list[str]:
    if not listing.ignored:
        return []
    kinds = ", ".join(f"{count} {reason}" for reason, count in sorted(listing.ignored.items())[:6])
    return [f"ignored {sum(listing.ignored.values())} files that are no videos ({kinds})"]
