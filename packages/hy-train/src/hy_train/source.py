"""Where clips come from: datasets that plugins registered, by their names in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hy_core.errors import UsageError
from hy_core.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hy_world.clips import Source

WORLD = "world"


def sources(
    names: Iterable[str], options: Mapping[str, Any], plugins: Iterable[str] = ()
) -> dict[str, Source]:
    """The datasets of these names, of hy-world or of `plugins`, each made with its own table of `options`.

    UsageError for one that isn't there, that draws no clips (see `hy_world.clips.Source`), or whose table holds
    what it doesn't know.
    """
    found: dict[str, Source] = {}
    known = Plugins()
    known.load("world", *plugins)
    names = list(dict.fromkeys(names))
    for name in names:
        make = known.datasets().pick(name)
        if not hasattr(make, "clip"):
            raise UsageError(f"data.source: {name!r} draws no clips")
        try:
            found[name] = make(**options.get(name, {}))
        except TypeError as error:
            raise UsageError(f"[data.sources.{name}]: {str(error).rpartition('() ')[2]}") from None
    if unused := sorted(set(options) - set(names)):
        raise UsageError(f"[data.sources]: {unused[0]!r} is no source of this recipe's clips")
    return found
