"""A step of a data pipeline: from the record of a clip to records, with a reason for each rejected one.

A stage is usable alone; a plugin registers its own by `register_stages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hy_core import options as opts
from hy_core.data.record import JSON, ClipRecord
from hy_core.errors import HyError, MissingError, UsageError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Score:
    """A result of a stage that a clip can be filtered by.

    `better` tells which values are wanted: "high", "low", or "" for a fact without an order. `unit` is for people.
    """

    name: str
    description: str
    better: Literal["high", "low", ""] = ""
    unit: str = ""


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage needs: CPU cores, GPUs (parts of one are possible), memory in bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 1 << 30


class Stage:
    """A step of a data pipeline. Subclasses define `name`, `Options` (fields are `option()`s) and `found`.

    `version` is part of the fingerprint of the stage's results: raise it when the same options give other results.
    `scores` are the results that clips can be filtered by; a stage measures and leaves it to the recipe's thresholds
    to reject, except for clips that can't be used at all. `needs` names the stages whose results it reads (empty: none;
    None: those of all stages before it): a pipeline shows it no others, and runs it again when one of them changes.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    scores: ClassVar[tuple[Score, ...]] = ()
    resources: ClassVar[Resources] = Resources()
    needs: ClassVar[tuple[str, ...] | None] = None

    @dataclass(frozen=True)
    class Options:
        """A frozen dataclass of `option()` fields."""

    options: Any

    def __init__(self, options: Any = None, /, **values: Any) -> None:
        """Take an `Options` instance, or its fields as keywords; `UsageError` names a wrong one."""
        self.options = opts.parse(self.name, self.Options, values) if options is None else options

    def run(self, record: ClipRecord) -> Iterable[ClipRecord]:
        """Return the record with the results of this stage, rejected if the stage has a reason.

        A rejected record passes unchanged. A `HyError` while the clip is examined rejects it, with the error as the
        reason; errors that are no fault of the clip are raised: `UsageError`, and `MissingError` (something isn't
        installed) where the clip's file exists.
        """
        if record.rejected:
            return [record]
        try:
            results, reason = self.found(record)
        except UsageError:
            raise
        except HyError as error:
            if isinstance(error, MissingError) and record.file.exists():
                raise
            results, reason = {}, error.message
        return [record.with_results(results, f"{self.name}: {reason}" if reason else None)]

    def setup(self) -> None:
        """Load models, once in a worker, before its first clip; `MissingError` for what isn't installed."""

    def found(self, record: ClipRecord) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        """Return new results by name, and the reason to reject the clip or None.

        Arrays, of any shape, become the record's vectors.
        """
        raise NotImplementedError


def run_stages(stages: Sequence[Stage], records: Iterable[ClipRecord]) -> Iterator[ClipRecord]:
    """Yield every record after all stages, in order."""
    for record in records:
        rows: list[ClipRecord] = [record]
        for stage in stages:
            rows = [row for before in rows for row in stage.run(before)]
        yield from rows
