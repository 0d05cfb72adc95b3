"""A plugin that can't be imported: what it needs isn't there."""

from __future__ import annotations

import a_module_that_nobody_has  # noqa: F401
