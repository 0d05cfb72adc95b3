"""Conditions as rows of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hy_core.condition.condition import Condition


def mergeable(conditions: Sequence[Condition]) -> bool:
    """Whether `merge` can run these conditions as rows of one batch.

    They need the same size and frames, the same fixed and context frames, and adapter inputs of the same form.
    """

    def form(cond: Condition) -> tuple[Any, ...]:
        context = tuple((c.at, c.time) for c in cond.contexts)
        inputs = tuple(
            (owner, form_of(cond.adapter_inputs[owner], cond.rows)) for owner in sorted(cond.adapter_inputs)
        )
        fixed = tuple(sorted((place, frame.time) for place, frame in cond.fixed_frames.items()))
        single = cond.guidance is None, cond.channel_condition is None, cond.riflex
        return cond.frames, cond.size, single, fixed, context, inputs

    return len(conditions) == 1 or len({form(cond) for cond in conditions}) == 1


def merge(conditions: Sequence[Condition]) -> Condition:
    """One condition with the rows of several, in order; they must be `mergeable`."""
    first = conditions[0]
    if len(conditions) == 1:
        return first
    rows = [cond.rows for cond in conditions]
    fixed_frames = {
        place: replace(frame, latent=join([cond.fixed_frames[place].latent for cond in conditions], rows))
        for place, frame in first.fixed_frames.items()
    }
    contexts = [
        replace(context, latents=join([cond.contexts[index].latents for cond in conditions], rows))
        for index, context in enumerate(first.contexts)
    ]
    channel_condition = first._channel_condition and (
        first._channel_condition[0],
        join([cond.channel_condition for cond in conditions], rows),
    )
    return replace(
        first,
        text=[row for cond in conditions for row in cond.tokens()],
        pooled=torch.cat([cond.pooled for cond in conditions]),
        guidance=None if first.guidance is None else join([cond.guidance for cond in conditions], rows),
        prompts=tuple(prompt for cond in conditions for prompt in cond.prompts),
        adapter_inputs={
            owner: join([cond.adapter_inputs[owner] for cond in conditions], rows)
            for owner in first.adapter_inputs
        },
        fixed_frames=fixed_frames,
        _channel_condition=channel_condition,
        _extras=[],
        _contexts=contexts,
    )


def form_of(value: Any, rows: int) -> Any:
    """What two adapter inputs must have in common to be joined; equal to nothing else if they can't be."""
    if isinstance(value, Tensor) and value.ndim and value.shape[0] in (1, rows):
        return value.shape[1:], value.dtype
    if isinstance(value, Mapping):
        return tuple((key, form_of(value[key], rows)) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(form_of(part, rows) for part in value)
    return value if isinstance(value, str | int | float | None) else object()


def join(values: Sequence[Any], rows: Sequence[int]) -> Any:
    """Concatenate values of one form along their rows; `rows` counts those of each, to which [1, ...] expands."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([v.expand(n, *v.shape[1:]) for v, n in zip(values, rows, strict=True)])
    if isinstance(first, Mapping):
        return {key: join([value[key] for value in values], rows) for key in first}
    if isinstance(first, list | tuple):
        return [join(parts, rows) for parts in zip(*values, strict=True)]
    return first
