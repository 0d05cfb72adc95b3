"""The objectives that come with hy-train, and how a recipe finds its own."""

from __future__ import annotations

from typing import Any

from hy_core.training import Objective

from hy_train.recipe import Recipe


def find(recipe: Recipe) -> type[Objective[Any]]:
    """Return the class of a recipe's objective, registered by hy-train or by a plugin of the recipe."""
    from hy_train.sources import recipe_plugins

    plugins = recipe_plugins(recipe)
    plugins.load("train")
    found: type[Objective[Any]] = plugins.objectives().pick(recipe.objective)
    return found
