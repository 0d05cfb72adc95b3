"""The objectives that come with hy-train, and how a recipe finds its own."""

from __future__ import annotations

from hy_core.objective import Objective

from hy_train.recipe import Recipe


def find(recipe: Recipe) -> type[Objective]:
    """Return the class of a recipe's objective: ours, or one that a plugin of the recipe registers."""
    from hy_core.plugins import Plugins

    plugins = Plugins()
    plugins.load("train", *recipe.plugins)
    return plugins.objectives().pick(recipe.objective)
