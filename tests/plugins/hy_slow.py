"""A plugin that breaks the rule: it imports torch when it is loaded."""

from __future__ import annotations

import torch
from hy_core import Check, hookimpl


@hookimpl
def register_checks(register):
    """One check, so that there is something to find."""
    register("threads", lambda: Check(torch.get_num_threads() > 0, "torch has threads"))
