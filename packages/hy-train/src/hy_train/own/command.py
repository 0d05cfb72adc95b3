"""`hy train lora FOLDER` and `hy train full FOLDER`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
from hy_core.errors import UsageError


class Size(click.ParamType[tuple[int, int]]):
    """WIDTHxHEIGHT in multiples of 16."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (width, height)."""
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, such as 512x320", param, ctx)
        if int(width) % 16 or int(height) % 16 or not 0 < int(width) * int(height) <= 1 << 24:
            self.fail(f"{value}: width and height must be multiples of 16", param, ctx)
        return int(width), int(height)


_COMMON = [
    click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path)),
    click.option("--model", default="pocket", show_default=True, help="Name or folder of the base model."),
    click.option(
        "-p", "--plugin", "plugins", multiple=True, metavar="NAME", help="Plugin that conditions it (i2v)."
    ),
    click.option(
        "--prompt", "prompts", multiple=True, help="Preview prompt; repeatable [captions of two clips]."
    ),
    click.option("--steps", type=click.IntRange(1), help="Training steps [600, of large models 2000]."),
    click.option(
        "--lr", type=click.FloatRange(0, min_open=True), help="Learning rate [by the model's width]."
    ),
    click.option("--batch", type=click.IntRange(1), help="Clips of a step [8, or as many as fit]."),
    click.option(
        "--resolution", "size", type=Size(), help="Size of the clips [the model's, in the clips' shapes]."
    ),
    click.option(
        "--frames", type=click.IntRange(1), help="Frames of the clips, 4k+1 [the model's and the clips']."
    ),
    click.option(
        "--prior",
        default="auto",
        show_default=True,
        metavar="SOURCE",
        help="Clips that keep what the model knew: a folder, a data source, or none.",
    ),
    click.option("--every", type=click.IntRange(1), help="Steps between previews [a quarter of all]."),
    click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the training."
    ),
    click.option(
        "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run [runs/NAME]."
    ),
    click.option("--minutes", type=float, help="Stop after this many minutes; the same command resumes."),
    click.option("--dry-run", is_flag=True, help="Print the plan, train nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
]


def _common(function: Any) -> Any:
    for option in reversed(_COMMON):
        function = option(function)
    return function


@click.command("lora")
@_common
@click.option(
    "--kind", default="lora", show_default=True, help="lora, dora, lokr, bottleneck, or a plugin's."
)
@click.option("--rank", type=click.IntRange(1), help="Rank of the adapters [32].")
@click.option("--alpha", type=click.FloatRange(0), default=0.0, help="Strength at this rank [the rank].")
@click.option(
    "--target", "targets", multiple=True, help="attention, blocks, all, or a layer's pattern; repeatable."
)
def lora(**options: Any) -> None:
    """Train an adapter on the clips of FOLDER.

    FOLDER holds videos and pictures, each with its caption in NAME.txt beside it. The same command resumes a stopped
    run. `hy generate --lora` loads the result; files for diffusers, ComfyUI and kohya are written beside it.

    \b
    $ hy train lora my-clips/
    $ hy train lora my-clips/ --kind dora --rank 16 --prompt "a red heart spins" --minutes 20
    """
    _run(options)


@click.command("full")
@_common
def full(**options: Any) -> None:
    """Train all weights of a DiT on the clips of FOLDER; see `hy train lora --help`.

    The result is a model folder for `hy generate --model`. It takes more memory than an adapter, and forgets more.
    """
    _run({**options, "kind": "", "rank": None, "alpha": 0.0, "targets": ()})


def _run(options: dict[str, Any]) -> None:
    from hy_train.own.plan import Wishes, make

    chosen = {name: options[name] for name in Wishes.__dataclass_fields__}
    frames = chosen["frames"]
    if frames and (frames - 1) % 4:
        raise UsageError(f"--frames {frames}: frames must be 4k+1", f"try {(frames - 1) // 4 * 4 + 1}")
    plan = make(options["folder"], Wishes(**chosen))
    folder: Path = options["out"] or Path("runs") / plan.name
    for line in plan.lines():
        click.echo(line, err=options["as_json"] or not options["dry_run"])
    if options["dry_run"]:
        if options["as_json"]:
            click.echo(json.dumps({"recipe": plan.table, "out": str(folder), "memory": plan.memory.total}))
        return
    report = _train(plan.table, folder, options["minutes"], options["quiet"])
    if not report:  # not the first of several processes
        return
    done = report["step"] >= plan.table["steps"]
    result = folder / "export" / (f"{plan.name}.safetensors" if options["kind"] else "")
    if options["as_json"]:
        found = str(result) if "stopped" not in report else None  # nothing is exported after a signal
        click.echo(json.dumps({**report, "result": found, "finished": done}))
        return
    for key, value in report.items():
        click.echo(f"{key}: {value}", err=True)
    if not done:
        click.echo(
            f"stopped at step {report['step']} of {plan.table['steps']}; the same command resumes", err=True
        )
    if "stopped" not in report:
        click.echo(_generate(plan.table, result, bool(options["kind"]), options["model"]))


def _generate(table: Any, result: Path, is_adapter: bool, model: str) -> str:
    """The command that uses the result."""
    prompt = (table["options"]["previews"] or ["..."])[0]
    base = ["--model", model] if model != "pocket" else []
    words = [*base, "--lora", str(result)] if is_adapter else ["--model", str(result)]
    return shlex.join(["hy", "generate", prompt, *words])


def _train(table: Any, folder: Path, minutes: float | None, quiet: bool) -> dict[str, Any]:
    """Write the recipe into the run's folder, or check that a stopped run had the same, and run it."""
    from hy_core.tables import read_toml

    from hy_train import recipe as recipes
    from hy_train.checkpoints import LAST
    from hy_train.fit import run
    from hy_train.objectives import find
    from hy_train.own.recipe_file import dumps, write_recipe

    path = folder / "recipe.toml"
    if (folder / LAST).exists() and path.exists():
        _same(read_toml(path), table, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8").partition("\n")[2] != dumps(table):
        write_recipe(path, table, "Written by hy train; `hy train` with this file runs it too.")
    loaded = recipes.load(str(path))
    return run(loaded, find(loaded)(loaded, folder), folder, minutes, quiet)


def _same(before: dict[str, Any], table: dict[str, Any], folder: Path) -> None:
    """Raise `UsageError` if a stopped run's recipe differs in more than its length, its previews and its saving."""
    free = {"steps", "eval_every", "save_every"}
    for key in sorted((before.keys() | table.keys()) - free):
        old, new = before.get(key), table.get(key)
        if key == "options" and isinstance(old, dict) and isinstance(new, dict):
            old, new = ({k: v for k, v in one.items() if k != "previews"} for one in (old, new))
        if key == "optim" and isinstance(old, dict) and isinstance(new, dict):
            old, new = ({k: v for k, v in one.items() if k != "warmup"} for one in (old, new))
        if json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            raise UsageError(
                f"{folder} holds a stopped run with another {key}",
                "choose another --out, or give the options of the stopped run",
            )
