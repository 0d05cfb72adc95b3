"""Golden cases: tiny reference models with their weights, inputs and outputs, found on disk."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

#: Where the golden folders lie; absent on a machine that was not given them.
ROOT = Path(os.environ.get("HY_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden")


class Case:
    """One golden folder: a model's config, its weights, and the tensors of every run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.name

    def __repr__(self) -> str:
        return f"Case({self.name})"

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / "config.json").read_text())

    @property
    def kind(self) -> str:
        """What the case's own config calls it; empty if it says nothing."""
        return self.config.get("kind") or ""

    @property
    def model_config(self) -> dict[str, Any]:
        return self.config.get("model_config") or {}

    @property
    def vae_config(self) -> dict[str, Any]:
        return self.config.get("vae_config") or {}

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """Run name -> dtypes and shapes of its tensors, and its `scalars`."""
        return self.config["runs"]

    def scalars(self, run: str) -> dict[str, Any]:
        return self.runs[run].get("scalars") or {}

    def weights(self, name: str = "model") -> dict[str, Tensor]:
        """The state dict in the reference's own key names: `model`, or `vae` in loops and pipelines."""
        from safetensors.torch import load_file

        return load_file(self.path / f"{name}.safetensors")

    def inputs(self, run: str) -> dict[str, Tensor]:
        return self._tensors(run, "in")

    def outputs(self, run: str) -> dict[str, Tensor]:
        return self._tensors(run, "out")

    def mids(self, run: str) -> dict[str, Tensor]:
        """Outputs of named submodules. The rows of padded text are nobody's business (README of the cases)."""
        return self._tensors(run, "mid")

    def tolerance(self, run: str, output: str) -> float:
        """Largest absolute difference allowed for that output, fp32."""
        return self.config["agreement"][f"{run}/{output}"]["tolerance"]

    def _tensors(self, run: str, side: str) -> dict[str, Tensor]:
        from safetensors import safe_open

        prefix = f"{run}/{side}/"
        with safe_open(self.path / "tensors.safetensors", framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def folders(kinds: str) -> list[Case]:
    """Every golden folder whose name starts with one of the letters in `kinds`."""
    if not ROOT.is_dir():
        return []
    found = (path for path in sorted(ROOT.iterdir()) if (path / "config.json").is_file())
    return [Case(path) for path in found if path.name[0] in kinds]


def cases(
    kinds: str,
    *,
    config_kind: str | tuple[str, ...] | None = None,
    skip: str | None = None,
    optional: bool = False,
) -> list[Any]:
    """Parameters `(case, run)`, one for each run of each folder of `kinds`, for `pytest.mark.parametrize`.

    `config_kind` narrows to the cases whose config has that kind, or one of several. `skip` marks all of them skipped
    for that reason (a kind whose plugin is not there yet). Without golden data one skipped parameter says so, or
    nothing if these cases are `optional`.
    """
    marks = [pytest.mark.skip(reason=skip)] if skip else []
    wanted = (config_kind,) if isinstance(config_kind, str) else config_kind
    found = [
        pytest.param(case, run, id=f"{case.name}-{run}", marks=marks)
        for case in folders(kinds)
        if wanted is None or case.kind in wanted
        for run in case.runs
    ]
    if found or optional:
        return found
    reason = f"no golden case of kind {kinds} under {ROOT} (set HY_GOLDEN)"
    return [pytest.param(None, "", id=f"no-{kinds}", marks=pytest.mark.skip(reason=reason))]
