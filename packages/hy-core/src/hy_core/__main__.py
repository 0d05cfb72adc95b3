"""python -m hy_core"""

from __future__ import annotations

from hy_core.cli import main

main()
