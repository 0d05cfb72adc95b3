"""`hy data`: from raw videos to training sets."""

from __future__ import annotations

from hy_core.cli.lazy import LazyGroup

COMMANDS = {
    "run": ("hy_data.cli.run:command", "Run a recipe on videos: shots, scores, sets."),
}

command = LazyGroup("data", table=COMMANDS, help="Turn raw videos into training sets.")
