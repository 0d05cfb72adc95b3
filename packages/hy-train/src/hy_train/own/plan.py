"""From a folder of clips and a model to a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_core import models
from hy_core.data import SourceSpec, open_source
from hy_core.device import free_memory, pick_device
from hy_core.errors import MemoryLimitError, MissingError, UsageError
from hy_core.models import ModelSpec
from hy_core.plugins import Plugins

from hy_train.own.clips import Scanned, Shape, find_plugin, rate_of, scan, shapes
from hy_train.own.memory import MemoryPlan, memory

_BYTES_LARGE = 1 << 30  # parameters from which blocks are recomputed and the frozen DiT is bfloat16
_MAX_ROWS = 8
_HELDOUT_FROM = 10  # clips from which a part is held out
_PRIOR_CLIPS = 256
#: Data that a shipped model was trained on, by the model: (plugin, data source).
_PRIORS = {"pocket": ("world", "world")}


@dataclass(frozen=True)
class Wishes:
    """What the command line says; None and "" leave the choice to the plan."""

    kind: str = "lora"  # "" trains the whole DiT
    model: str = "pocket"
    steps: int | None = None
    rank: int | None = None
    alpha: float = 0.0
    targets: tuple[str, ...] = ()
    lr: float | None = None
    batch: int | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    plugins: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    prior: str = "auto"
    every: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """A recipe as a table, and what there is to say of it."""

    name: str
    table: Mapping[str, Any]
    scanned: Scanned
    shapes: tuple[Shape, ...]
    memory: MemoryPlan
    free: int
    trained: int
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say the plan in readable lines."""
        options, videos = self.table["options"], len(self.scanned.videos)
        what = f"{options['adapter']} of rank {options['rank']}" if options["adapter"] else "the whole DiT"
        found = [
            f"clips      {videos} videos and {len(self.scanned.files) - videos} pictures in {self.scanned.folder}",
            *(
                f"bucket     {one.files} clips as {one.frames}x{one.height}x{one.width}"
                for one in self.shapes
            ),
            f"training   {what}: {self.trained:,} parameters, {self.table['steps']} steps of "
            f"{self.table['batch']} clips",
            self.memory.line(self.free),
        ]
        return found + [f"note       {one}" for one in self.notes]


def make(folder: Path, wishes: Wishes) -> Plan:
    """Look at the clips and the model, and choose what the command line leaves open.

    `UsageError` for clips without captions or options that fit nothing; `MemoryLimitError` if not even one clip of the
    largest bucket fits into memory.
    """
    from hy_core.adapters import AdapterConfig, attach, find_kind

    spec = models.find(wishes.model)
    if not spec.dit.exists():
        raise MissingError(f"the model {spec.name!r} has no transformer weights: {spec.dit} is missing")
    found, name = scan(folder), f"{folder.resolve().name}-{wishes.kind or 'full'}"
    rate = rate_of(found, spec.defaults)
    buckets = shapes(found, spec.defaults, rate, wishes.size, wishes.frames)
    dit, vae = models.configs(spec)
    if wishes.kind:
        find_kind(wishes.kind)
    import torch
    from hy_core.dit import DiT

    with torch.device("meta"):
        network = DiT(dit)
    whole = sum(one.numel() for one in network.parameters())
    small = whole < _BYTES_LARGE
    rank = wishes.rank or 32
    targets = wishes.targets or (("all",) if small and wishes.kind != "bottleneck" else ("blocks",))
    trained = whole
    if wishes.kind:
        attach(network, AdapterConfig(wishes.kind, rank, wishes.alpha, targets))
        trained = sum(one.numel() for one in network.parameters() if one.requires_grad)
    free = free_memory(pick_device())
    largest = max(buckets, key=lambda one: one.frames * one.height * one.width)

    def needed(rows: int) -> MemoryPlan:
        shape = (largest.frames, largest.height, largest.width)
        return memory(dit, vae, shape, rows, trained, not wishes.kind, 4 if small else 2, not small)

    rows = wishes.batch or next((n for n in (8, 4, 2) if n <= _MAX_ROWS and needed(n).total < 0.7 * free), 1)
    plan = needed(rows)
    if plan.total > 1.25 * free:
        raise MemoryLimitError(
            f"not enough memory: {plan.line(free).removeprefix('memory     ')}",
            "try a smaller --resolution, fewer --frames, a smaller --rank, or --batch 1",
        )
    heldout, notes = _heldout(found, buckets[0], rate)
    if not heldout:
        notes.append("no clips are held out: the measured loss is that of training clips")
    notes += found.broken[:3]
    table = _table(
        name, folder, wishes, spec, found, buckets, rate, rows, rank, targets, heldout, small, dit.width
    )
    notes += _add_prior(table, wishes, spec, buckets)
    return Plan(name, table, found, tuple(buckets), plan, free, trained, tuple(notes))


