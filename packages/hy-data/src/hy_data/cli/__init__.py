"""`hy data`: from raw videos to training sets."""

from __future__ import annotations

from hy_core.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "camera": ("hy_data.cli.camera:command", "Train or measure the classifier of camera motion."),
}

command = LazyGroup("data", table=COMMANDS, help="Turn raw videos into training sets.")
