"""The funnel for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hy_data.report.words import shown

if TYPE_CHECKING:
    from rich.table import Table


def funnels(sets: tuple[Mapping[str, Any], ...]) -> list[Table]:
    """Return a table for each set: what each rule drops, and what is left; then what all sets keep."""
    from rich.table import Table
    from rich.text import Text

    tables = []
    for one in sets:
        title = f"{one['name']}: {one['kept']} of {one['clips']} clips"
        table = Table(title=Text(shown(title)), title_justify="left", expand=False)
        table.add_column("rule")
        for name in ("dropped", "left", "alone"):
            table.add_column(name, justify="right")
        for step in one["funnel"]:
            rule = Text(shown(step["rule"], 70) + (" (solved)" if step["solved"] else ""))
            table.add_row(rule, *(str(step[name]) for name in ("dropped", "left", "alone")))
            for stage in step.get("stages", ()):
                note = f"  {stage['status']} in {stage['stage'] or 'no stage'}"
                table.add_row(Text(shown(note), style="dim"), str(stage["clips"]), "", "")
        tables.append(table)
    return tables
