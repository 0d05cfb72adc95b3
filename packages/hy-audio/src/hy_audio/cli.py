"""`hy audio`: sound for a clip that is there already."""

from __future__ import annotations

import json
from pathlib import Path

import click

_MAX_NAME_BYTES = 255


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
    "--cfg", type=click.FloatRange(0, 1000),
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
    cfg: float | None,
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
    from hy_core.media import timeline

    from hy_audio.containers import check_target
    from hy_audio.models import POCKET, kind, load_generator
    from hy_audio.soundtrack import add_soundtrack
    from hy_audio.soundtrack_options import SoundtrackOptions

    settings = SoundtrackOptions(
        None if as_made else lufs, peak, None if channels is None else int(channels), existing, balance, overlap,
        not no_cuts,
    )  # fmt: skip
    # Errors of the files come before the model is loaded.
    kind(model)
    extent = timeline.measure(clip)
    target = out or default_name(clip)
    check_target(target, clip)
    output.note(f"loading {model or POCKET.name}")
    generator = load_generator(model, prompt, negative, steps, cfg, seed, device, dtype)

    def progress(done: int, count: int) -> None:
        if count > 1:
            output.note(f"window {done} of {count}")

    path = add_soundtrack(clip, target, generator, settings, progress, "replace" if out else "number")
    if as_json:
        click.echo(json.dumps({"path": str(path), "seconds": round(extent.duration, 3), "seed": seed}))
    else:
        click.echo(str(path))


def default_name(clip: Path) -> Path:
    """Return the first free name of CLIP-sound.mp4, CLIP-sound-2.mp4 and so on, cut to what the file system takes."""
    from hy_core.files import free_name

    from hy_audio.containers import AUDIO_CODECS

    suffix = clip.suffix.lower() if clip.suffix.lower() in AUDIO_CODECS else ".mp4"
    stem = clip.stem.encode("utf-8", "surrogateescape")[: _MAX_NAME_BYTES - len(f"-sound{suffix}")]
    return free_name(clip.with_name(f"{stem.decode('utf-8', 'ignore')}-sound{suffix}"))
