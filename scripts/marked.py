"""Parts of Markdown pages that scripts write, between two comments."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def replaced(text: str, name: str, content: str, where: str) -> str:
    """Return the page with the part `name` replaced; raises ValueError if the page has no such part."""
    begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
    part = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.S)
    if not part.search(text):
        raise ValueError(f"{where}: has no part between {begin} and {end}")
    return part.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", text, count=1)


def write_pages(pages: dict[Path, str], check: bool, script: str) -> int:
    """Write pages, or with `check` only compare them; returns the exit code."""
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)}: out of date; run: uv run python {script}", file=sys.stderr)
        else:
            path.write_text(pages[path], encoding="utf-8")
            print(path.relative_to(ROOT))
    return 1 if check and stale else 0


def cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
