"""A Conditioner in a module that imports torch at its top, which a plugin must not."""

from __future__ import annotations

import torch
from hy_core import Conditioner


class Heavy(Conditioner):
    """Does nothing, at great cost."""

    dtype = torch.float32
