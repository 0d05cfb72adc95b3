"""The data sources of a recipe, by the names that its plugins registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hy_core.data import DataSource, SourceSpec, open_source
from hy_core.errors import UsageError
from hy_core.plugins import Plugins
from hy_core.training import Recipe


def recipe_plugins(recipe: Recipe) -> Plugins:
    """Load the plugins that a recipe names, those that condition the network included."""
    plugins = Plugins()
    plugins.load(*dict.fromkeys((*recipe.plugins, *recipe.conditioning)))
    return plugins


def open_sources(specs: Iterable[SourceSpec], plugins: Plugins) -> list[DataSource]:
    """Make the sources of several specifications, in order; see `hy_core.data.open_source`."""
    return [open_source(spec, plugins) for spec in specs]


def check_tables(tables: Mapping[str, Any], used: Iterable[str]) -> None:
    """Raise `UsageError` for a table [data.sources.NAME] of a source that isn't used, or that is no table."""
    used = set(used)
    for name, table in tables.items():
        if name not in used:
            raise UsageError(
                f"[data.sources.{name}]: no clips of this recipe come from {name!r}",
                f"it uses {', '.join(sorted(used))}",
            )
        if not isinstance(table, Mapping):
            raise UsageError(f"[data.sources.{name}] is not a table")
