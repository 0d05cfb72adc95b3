"""Sphinx settings: `uv run --group docs sphinx-build -W --keep-going docs build/docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

project = "hy"
author = "The hy authors"
copyright = "the hy authors, Apache-2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.apidoc",
    "sphinx_external_toc",
]
exclude_patterns = ["figures", "reference/api/*/modules.rst"]
html_theme = "furo"
html_title = "hy"

myst_heading_anchors = 4  # links such as page.md#heading work here as on GitHub
myst_enable_extensions = ["attrs_block"]

# The API reference: one page per module, written from the docstrings when the site is built.
apidoc_modules = [
    {
        "path": str(source),
        "destination": f"reference/api/{source.name}",
        "separate_modules": False,
        "module_first": True,
        "exclude_patterns": [str(source / "template"), str(source / "pocket")],
    }
    for source in sorted(ROOT.glob("packages/*/src/*"))
    if (source / "__init__.py").is_file()
]
autodoc_default_options = {
    "members": True,
    "undoc-members": False,
    "show-inheritance": True,
    "ignore-module-all": True,
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # Lightning's are written for another site
toc_object_entries = False  # thousands of entries in the sidebar of every page take minutes to build
default_role = "code"
# Some classes of different packages share a name; a type in a signature then links to none of them. The pages that
# apidoc writes have tables of contents of their own, which docs/_toc.yml replaces.
suppress_warnings = ["ref.python", "etoc.toctree"]

LIST_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s")


def as_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring, which is plain text with Markdown code and lists, into reStructuredText, in place."""
    out: list[str] = []
    for line in lines:
        parts = line.split("`")
        for index in range(0, len(parts), 2):  # outside of code
            parts[index] = (
                re.sub(r"([*|\\])", r"\\\1", parts[index])
                if index or not LIST_ITEM.match(line)
                else parts[index]
            )
            parts[index] = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", parts[index])
        text = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "`".join(parts))  # `Error`s
        starts_list = LIST_ITEM.match(line) and out and out[-1].strip() and not LIST_ITEM.match(out[-1])
        if starts_list and not out[-1].startswith(" "):
            out.append("")
        out.append(text)
    lines[:] = out


def setup(app: Any) -> None:
    """Register the converter."""
    app.connect("autodoc-process-docstring", as_rst)
