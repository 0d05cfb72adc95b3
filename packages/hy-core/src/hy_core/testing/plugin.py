"""Fixtures for tests of plugins: `hy` runs the command, `tiny` is a small model, `contract` checks the rules.

pytest loads this wherever hy-core is installed, so nothing here imports anything before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from click.testing import Result

    from hy_core.conditioner import Conditioner
    from hy_core.testing.tiny import Tiny


@pytest.fixture
def hy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in this process: `hy("plugins", "list").output`; `exit_code`, `stdout` and `stderr` too."""
    from hy_core.testing.runner import run

    return run


@pytest.fixture
def tiny() -> Tiny:
    """A network, VAE and text encoder of the real classes, in small; made on first use, equal in every test."""
    from hy_core.testing.tiny import Tiny

    return Tiny()


@pytest.fixture
def contract() -> Callable[..., None]:
    """Check a Conditioner against the rules for plugins: `contract(Dawn, curve="0.1,0.9")`."""
    from hy_core.testing.contract import check

    def checked(cls: type[Conditioner], /, **options: object) -> None:
        check(cls, **options)

    return checked
