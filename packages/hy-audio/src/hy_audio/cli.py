"""`hy audio`: sound for a clip that is there already."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("audio")
@click.argument("clip", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder of the audio model; default: pocket.",
)  # fmt: skip
@click.option("--prompt", default="", help="Description of the sound; without one only the pictures count.")
@click.option("--negative", help="Negative prompt; default: the model's own.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path),
    help=".mp4, .mov, .mkv or .webm; .wav or .flac for the sound alone. CLIP-sound.mp4 if not given.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 1000), help="Sampling steps; default: the model's own.")
@click.option(
    "--scale", type=click.FloatRange(0, 1000),
    help="Classifier-free guidance; default: the model's own.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the noise.")
@click.option("--lufs", default=-16.0, show_default=True, type=click.FloatRange(-60, 0), help="Loudness.")
@click.option("--as-made", is_flag=True, help="Keep the model's loudness.")
@click.option(
    "--peak", default=-1.0, show_default=True, type=click.FloatRange(-20, 0), help="Highest true peak, dBTP."
)
@click.option("--mono", "channels", flag_value="1", help="One channel.")
@click.option("--stereo", "channels", flag_value="2", help="Two channels.")
@click.option(
    "--existing", default="replace", show_default=True, type=click.Choice(["replace", "keep", "mix"]),
    help="The clip's own sound: replaced, kept as the first of two tracks, or mixed with the new.",
)  # fmt: skip
@click.option(
    "--balance", default=0.0, show_default=True, help="For mix: level of the new sound over the old, in LU."
)
@click.option(
    "--overlap", default=1.0, show_default=True, type=click.FloatRange(0, 30),
    help="Overlap of windows of a long clip, in seconds.",
)  # fmt: skip
@click.option("--no-cuts", is_flag=True, help="Allow windows across scene changes.")
@click.option("--device", default="auto", show_default=True, help="Where to run.")
@click.option("--dtype", default="auto", show_default=True, help="Number format: fp32, bf16, fp16.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    clip: Path,
    model: Path | None,
    prompt: str,
    negative: str | None,
    out: Path | None,
    steps: int | None,
    scale: float | None,
    seed: int,
    lufs: float,
    as_made: bool,
    peak: float,
    channels: str | None,
    existing: str,
    balance: float,
    overlap: float,
    no_cuts: bool,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Make sound for CLIP, of any length; its pictures are copied bit for bit.

    \b
    $ hy audio clip.mp4 --prompt "a ball bounces" -o with-sound.mp4
    $ hy audio clip.mp4 --model HunyuanVideo-Foley --prompt "rain on a tin roof" -o with-sound.mp4
    """
    from hy_core.cli import output

    from hy_audio import mux, reading
    from hy_audio.models import POCKET, kind, open_maker
    from hy_audio.soundtrack import Settings, add_sound

    settings = Settings(
        None if as_made else lufs, peak, None if channels is None else int(channels), existing, balance, overlap,
        not no_cuts,
    )  # fmt: skip
    # All that can be wrong with the files is told before a weight is read.
    kind(model)
    extent = reading.measure(clip)
    target = out or default_name(clip)
    mux.check_target(target, clip)
    output.note(f"loading {model or POCKET.name}")
    maker = open_maker(model, prompt, negative, steps, scale, seed, device, dtype)

    def advance(done: int, count: int) -> None:
        if count > 1:
            output.note(f"window {done} of {count}")

    made = add_sound(clip, target, maker, settings, advance)
    if as_json:
        click.echo(json.dumps({"path": str(made), "seconds": round(extent.duration, 3), "seed": seed}))
    else:
        click.echo(str(made))


def default_name(clip: Path) -> Path:
    """A name beside the clip that is free."""
    from hy_core.cli.batch import free

    from hy_audio.mux import VIDEOS

    suffix = clip.suffix.lower() if clip.suffix.lower() in VIDEOS else ".mp4"
    return free(clip.with_name(f"{clip.stem}-sound{suffix}"))
