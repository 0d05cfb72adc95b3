"""hy generate: everything is checked before anything is loaded; results are written whole or not at all.

All of it is one subject: the command `hy generate`, from its options to its files.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hy_core import settings
from hy_core.cli import output
from hy_core.cli.select import SELECTION, PluginCommand, Selection, core_options, heed_warnings
from hy_core.conditioner import segments, suggested
from hy_core.errors import MissingError, UsageError
from hy_core.files import Existing, free_name
from hy_core.lora_option import loras
from hy_core.request import Request
from hy_core.settings import Settings

if TYPE_CHECKING:
    from hy_core.conditioner import Conditioner
    from hy_core.media.writer import Writer
    from hy_core.request import Result

log = logging.getLogger(__name__)

FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Job:
    """One clip to make: its request, the conditioners with their options, and where it goes."""

    request: Request
    conditioners: tuple[Conditioner, ...]
    path: Path
    existing: Existing
    """What happens if a file has the name when the clip is done; see `hy_core.files`."""
    is_finished: bool = False


@click.command(
    "generate",
    cls=PluginCommand,
    params=[
        click.Option(
            ["-p", "--plugin"], metavar="NAME", multiple=True, help="Use a plugin; repeat to combine."
        )
    ],
)
@click.argument("prompt", required=False)
@click.option("--preset", metavar="NAME", help="Start from a preset (see: hy config presets).")
@click.option("-c", "--config", metavar="FILE", type=FILE, help="Read settings from a TOML file.")
@click.option(
    "--batch",
    metavar="FILE",
    type=FILE,
    help="One prompt per line, or JSONL or TOML rows; the same command resumes.",
)
@click.option("--rows", type=click.IntRange(1, 256), default=1, help="Clips per batch of the network.")
@click.option("--preview", metavar="FILE", type=FILE, help="Picture to update while sampling.")
@click.option("--dry-run", is_flag=True, help="Check all options, show the request and estimate its cost.")
@click.option("--json", "as_json", is_flag=True, help="Describe the result as JSON on stdout.")
@click.option(
    "--progress", type=click.Choice(output.MODES), default="auto", help="On stderr: bar, json lines, or off."
)
@click.option("--no-provenance", is_flag=True, help="Write no provenance into the file.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def command(context: click.Context, /, prompt: str | None, **flags: Any) -> None:
    """Make a video from PROMPT. Options that are left out take the model's defaults.

    \b
    $ hy generate "a red circle moves right"
    $ hy generate "a green star grows on a blue floor" --seed 7 --frames 33 -o star.webm
    $ hy generate --batch prompts.txt -o clips/
    """
    heed_warnings(flags["quiet"])
    selection: Selection = context.meta[SELECTION]
    merged = selection.settings(context)
    jobs = plan(selection, merged, prompt, flags["batch"])
    check(jobs, selection, flags["preview"])
    if merged.where("seed") is None and not flags["batch"] and not flags["quiet"]:
        output.note(f"seed {jobs[0].request.seed}")
    if not flags["quiet"]:
        hint_at_rewriter(jobs)
    if flags["dry_run"]:
        show_cost(jobs, flags["as_json"])
        return
    made = run(jobs, selection, flags)
    if flags["as_json"]:
        click.echo(json.dumps(made if flags["batch"] else made[0], indent=2, ensure_ascii=False))


command.params[1:1] = core_options()  # after -p, before what is only a flag


# -- what to do ------------------------------------------------------------------------------------------


def plan(selection: Selection, merged: Settings, prompt: str | None, batch: Path | None) -> list[Job]:
    """The clips that the command line asks for."""
    from hy_core import models

    defaults = asdict(models.defaults(merged.core("model").value))
    prompt = merged.prompt if prompt is None else prompt
    if batch is not None:
        return plan_batch(selection, merged, prompt, batch, defaults)
    if prompt is None:
        raise UsageError("no prompt", 'say what to see: hy generate "a red circle moves right"')
    conditioners, _ = selection.conditioners(merged)
    request = requested(selection, merged, prompt, conditioners, defaults, secrets.randbelow(10**6))
    path, existing = target(merged.core("output").value, request)
    return [Job(request, tuple(conditioners), path, existing)]


def plan_batch(
    selection: Selection, merged: Settings, prompt: str | None, batch: Path, defaults: Mapping[str, Any]
) -> list[Job]:
    """One job per row. Rows without a seed take --seed, or 0; a prompt that comes again counts up from it."""
    from hy_core import models
    from hy_core.cli.batch import Places, read_rows

    if prompt is not None:
        raise UsageError("a prompt and --batch", "the file has the prompts: leave one of them out")
    folder = Path(merged.core("output").value or batch.stem)
    if folder.suffix and not os.path.isdir(folder) and not str(merged.core("output").value).endswith("/"):
        raise UsageError(f"--output {folder}: a batch needs a folder", f"-o {folder.with_suffix('')}/")
    jobs, places, seen = [], Places(folder), dict[str, int]()
    for layer in read_rows(batch):
        row = merged.above(layer)
        row.check(selection.option_kinds, selection.plugins.found)
        text = layer.prompt or ""
        conditioners, _ = selection.conditioners(row)
        request = requested(selection, row, text, conditioners, defaults, 0)
        if "seed" not in layer.core:
            request = replace(request, seed=request.seed + seen.get(text, 0))
            seen[text] = seen.get(text, 0) + 1
        fingerprints = partial(models.fingerprints, request, conditioners)
        plugins = partial(selection.plugins.records, request.plugins)
        output_name = layer.core.get("output")
        path, is_finished = places.take(request, output_name, fingerprints, plugins, layer.origin)
        existing: Existing = "number" if output_name is None else "refuse"
        jobs.append(Job(request, tuple(conditioners), path, existing, is_finished))
    return jobs


def requested(
    selection: Selection,
    merged: Settings,
    prompt: str,
    conditioners: Sequence[Conditioner],
    defaults: Mapping[str, Any],
    seed: int,
) -> Request:
    chosen = {one.name: one.options for one in conditioners}
    defaults = suggested(conditioners, settings.with_rate(merged, defaults))
    request = settings.request(merged, prompt, defaults, selection.names, chosen, seed)
    return rewritten(request, merged.core("rewrite").value, merged.core("rewrite_mode").value)


def rewritten(request: Request, chosen: str | None, mode: str) -> Request:
    """The request with its prompt rewritten by the back-end that `--rewrite` names, if any, with warnings."""
    if not chosen:
        return request
    from hy_core.rewrite import rewrite
    from hy_core.rewrite.opening import open_rewriter

    request.validate()
    made = rewrite(open_rewriter(chosen, request.model), request.prompt, mode)
    for warning in made.warnings:
        log.warning("%s", warning)
    return replace(request, prompt=made.text, rewrite=made.record())


def target(chosen: str | None, request: Request) -> tuple[Path, Existing]:
    """Return where the clip goes, and what happens to a file of that name: a default name never overwrites."""
    from hy_core.cli.batch import default_name

    if chosen and not chosen.endswith(("/", "\\")) and not os.path.isdir(chosen):
        return Path(chosen), "replace"
    return free_name(Path(chosen or ".") / default_name(request)), "number"


def check(jobs: Sequence[Job], selection: Selection, preview: Path | None) -> None:
    """Everything that can go wrong before a weight is loaded."""
    from hy_core import files, media

    weights = jobs[0].request.weights
    if weights and not Path(weights).exists():
        raise MissingError(f"--weights {weights}: no such file")
    if lora := jobs[0].request.lora:
        for path, _ in loras(lora):
            if not path.exists():
                raise MissingError(f"--lora {path}: no such file")
    writers, samplers = selection.plugins.writers(), selection.plugins.samplers()
    for job in jobs:
        job.request.validate()
        samplers.check(job.request.sampler)
        for conditioner in job.conditioners:
            conditioner.validate(job.request)
        request = job.request
        media.check_target(
            job.path,
            request.frames * segments(job.conditioners, request).count,
            writers,
            size=(request.height, request.width),
            fps=request.fps,
        )
    silent = next((job for job in jobs if is_silent(job.path, writers)), None)
    for conditioner in silent.conditioners if silent else ():
        if silent and conditioner.adds_sound():
            log.warning(
                "%s files hold no sound: that of %s is left out", silent.path.suffix, conditioner.name
            )
    if preview is not None:
        if preview.suffix.lower() not in (*media.PICTURES, ".gif"):
            raise UsageError(f"--preview {preview}: needs a picture", "such as preview.png")
        files.check_writable(preview)
    for name in {job.request.sampler for job in jobs}:
        samplers.pick(name)  # last, because it imports torch: what is wrong above is said at once


def is_silent(path: Path, writers: Collection[str]) -> bool:
    """Whether a file of this kind holds no sound; of a plugin's kinds, nobody knows before they are written."""
    from hy_core.media import SILENT

    suffix = path.suffix.lower()
    return suffix in SILENT and suffix not in writers


