"""hy models: list, inspect, convert and fetch weights."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hy_core.cli import output
from hy_core.errors import HyError


@click.group("models")
def command() -> None:
    """List, inspect, convert and fetch weights.

    \b
    $ hy models inspect transformer/
    $ hy models convert mp_rank_00_model_states.pt --to diffusers -o transformer/
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_models(as_json: bool) -> None:
    """List the models that --model takes here by name: pocket, and the folders in $HY_MODELS."""
    from hy_core.models.shelf import models

    rows = models()
    if as_json:
        click.echo(json.dumps([row.summary() for row in rows], indent=2))
        return
    for row in rows:
        click.echo(f"{row.name:<28}  {row.layout:<10}  {row.size:>9}  {row.detail}")


@command.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect_weights(path: Path, as_json: bool) -> None:
    """Tell what the weights at PATH are: format, variant, sizes, dtypes and hash. PATH is a file or a folder."""
    from hy_core.models.describing import describe

    found = describe(path)
    if as_json:
        click.echo(json.dumps(found.summary(), indent=2))
        return
    lines = {
        "file": found.path,
        "kind": found.kind,
        "format": found.format,
        "variant": found.variant,
        "parameters": f"{found.parameters:,} in {found.tensors:,} tensors",
        "dtypes": ", ".join(f"{name} {count:,}" for name, count in found.dtypes.items()),
        "bytes": f"{found.bytes:,}",
        "fingerprint": found.fingerprint,
    }
    for name, value in lines.items():
        click.echo(f"{name:<12}{output.clean(value)}")
    for name, value in found.config.items():
        click.echo(f"  {name:<18}{output.clean(str(value))}")


@command.command("convert")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(["official", "diffusers", "comfyui"]),
    default="official",
    show_default=True,
    help="Names of the result; ours are the official ones.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="File; for diffusers a folder.",
)
@click.option(
    "--dtype", type=click.Choice(["fp32", "fp16", "bf16", "fp8"]), help="Convert values; default: keep them."
)
@click.option("--prefix", default="", help='Put before all names, such as "model.model." for ComfyUI.')
def convert(path: Path, to: str, target: Path, dtype: str | None, prefix: str) -> None:
    """Convert the DiT at PATH to another format or dtype, one tensor in memory at a time."""
    from hy_core.weights.convert import convert_dit

    done = convert_dit(path, target, to, dtype, prefix)
    output.note(f"{done.parameters:,} parameters in {done.tensors:,} tensors")
    for file in (done.weights, *done.beside):
        click.echo(file)


@command.command("pull")
@click.argument("repository", metavar="OWNER/NAME")
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), help="Folder; default: in $HY_MODELS."
)
@click.option("--revision", help="Branch, tag or commit.")
@click.option(
    "--include", multiple=True, help='Only files that match, such as "transformer/*"; may be repeated.'
)
@click.option("--accept-license", is_flag=True, help="Accept the licence without being asked.")
def pull(
    repository: str, target: Path | None, revision: str | None, include: tuple[str, ...], accept_license: bool
) -> None:
    """Fetch a model from the Hugging Face hub; stopped downloads resume, and checksums are verified.

    The licence is shown first: the weights are their owner's.
    """
    from hy_core.models.pulling import plan_pull, pull_files

    plan = plan_pull(repository, target, revision, include)
    output.note(f"{repository} at {plan.commit[:12]}: {len(plan.files)} files, {plan.bytes / 1e9:.2f} GB")
    output.note(plan.license_text)
    if not accept_license and not accepted():
        raise HyError(
            f"the licence of {repository} wasn't accepted: nothing is fetched", "--accept-license accepts it"
        )
    pull_files(plan)
    click.echo(plan.target)


def accepted() -> bool:
    """Ask whether the licence is accepted; no answer means no."""
    try:
        return click.confirm("Accept this licence?", err=True)
    except click.Abort:
        return False
