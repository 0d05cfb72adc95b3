"""The kinds of adapters, by name: those of this package, and those that plugins register."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hy_core.adapters.bottleneck import Bottleneck
from hy_core.adapters.linear import LinearAdapter

if TYPE_CHECKING:
    from hy_core.plugins import Plugins
    from hy_core.registered import Registered

#: A class of adapters: for linear layers, or for ports behind blocks.
AdapterKind = type[LinearAdapter] | type[Bottleneck]


def kinds(plugins: Plugins | None = None) -> Registered[Any]:
    """Return all kinds by name: the core's, and those of the plugins given or else of all installed ones."""
    from hy_core.plugins import Plugins

    if plugins is None:
        plugins = Plugins()
        for name in plugins.found:
            plugins.examine(name)
    return plugins.adapters()


def find_kind(name: str, plugins: Plugins | None = None) -> AdapterKind:
    """Return the class of a kind; `UsageError` names the nearest for one that nothing registers."""
    from hy_core.plugins import Plugins

    core = Plugins([]).adapters() if plugins is None else plugins.adapters()
    found: AdapterKind = core[name] if name in core else kinds(plugins).pick(name)
    return found
