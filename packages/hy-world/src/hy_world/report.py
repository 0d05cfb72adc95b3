"""What an evaluation found, as JSON and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hy_world.score import Line


@dataclass
class Report:
    """The scores of one group of clips.

    `title` is what people read above the table, `note` below it; `extra` holds figures for JSON that aren't
    shares.
    """

    group: str
    title: str
    lines: list[Line]
    extra: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    prompts: list[str] = field(default_factory=list)
    clips: list[np.ndarray] = field(default_factory=list)  # uint8 [T, H, W, 3] each

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "group": self.group,
            "count": len(self.clips),
            **self.extra,
            "attributes": {
                line.attribute: {
                    "right": line.made.right,
                    "total": line.made.total,
                    "accuracy": None if math.isnan(line.made.rate) else line.made.rate,
                    "interval": line.made.interval(),
                    "base": None if math.isnan(line.base) else line.base,
                    "real": None if math.isnan(line.real.rate) else line.real.rate,
                }
                for line in self.lines
            },
        }

    def show(self) -> None:
        """Print it as a table."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.title}: {len(self.clips)} clips", title_justify="left")
        for heading in ("attribute", "right", "accuracy", "95% interval", "by chance", "real renders"):
            table.add_column(heading, justify="left" if heading == "attribute" else "right")
        for line in self.lines:
            low, high = line.made.interval()
            table.add_row(
                line.attribute,
                f"{line.made.right}/{line.made.total}",
                f"{line.made.rate:.1%}",
                f"{low:.1%} to {high:.1%}",
                f"{line.base:.1%}",
                f"{line.real.rate:.1%}",
            )
        console = Console()
        console.print(table)
        if self.note:
            console.print(self.note, highlight=False, markup=False)
