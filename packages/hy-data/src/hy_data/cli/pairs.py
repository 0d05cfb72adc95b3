"""`hy data pairs`: pairs of prompts and captions, to fine-tune a rewriter on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from hy_core.errors import HyError

if TYPE_CHECKING:
    from hy_data.captions import StructuredCaption


@click.command("pairs")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File of JSON lines."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the prompts' wording."
)
def command(source: Path, out: Path, seed: int) -> None:
    """Make pairs of a prompt and its structured caption out of captions.

    SOURCE is the folder of a run with the stage `caption`, or a manifest (.jsonl). Add pairs of your own, with prompts
    as your users type them, to the file; then fine-tune a language model for `hy generate --rewrite`:

    \b
    $ hy data pairs sets/ -o pairs.jsonl
    $ hy train rewriter-lora --set init_from=Qwen3-4B --set data.pairs=pairs.jsonl
    """
    from hy_core.files import write_text

    from hy_data.rewriting.pairs import make_pairs, to_json

    lines = [to_json(pair) for pair in make_pairs(captions(source), seed)]
    if not lines:
        raise HyError(f"{source} has no structured captions", "the stage `caption` writes them")
    write_text(out, "\n".join(lines) + "\n")
    click.echo(out)


def captions(source: Path) -> Iterator[StructuredCaption]:
    """Yield the structured captions of a run or a manifest; those of clips without one are left out."""
    from hy_data.captions import StructuredCaption

    if source.is_dir():
        from hy_data.engine.run import SCORES
        from hy_data.table import read_scores

        rows = read_scores(source / SCORES, ["caption_fields"]).to_pylist()
        found = (row.get("caption_fields") for row in rows)
    else:
        from hy_core.data import read_manifest

        found = (record.results.get("caption_fields") for record in read_manifest(source))
    for value in found:
        if isinstance(value, dict):
            value = {name: part for name, part in value.items() if part}
        if value:
            yield StructuredCaption.from_json(value)
