"""Fixtures for tests of plugins: `hy` runs the command, `tiny` is a small model, `contract` checks the rules.

pytest loads this wherever hy-core is installed, so nothing of ours is imported before a fixture is used.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hy_core.testing.tiny import Tiny


@dataclass(frozen=True)
class Run:
    """What one command line did."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def hy() -> Callable[..., Run]:
    """Run the command in this process: `hy("plugins", "list").stdout`; errors are one line on `stderr`."""

    def run(*arguments: str) -> Run:
        from hy_core.cli import run
        from hy_core.plugins import installed

        installed.cache_clear()  # each command line is a process of its own
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            code = run([str(argument) for argument in arguments])
        installed.cache_clear()
        return Run(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))

    return run


@pytest.fixture
def tiny() -> Tiny:
    """A network, VAE and text encoder of the real classes, in small; made when used, equal in every test."""
    from hy_core.testing.tiny import Tiny

    return Tiny()


@pytest.fixture
def contract() -> Callable[..., None]:
    """Check a Conditioner against the rules for plugins: `contract(Dawn, curve="0.1,0.9")`."""
    from hy_core.testing.contract import check

    return check
