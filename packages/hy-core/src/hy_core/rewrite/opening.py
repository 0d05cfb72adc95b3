"""Find the rewriter that `--rewrite` means: the model's own, a folder, an endpoint, or one that a plugin registered."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import MissingError, UsageError
from hy_core.rewrite.rewriter import Rewriter
from hy_core.rewrite.small import FOLDER, SmallRewriter
from hy_core.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

OWN = "auto"
ENDPOINT, LANGUAGE_MODEL = "endpoint", "language-model"
"""Names under which plugins register the back-ends for addresses and for folders of language models."""


def open_rewriter(chosen: str, model: str = "pocket") -> Rewriter:
    """Open a rewriter: "auto" (the model's own), a folder, an http address, or "NAME" or "NAME:WHERE" of a plugin's.

    `UsageError` or `MissingError` names what is wrong. Weights are loaded when the first prompt is rewritten.
    """
    if chosen == OWN:
        return own(model)
    if chosen.startswith(("http://", "https://")):
        return registered(ENDPOINT, chosen)
    folder = Path(chosen).expanduser()
    if folder.is_dir():
        return _of_folder(folder)
    name, _, where = chosen.partition(":")
    if name in backends():
        return registered(name, where)
    raise UsageError(
        f"--rewrite={chosen}: no such rewriter",
        f"auto, a folder, an http address, or one of {', '.join(sorted(backends())) or 'a plugin'}",
    )


@lru_cache(maxsize=4)
def own(model: str) -> SmallRewriter:
    """Return the rewriter in a model's folder; `UsageError` if it has none."""
    from hy_core import models

    folder = models.find(model).folder / FOLDER
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"--rewrite: the model {model} has no rewriter of its own",
            "give --rewrite=FOLDER or --rewrite=URL",
        )
    return SmallRewriter(folder)


def _of_folder(folder: Path) -> Rewriter:
    for inner in (folder, folder / FOLDER):
        config = inner / "config.json"
        if config.is_file() and "rewriter" in read_json(config):
            return SmallRewriter(inner)
    if not (folder / "config.json").is_file():
        raise MissingError(
            f"--rewrite={folder}: no config.json there",
            "give the folder of a rewriter or of a language model",
        )
    return registered(LANGUAGE_MODEL, str(folder))


def backends() -> Mapping[str, Any]:
    """Return what the installed plugins register with `register_rewriters`, by name."""
    from hy_core.plugins import Plugins

    plugins = Plugins()
    for name in plugins.found:
        plugins.examine(name)
    return plugins.rewriters()


def registered(name: str, where: str) -> Rewriter:
    """Make a back-end of a plugin: its target is called with `where`, a folder or an address."""
    table = backends()
    if name not in table:
        raise MissingError(f"--rewrite={where}: needs the back-end {name}", "hy plugins install hy-data")
    made = table[name](where)
    if not isinstance(made, Rewriter):
        raise UsageError(f"the rewriter {name} is no hy_core.rewrite.Rewriter", "its author must mend that")
    return made


def might_need(prompt: str, model: str) -> bool:
    """Whether a model has a rewriter and a prompt has many words that its captions lack; reads one small file."""
    from hy_core import models
    from hy_core.rewrite.words import fold, tokens

    try:
        config = read_json(models.find(model).folder / FOLDER / "config.json")
        known = set(config["captions"]["vocabulary"])
    except (OSError, KeyError, TypeError, UsageError, MissingError):
        return False
    words = [word for word in map(fold, tokens(prompt[:2000])) if word.isalpha()]
    unknown = [word for word in words if word not in known]
    return 4 * len(unknown) >= max(len(words), 1)