def show_cost(jobs: Sequence[Job], as_json: bool) -> None:
    """Print the merged request and what it costs here; no weights are loaded."""
    from hy_core import models, provenance
    from hy_core.device import describe
    from hy_core.estimate import estimate, seconds

    first, shown = jobs[0].request, []
    spec = models.find(first.model, first.weights)
    precision = models.precision(spec.layout, first.device, first.dtype)
    dit, vae = models.configs(spec)
    for _, same in groupby(jobs, key=lambda job: replace(job.request, prompt="", seed=0)):
        one, *others = same
        request, count = one.request, 1 + len(others)
        cost = estimate(request, dit, vae, dtype_bytes=precision.dit.itemsize)
        runs = count * segments(one.conditioners, request).count
        cost = replace(cost, seconds=runs * seconds(cost, request, dit, vae, precision.device, precision.dit))
        shown.append((request, count, cost))
    if as_json:
        rows = [{"request": provenance.summary(r), "clips": n, "cost": c.summary()} for r, n, c in shown]
        click.echo(json.dumps(rows if len(jobs) > 1 else rows[0], indent=2, ensure_ascii=False))
        return
    for request, count, cost in shown:
        values = provenance.summary(request)
        tables = values.pop("options")
        lines = [
            f"{key:<12}{output.clean(str(value))}"
            for key, value in values.items()
            if value not in (None, "", [])
        ]
        lines += [f"{key:<12}{output.clean(str(table))}" for key, table in tables.items()]
        lines += [f"{'clips':<12}{count}"] if count > 1 else []
        click.echo("\n".join([*lines, "", *cost.lines(), f"on          {describe(precision.device)}"]))


