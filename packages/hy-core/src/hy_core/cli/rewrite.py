"""hy rewrite: print what a prompt becomes before it reaches a model."""

from __future__ import annotations

import json

import click

from hy_core.cli import output
from hy_core.errors import UsageError
from hy_core.request import Limits, check_prompt


@click.command("rewrite")
@click.argument("prompt")
@click.option(
    "--rewrite",
    "chosen",
    default="auto",
    show_default=True,
    metavar="auto|FOLDER|URL",
    help="The model's own rewriter, a language model's folder, or an OpenAI-compatible address.",
)
@click.option("--model", default="pocket", show_default=True, help="Model whose own rewriter is used.")
@click.option(
    "--mode",
    type=click.Choice(("normal", "master")),
    default="normal",
    show_default=True,
    help="normal keeps the intent; master adds composition, lighting, camera and quality.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the structured caption and warnings as JSON.")
def command(prompt: str, chosen: str, model: str, mode: str, as_json: bool) -> None:
    """Rewrite PROMPT, in any wording and language, as a caption of the kind that a model was trained on.

    \b
    $ hy rewrite "please show me a huge crimson disc drifting leftwards"
    $ hy rewrite "一个红色的圆向右移动" --json
    """
    from hy_core.rewrite import rewrite
    from hy_core.rewrite.opening import open_rewriter

    if not prompt.strip():
        raise UsageError("the prompt is empty", 'say what to see: hy rewrite "a crimson disc drifts left"')
    check_prompt(prompt, "prompt", Limits(words=20_000))
    made = rewrite(open_rewriter(chosen, model), prompt, mode)
    if as_json:
        click.echo(json.dumps(made.summary(), indent=2, ensure_ascii=False))
        return
    for warning in made.warnings:
        output.warn(warning)
    click.echo(output.clean(made.text))
