"""What `hy eval world` can be asked to measure: a table that a new task joins with one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from hy_core.conditioner import Conditioner
from hy_core.errors import UsageError
from hy_core.options import fields, nearest

from hy_world.scene import FPS

if TYPE_CHECKING:
    from pathlib import Path

    from hy_core.condition import Condition
    from hy_core.conditioner import Segments
    from hy_core.dit import DiT
    from hy_core.flow.guidance import Branch
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.models import Model
    from hy_core.request import Request, Result
    from hy_core.rewrite import Rewriter
    from hy_core.session import Session
    from torch import Tensor

    from hy_world.report import Report

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """One thing to measure.

    `measure` is "module:function", imported when needed: it takes an `EvalRequest` and yields a `Report` per group of
    clips. `plugin` is what the clips are made with, unless the command line names another; `clips` is how many are
    made for each scene, `frames` the fewest that make sense. With `renders` clips are real ones, and no model is
    loaded, unless the command line asks for generated ones. `groups` are the prompts if none are asked for (see
    `hy_world.text_to_video`).
    """

    about: str
    measure: str
    groups: tuple[str, ...] = ("combinations",)
    plugin: str = ""
    clips: int = 1
    frames: int = 1
    renders: bool = False

    def run(self, asked: EvalRequest) -> Iterator[Report]:
        """Measure, a group of clips at a time."""
        module, _, function = self.measure.partition(":")
        return getattr(importlib.import_module(module), function)(asked)


TASKS: dict[str, Task] = {
    "t2v": Task(
        "videos of prompts",
        "hy_world.text_to_video:measure",
        groups=("combinations", "wordings"),
    ),
    "i2v": Task(
        "videos that start from a picture, and between two",
        "hy_world.image_to_video:measure",
        plugin="i2v",
        clips=2,
        frames=9,
    ),
    "avatar": Task(
        "characters that follow speech, faces and poses",
        "hy_world.avatar:measure",
        plugin="avatar",
        clips=5,
        frames=9,
    ),
    "audio": Task(
        "sound made for clips",
        "hy_world.audio:measure",
        plugin="audio",
        frames=9,
        renders=True,
    ),
}


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asks for, with a session of the model, if the task needs one.

    `conditioner` is the class of the task's plugin, `options` what the command line says to it; `generated` asks for
    generated clips in place of real ones. `language` is that of the prompts of the group `free`; with `rewriter`
    prompts are rewritten first.
    """

    session: Session | None
    groups: Sequence[str]
    count: int
    frames: int
    height: int
    width: int
    objects: int = 1
    steps: int = 20
    cfg: float | None = None
    seed: int = 0
    rows: int = 8
    conditioner: type[Conditioner] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    generated: bool = False
    device: str = "auto"
    dtype: str = "auto"
    language: str = "en"
    rewriter: Rewriter | None = None
    advance: Advance = lambda clips: None

    @property
    def model(self) -> Model | None:
        """The loaded model, if there is one."""
        return self.session.model if self.session else None

    def make(self, prompts: Sequence[str], options: Sequence[Mapping[str, Any]] = ()) -> Iterator[np.ndarray]:
        """Yield a clip for each prompt, uint8 [T, H, W, 3], as `results` makes them."""
        for result in self.results(prompts, options):
            yield np.asarray(result.frames)

    def results(self, prompts: Sequence[str], options: Sequence[Mapping[str, Any]] = ()) -> Iterator[Result]:
        """Yield what `hy_core.session` makes of each prompt; seeds are seed, seed + 1, ...

        `options` are the plugin's for each clip, beside those of the command line.
        """
        requests = [self.request(prompt, index) for index, prompt in enumerate(prompts)]
        conditioners = []
        if options:
            own = [self.plugin(**one) for one in options]
            for conditioner, request in zip(own, requests, strict=True):
                conditioner.validate(request)
            conditioners = [Each(dict(zip((r.seed for r in requests), own, strict=True)))]
        assert self.session is not None  # a task that makes clips has a model
        for result in self.session.stream(requests, conditioners, rows=self.rows):
            self.advance(1)
            yield result

    def request(self, prompt: str, index: int) -> Request:
        """What clip number `index` is asked for with."""
        from hy_core.models import Defaults
        from hy_core.request import Request

        default = self.model.defaults if self.model else Defaults()
        return Request(
            prompt,
            negative=default.negative,
            width=self.width,
            height=self.height,
            frames=self.frames,
            fps=FPS,
            steps=self.steps,
            seed=self.seed + index,
            guidance=default.guidance,
            cfg=default.cfg if self.cfg is None else self.cfg,
            shift=default.shift,
            sampler=default.sampler,
            model=self.model.name if self.model else "",
            device=self.device,
            dtype=self.dtype,
        )

    def plugin(self, **options: Any) -> Conditioner:
        """The task's plugin with options, beside those of the command line."""
        assert self.conditioner is not None
        return self.conditioner(**{**self.options, **options})


class Each(Conditioner):
    """A plugin with options of its own for each clip, so that clips still go through the network together.

    The clips are identified by their seeds. Their options may differ in what is encoded, such as a picture, but not in
    what belongs to the network or to all rows of a batch.
    """

    def __init__(self, clips: Mapping[int, Conditioner]) -> None:
        self.clips = clips
        self.first = next(iter(clips.values()))
        self.options = self.first.options
        self.__dict__["name"] = self.first.name  # as that of the plugin

    def segments(self, request: Request) -> Segments | None:
        return self.clips[request.seed].segments(request)

    def attach(self, dit: DiT, folder: Path | None = None) -> None:
        self.first.attach(dit, folder)

    def encode(self, request: Request, cond: Condition) -> None:
        self.clips[request.seed].encode(request, cond)

    def plan_sampling(self, request: Request, cond: Condition, policy: SamplingPolicy) -> None:
        self.clips[request.seed].plan_sampling(request, cond, policy)

    def branches(self, request: Request, cond: Condition) -> Iterable[Branch]:
        return self.first.branches(request, cond)

    def before_step(self, latents: Tensor, t: float, cond: Condition) -> Tensor:
        return self.first.before_step(latents, t, cond)

    def finish(self, request: Request, result: Result) -> None:
        self.clips[request.seed].finish(request, result)

    def weights(self, folder: Path | None = None) -> str | None:
        return self.first.weights(folder)

    def attach_key(self, folder: Path | None = None) -> Hashable:
        return self.first.attach_key(folder)


def plugin_options(kind: type[Conditioner], texts: Sequence[str]) -> dict[str, Any]:
    """The options of a plugin from texts such as "steps=20", each in its own type; UsageError for what isn't one."""
    known = {one.name: one for one in fields(kind.Options)}
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--option {text}: needs NAME=VALUE", "for instance --option steps=20")
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"it has: {', '.join(known) or 'none'}"
            raise UsageError(f"--option {text}: the plugin has no option {name!r}", hint)
        found[name] = known[name].check(value, f"--option {name}", text=True)
    return found


def conditioner(name: str) -> type[Conditioner]:
    """The class of a plugin, by its name or the path of its file; PluginError if there is none."""
    from hy_core.plugins import installed

    plugins = installed()
    (loaded,) = plugins.load(name)
    return plugins.conditioners([loaded]).pick(loaded)
