"""The plan of a run: the stages of a recipe with fingerprints, dependencies and groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hy_core.data import ClipRecord, Resources, Score, Stage
from hy_core.errors import HyError, UsageError
from hy_core.options import fields

if TYPE_CHECKING:
    from hy_core.plugins import Plugins

    from hy_data.recipe import Recipe


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run, without its class: a worker makes it of `owner` (a plugin or its file), name and `values`.

    `needs`: indices of the stages whose results it sees. `group`: consecutive stages that look at frames share one
    decoding and one worker. `splits`: it makes any number of clips of one.
    """

    index: int
    name: str
    owner: str
    values: dict[str, Any]
    fingerprint: str
    needs: tuple[int, ...]
    group: int
    splits: bool
    on_frames: bool
    resources: Resources
    scores: tuple[Score, ...]

    def key(self, record: ClipRecord) -> str:
        """Return the key of this stage's result for a record: 16 hex digits.

        It changes with the stage's version and options, with those of the stages that it needs, and with the span,
        crop, captions and given results of the record; so a changed option runs only what depends on it again.
        """
        state = [self.fingerprint, record.span, record.crop, record.captions, dict(record.results)]
        return digest(state)


@dataclass(frozen=True)
class Plan:
    """All stages of a run in order."""

    stages: tuple[PlannedStage, ...]
    scoring: int
    """How many of the stages score; those after them run on clips that a set keeps."""

    def groups(self) -> list[tuple[PlannedStage, ...]]:
        """Return the stages by group."""
        return [tuple(members) for _, members in groupby(self.stages, key=lambda one: one.group)]

    def scores(self) -> list[tuple[str, Score]]:
        """Return pairs of a stage's name and one of its scores."""
        return [(stage.name, score) for stage in self.stages for score in stage.scores]


def digest(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of a value as JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def make_plan(recipe: Recipe, plugins: Plugins, *, finish: bool = False) -> Plan:
    """Make the plan of a recipe's `stages`, with `finish` also of those.

    `UsageError` for unknown stages and wrong options, `PluginError` for a stage that can't be imported.
    """
    from hy_data.frames import FrameStage

    registered = plugins.stages()
    planned: list[PlannedStage] = []
    group, was_frames = -1, False
    for index, name in enumerate([*recipe.stages, *(recipe.finish if finish else ())]):
        kind = registered.pick(name)
        values = recipe.stage.get(name, {})
        stage = _made(kind, name, values)
        on_frames, splits = isinstance(stage, FrameStage), type(stage).run is not Stage.run
        if not (on_frames and was_frames and not splits) or index == len(recipe.stages):
            group += 1
        was_frames = on_frames and not splits
        needs = _needs(stage, planned)
        options = {one.name: getattr(stage.options, one.name) for one in fields(type(stage).Options)}
        upstream = [planned[one].fingerprint for one in needs]
        owner = registered.owner(name)
        owner = plugins.loaded[owner].file or owner if owner in plugins.loaded else owner
        planned.append(
            PlannedStage(
                index,
                name,
                owner,
                values,
                digest([name, stage.version, options, upstream]),
                needs,
                group,
                splits,
                was_frames,
                stage.resources,
                tuple(stage.scores),
            )
        )
    if not planned:
        raise UsageError("the recipe has no stages", 'add some, such as stages = ["shots"]')
    return Plan(tuple(planned), len(recipe.stages))


def _made(kind: Any, name: str, values: dict[str, Any]) -> Stage:
    if not (isinstance(kind, type) and issubclass(kind, Stage)):
        raise HyError(
            f"the stage {name!r} is not a hy_core.data.Stage", "it can't run in a recipe until it is one"
        )
    try:
        return kind(**values)
    except UsageError as error:
        message = error.message.replace(f"--{kind.name}-", f"stage.{name}.")
        raise UsageError(message, error.hint) from None


def _needs(stage: Stage, before: Sequence[PlannedStage]) -> tuple[int, ...]:
    """The stages whose results a stage sees; those that aren't in the recipe are left out."""
    if stage.needs is None:
        return tuple(one.index for one in before)
    return tuple(one.index for one in before if one.name in stage.needs)
