"""`hy data stats`: counts and speeds of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("stats")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(folder: Path, as_json: bool) -> None:
    """Show counts of clips by stage, and how fast the stages were, in a running or finished run.

    A real-time factor is seconds of video for a second of one worker.
    """
    from hy_data.engine.run import open_run

    _, plan, ledger = open_run(folder)
    with ledger:
        facts = stats([stage.name for stage in plan.stages], ledger)
    if as_json:
        click.echo(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "ok", "filtered", "failed", "s/clip", "x real time", "share of work", ""):
        table.add_column(name, justify="left" if name in ("stage", "") else "right", header_style="dim")
    for one in facts["stages"]:
        counts = [str(one[status] or "") for status in ("ok", "filtered", "failed")]
        numbers = [
            "" if one[key] is None else form.format(one[key])
            for key, form in (("seconds_per_clip", "{:.3f}"), ("real_time", "{:.1f}"), ("share", "{:.0%}"))
        ]
        table.add_row(one["stage"], *counts, *numbers, "limits" if one["stage"] == facts["limiting"] else "")
    console = Console(highlight=False)
    console.print(
        f"{facts['inputs']} files, {facts['unusable']} of them unusable; {facts['seconds']:.0f} s of running"
    )
    console.print(table)


def stats(names: list[str], ledger: Any) -> dict[str, Any]:
    """Return inputs, running seconds, and counts and times of the stages and of decoding, as JSON."""
    from hy_data.cli.progress import limiting_stage
    from hy_data.engine.pace import DECODE

    counts, totals = ledger.counts(), ledger.totals()
    whole = sum(totals[name][1] for name in [*names, DECODE] if name in totals)
    stages = []
    for name in [*names, DECODE]:
        done, seconds, media = totals.get(name, (0, 0.0, 0.0))
        if name == DECODE and not seconds:
            continue
        found = counts.get(name, {})
        stages.append(
            {
                "stage": name,
                **{status: found.get(status, 0) for status in ("ok", "filtered", "failed")},
                "seconds_per_clip": seconds / done if done else None,
                "real_time": media / seconds if seconds and media else None,
                "share": seconds / whole if whole else None,
            }
        )
    inputs, _ = ledger.input_sizes()
    return {
        "inputs": inputs,
        "unusable": sum(problem is not None for _, _, _, problem in ledger.inputs()),
        "seconds": ledger.fact("seconds", 0.0),
        "limiting": limiting_stage(
            {name: (totals[name][1], 0.0) for name in totals if name in [*names, DECODE]}
        ),
        "stages": stages,
    }