def hint_at_rewriter(jobs: Sequence[Job]) -> None:
    """Say so if a prompt is not in the words that the model knows and the model has a rewriter."""
    from hy_core.rewrite.opening import might_need

    count = sum(
        job.request.rewrite is None and might_need(job.request.prompt, job.request.model)
        for job in jobs[:100]
    )
    if count:
        what = "the prompt has" if len(jobs) == 1 else f"{count} prompts have"
        output.note(
            f"{what} words that {jobs[0].request.model} may not know: --rewrite puts them into its own"
        )


# -- doing it --------------------------------------------------------------------------------------------


def run(jobs: Sequence[Job], selection: Selection, flags: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make the clips that are not there yet; a path per line on stdout unless it is to be JSON."""
    open_jobs = [job for job in jobs if not job.is_finished]
    quiet = flags["quiet"]
    with output.Progress(flags["progress"], quiet) as progress:
        if len(open_jobs) < len(jobs) and not quiet:
            output.note(f"{len(jobs) - len(open_jobs)} of {len(jobs)} clips are finished already")
        done: dict[Path, dict[str, Any]] = {}
        started = time.perf_counter()
        for job, result, files in results(open_jobs, selection, flags, progress):
            paths = files or save(job, result, selection, keep_record=not flags["no_provenance"])
            result.path = paths[0]
            took, started = time.perf_counter() - started, time.perf_counter()
            progress.event_if_json("done", path=str(paths[0]), took=round(took, 3))
            done[job.path] = described(job, result, paths, took)
            if not flags["as_json"]:
                for path in paths:
                    click.echo(str(path))
    return [done.get(job.path) or skipped(job) for job in jobs]


def results(
    jobs: Sequence[Job], selection: Selection, flags: Mapping[str, Any], progress: output.Progress
) -> Iterator[tuple[Job, Result, list[Path]]]:
    """Clips as they are done, with the files they were written to as their frames came, if they were.

    Neighbours with the same plugin options share a run, all share the model.
    """
    if not jobs:
        return
    first = jobs[0].request
    progress.phase("load", first.model)
    from hy_core.session import Session

    check_memory(max((job.request for job in jobs), key=pixels), flags["rows"])
    session = Session.open(
        first.model,
        first.device,
        first.dtype,
        first.weights,
        first.lora,
        jobs[0].conditioners,
        selection.plugins,
    )
    listen = Listener(progress, flags["preview"])
    for _, same in groupby(jobs, key=lambda job: [one.options for one in job.conditioners]):
        group = list(same)
        requests = [job.request for job in group]
        sink = Sink(group, selection, keep_record=not flags["no_provenance"])
        stream = session.stream(requests, group[0].conditioners, listen, flags["rows"], sink)
        for index, result in enumerate(stream):
            yield group[index], result, sink.files(index)


class Sink:
    """Opens the files of a run's clips, to be written as the frames come; not those that a plugin writes."""

    def __init__(self, jobs: Sequence[Job], selection: Selection, keep_record: bool) -> None:
        self.jobs, self.theirs, self.keep_record = jobs, selection.plugins.writers(), keep_record
        self.open: dict[int, Writer] = {}

    def __call__(self, index: int, record: Mapping[str, Any]) -> Writer | None:
        from hy_core import media, provenance

        job = self.jobs[index]
        if job.path.suffix.lower() in self.theirs:
            return None
        comment = partial(provenance.dumps, record) if self.keep_record else None
        self.open[index] = media.open_writer(
            job.path, job.request.fps, comment=comment, existing=job.existing
        )
        return self.open[index]

    def files(self, index: int) -> list[Path]:
        """What a clip was written to (numbered pictures are several); nothing if it has yet to be."""
        return self.open[index].files if index in self.open else []


def pixels(request: Request) -> int:
    return request.width * request.height * request.frames


def check_memory(request: Request, rows: int) -> None:
    """Refuse a clip that can't fit before the machine tries."""
    from hy_core import estimate, models

    spec = models.find(request.model, request.weights)
    precision = models.precision(spec.layout, request.device, request.dtype)
    cost = estimate.estimate(request, *models.configs(spec), batch=rows, dtype_bytes=precision.dit.itemsize)
    estimate.check_memory(cost, precision.device)


class Listener:
    """Turns the pipeline's news into progress, and keeps the preview picture up to date."""

    def __init__(self, progress: output.Progress, preview: Path | None) -> None:
        self.progress, self.preview = progress, preview
        self.stage: tuple[str, int] | None = None
        self.next = 0.0

    def __call__(self, news: Any) -> None:
        if (news.stage, news.clip) != self.stage:
            self.stage = (news.stage, news.clip)
            clip = f" {news.clip + 1}/{news.clips}" if news.clips > 1 else ""
            self.progress.phase(news.stage, f"{news.detail}{clip}")
        if news.stage == "sample":
            self.progress.step(news.step, news.steps, news.seconds)
            if self.preview is not None and news.preview is not None:
                self.show(self.preview, news.preview, last=news.step == news.steps)

    def show(self, preview: Path, picture: Any, last: bool) -> None:
        """Write the preview, but never spend more than a fifth of the time on it."""
        from hy_core import media

        start = time.perf_counter()
        if start >= self.next or last:
            media.write(preview, picture(), 1.0)
            self.next = time.perf_counter() + 4 * (time.perf_counter() - start)


def save(job: Job, result: Result, selection: Selection, keep_record: bool) -> list[Path]:
    """Write a clip; returns the files (several for numbered pictures)."""
    from hy_core import files, media, provenance

    path = job.path
    writers = selection.plugins.writers()
    result.path = path  # a plugin's writer may ask
    if path.suffix.lower() in writers:
        with files.Staging(job.existing) as staging:
            temporary = staging.file(path)
            with files.storage_errors(path):
                writers[path.suffix.lower()](result, temporary)
        return staging.files
    comment = partial(provenance.dumps, result.provenance) if keep_record else None
    sound = None if is_silent(path, writers) else result.sound  # the user was warned before the run
    with media.open_writer(path, result.fps, sound, comment, job.existing) as out:
        out.add(result.frames)
    return out.files


def described(job: Job, result: Result, paths: Sequence[Path], took: float) -> dict[str, Any]:
    """What --json says of a clip."""
    record = result.provenance
    return {
        "path": str(paths[0]),
        **({"paths": [str(path) for path in paths]} if len(paths) > 1 else {}),
        "seed": job.request.seed,
        "seconds": round(took, 3),
        "request": record.get("request"),
        "plugins": list(job.request.plugins),
        "weights": record.get("weights"),
        "versions": record.get("versions"),
        "ran_on": record.get("ran_on"),
    }


def skipped(job: Job) -> dict[str, Any]:
    """What --json says of a clip that was finished before."""
    from hy_core import provenance

    return {
        "path": str(job.path),
        "seed": job.request.seed,
        "finished_before": True,
        "request": provenance.summary(job.request),
        "plugins": list(job.request.plugins),
    }
