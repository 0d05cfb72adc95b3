"""`hy data`: from raw videos to training sets."""

from __future__ import annotations

from hy_core.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("hy_data.cli.run:command", "Run a recipe on videos: shots, scores, sets."),
    "stats": ("hy_data.cli.stats:command", "Counts of clips and speeds of stages of a run."),
    "show": ("hy_data.cli.show:command", "Show a clip: its scores, caption and a contact sheet."),
    "explain": ("hy_data.cli.explain:command", "Tell why a clip is in a set or not."),
    "decide": ("hy_data.cli.decide:decide", "Decide again which clips each set gets; no stage runs."),
    "report": ("hy_data.cli.decide:report", "Show what each set keeps and drops, and write report.html."),
    "import": ("hy_data.cli.formats:read", "Read a data set of another tool as a manifest."),
    "export": ("hy_data.cli.formats:write", "Write a set as WebDataset shards, a folder of clips or a list."),
    "pairs": ("hy_data.cli.pairs:command", "Make pairs of prompts and captions for a rewriter."),
    "camera": ("hy_data.cli.camera:command", "Train or measure the classifier of camera motion."),
    "cache": (
        "hy_data.cli.cache:command",
        "Encode the clips and captions of a set as latents and text features.",
    ),
}

command = LazyGroup("data", table=COMMANDS, help="Turn raw videos into training sets.")
