"""Golden cases E without a network: rotary tables of long videos, and sizes picked for pictures."""

from __future__ import annotations

import pytest
import torch
from hy_core.dit.rope import table
from hy_i2v.plugin import LONG
from hy_i2v.sizes import buckets, official
from parity.cases import cases

TABLES = cases("EI", config_kind="i2v_tables")


@pytest.mark.parametrize(("case", "run"), TABLES)
def test_tables(case, run):
    about, inputs, outputs = case.scalars(run), case.inputs(run), case.outputs(run)
    if "base_size" in about:
        sizes = buckets(about["base_size"], about["patch"])
        found = {
            "sizes": torch.tensor(sizes),
            "picked": torch.tensor([official(*one, sizes) for one in inputs["image_sizes"].tolist()]),
        }
    else:
        frames, *size = (about["video_length"] - 1) // 4 + 1, about["height"] // 16, about["width"] // 16
        axes = [torch.arange(count) for count in (frames, *size)]
        long = frames if about["video_length"] > LONG else None
        turns = table(axes, about["rope_dim_list"], about["theta"], long)
        found = {"cos": turns.real.repeat_interleave(2, 1), "sin": turns.imag.repeat_interleave(2, 1)}
    assert set(found) == set(outputs)
    for name, ours in found.items():
        assert ours.shape == outputs[name].shape
        assert (ours - outputs[name]).abs().max() <= case.tolerance(run, name), name