def _table(
    name: str,
    folder: Path,
    wishes: Wishes,
    spec: ModelSpec,
    found: Scanned,
    buckets: list[Shape],
    rate: float,
    rows: int,
    rank: int,
    targets: tuple[str, ...],
    heldout: float,
    small: bool,
    width: int,
) -> dict[str, Any]:
    """The recipe. Learning rates are those that the trainers of the released 13B model use, scaled by 3072 / width."""
    steps = wishes.steps or (600 if small else 2000)
    base = 2e-4 if wishes.kind else 1e-5
    lr = wishes.lr or round(min(base * 3072 / width, 2e-3 if wishes.kind else 3e-4), 6)
    captions = list(dict.fromkeys(one.caption for one in found.files))
    prompts = wishes.prompts or tuple(captions[:: max(len(captions) // 2, 1)][:2])
    count = sum(one.files for one in buckets)
    return {
        "objective": "finetune",
        "name": name,
        "plugins": list(dict.fromkeys(["data", *wishes.plugins])),
        "init_from": wishes.model if wishes.model == spec.name else str(spec.folder),
        "steps": steps,
        "batch": rows,
        "seed": wishes.seed,
        "ema": 0.99,
        "precision": "32-true" if small else "bf16-mixed",
        "save_every": max(min(steps // 5, 200), 1),
        "eval_every": wishes.every or max(steps // 4, 1),
        "optim": {
            "name": "adamw",
            "lr": lr,
            "weight_decay": 0.01,
            "warmup": min(20, max(steps // 10, 1)),
            "decay": "cosine",
            "min_lr_ratio": 0.1,
        },
        "options": {
            "adapter": wishes.kind,
            "rank": rank,
            "alpha": wishes.alpha,
            "targets": list(targets),
            "checkpointing": not small,
            "timestep_sampling": "logit-normal",
            "shift": 2.5 if small else 7.0,
            "caption_dropout": 0.1,
            "foreground_weight": 2.0 if small else 0.0,
            "previews": list(prompts),
        },
        "conditioning": {one: {} for one in wishes.plugins},
        "data": {
            "source": "folder",
            "captions": 4,
            "sources": {"folder": {"path": str(folder.resolve()), "fps": rate, "heldout": heldout}},
            "buckets": [
                {
                    "frames": one.frames,
                    "height": one.height,
                    "width": one.width,
                    "clips": 0,
                    "sampling_weight": round(one.files / count, 4),
                }
                for one in buckets
            ],
        },
    }


def _heldout(found: Scanned, bucket: Shape, rate: float) -> tuple[float, list[str]]:
    """The share of files that is held out: about a tenth, and at least one clip of the first bucket."""
    if bucket.files < _HELDOUT_FROM:
        return 0.0, []
    plugins = find_plugin()
    for share in (0.1, 0.2):
        sizes = []
        for split in ("train", "heldout"):
            options = {"path": str(found.folder), "fps": rate, "heldout": share}
            spec = SourceSpec(
                "folder",
                split,
                frames=bucket.frames,
                height=bucket.height,
                width=bucket.width,
                options=options,
            )
            try:
                sizes.append(len(open_source(spec, plugins)))
            except UsageError:
                break
        if len(sizes) == 2:
            return share, [f"{sizes[1]} of {sum(sizes)} clips are held out for the measured loss"]
    return 0.0, []


def _add_prior(table: dict[str, Any], wishes: Wishes, spec: ModelSpec, buckets: list[Shape]) -> list[str]:
    """Mix in clips of what the model can do already, half of all rows, so that it doesn't forget them."""
    prior = wishes.prior
    if prior == "none":
        return []
    options: dict[str, Any] = {}
    if prior == "auto":
        plugin, source = _PRIORS.get(spec.name, ("", ""))
        if not plugin or plugin not in Plugins().found:
            return ["no prior clips: what the model knew may change (--prior FOLDER keeps it)"]
        table["plugins"].append(plugin)
    elif Path(prior).is_dir():
        scan(Path(prior))
        source, options = "folder", {"path": str(Path(prior).resolve()), "heldout": 0.0}
    else:
        source = prior
        owner = _owner(prior)
        table["plugins"] = list(dict.fromkeys([*table["plugins"], owner]))
    first = buckets[0]
    for one in table["data"]["buckets"]:
        one["sampling_weight"] = round(one["sampling_weight"] / 2, 4)
    table["data"]["buckets"].append(
        {
            "frames": first.frames,
            "height": first.height,
            "width": first.width,
            "clips": 0 if options else _PRIOR_CLIPS,
            "sampling_weight": 0.5,
            "source": source,
            **({"options": options} if options else {}),
        }
    )
    return [
        f"half of the rows are prior clips of {prior if options else source!r}, which keep what the model knew"
    ]


def _owner(source: str) -> str:
    """The installed plugin that registers a data source; `UsageError` if none does."""
    plugins = Plugins()
    for name in plugins.found:
        plugins.examine(name)
    datasets = plugins.datasets()
    datasets.check(source)
    return datasets.owner(source)
