"""Write the reference pages that come from the code: the command line and the keys of recipes.

    python scripts/reference.py            # write them
    python scripts/reference.py --check    # fail if one is out of date

Commands are read from click, with the options of the plugins of this workspace. Recipe keys are read from the source of
the dataclasses that `from_table` fills: their types, defaults and comments.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from marked import DOCS, ROOT, cell, replaced, write_pages

PLUGINS = ("i2v", "avatar", "audio")
TABLES = ("model", "data", "options", "conditioning", "optim", "unfreeze")
Field = tuple[str, str, str, str]  # name, type, default, meaning


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all commands below a group, groups included."""
    import click

    assert isinstance(group, click.Group)
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def help_of(path: tuple[str, ...], *arguments: str) -> str:
    """Return what `hy PATH ARGUMENTS --help` prints on a terminal of 80 columns."""
    from click.testing import CliRunner
    from hy_core.cli import cli

    run = CliRunner().invoke(cli, [*path, *arguments, "--help"], prog_name="hy", env={"COLUMNS": "80"})
    if run.exit_code:
        raise SystemExit(f"hy {' '.join(path)} --help: {run.output}{run.exception}")
    return run.output.rstrip()


def plugin_help(name: str) -> str:
    """Return the part of `hy generate -p NAME --help` on the options of that plugin."""
    text = help_of(("generate",), "-p", name)
    start = re.search(rf"^{name} options.*$", text, re.M)
    assert start, f"hy generate -p {name} --help lists no options of {name}"
    return text[start.start() :].split("\n\nPlugins (")[0].split("\n\n")[0]


def command_line() -> str:
    """Return the content of the page of commands."""
    from hy_core.cli import cli

    parts = []
    for path in commands(cli):
        parts.append(f"## hy {' '.join(path)}\n\n```text\n{help_of(path)}\n```")
        if path == ("generate",):
            parts += [
                f"### Options of the plugin {name}\n\n```text\n{plugin_help(name)}\n```" for name in PLUGINS
            ]
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Source:
    """A dataclass in the source: where it is, its syntax tree and the text of its file."""

    module: str
    node: ast.ClassDef
    text: str


def sources() -> tuple[dict[str, Source], list[tuple[str, str, str]]]:
    """Return classes by `module:name`, and calls of `from_table` as (module, class, table)."""
    classes: dict[str, Source] = {}
    calls: list[tuple[str, str, str]] = []
    for path in sorted(ROOT.glob("packages/*/src/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts[3:])
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[f"{module}:{node.name}"] = Source(module, node, text)
            elif (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "from_table"
                and len(node.args) > 2
            ):
                kind, _, where = node.args[:3]
                if isinstance(kind, ast.Name) and isinstance(where, ast.Constant):
                    calls.append((module, kind.id, str(where.value)))
    return classes, calls


def find(classes: dict[str, Source], module: str, name: str) -> Source:
    """Return the class of that name in a module, else the one of its package that has the name."""
    if f"{module}:{name}" in classes:
        return classes[f"{module}:{name}"]
    package = module.split(".")[0]
    others = [one for key, one in classes.items() if key.endswith(f":{name}")]
    return min(others, key=lambda one: one.module.split(".")[0] != package)


def comments(text: str) -> dict[int, str]:
    """Comments of a file by line."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def fields(classes: dict[str, Source], source: Source) -> Iterator[Field]:
    """The fields of a dataclass, those of its bases first."""
    for base in source.node.bases:
        if isinstance(base, ast.Name) and any(key.endswith(f":{base.id}") for key in classes):
            yield from fields(classes, find(classes, source.module, base.id))
    said = comments(source.text)
    body = source.node.body
    for index, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        below = body[index + 1] if index + 1 < len(body) else None
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            meaning = str(below.value.value)
        else:
            first = node.lineno
            while first - 1 in said and source.text.splitlines()[first - 2].strip().startswith("#"):
                first -= 1
            lines = range(first, (node.end_lineno or node.lineno) + 1)
            meaning = " ".join(said[line] for line in lines if line in said)
        default = "" if node.value is None else ast.unparse(node.value)
        if default.startswith("field(default_factory="):
            default = {"dict": "{}", "list": "[]", "tuple": "()"}.get(default[22:-1], "")
        yield node.target.id, ast.unparse(node.annotation), default, meaning


def key_table(classes: dict[str, Source], source: Source) -> str:
    """Return the table of one dataclass with its docstring."""
    rows = ["| Key | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, kind, default, meaning in fields(classes, source):
        shown = f"`{cell(default)}`" if default else ""
        rows.append(f"| `{name}` | `{cell(kind)}` | {shown} | {cell(meaning)} |")
    about = ast.get_docstring(source.node) or ""
    return f"{about}\n\n" + "\n".join(rows)


def recipe_keys() -> str:
    """Return the content of the page of recipe keys."""
    classes, calls = sources()
    recipe = next(key for key in classes if key.endswith(":Recipe") and key.startswith("hy_train."))
    module = recipe.split(":")[0]
    parts = [f"## Recipe\n\n{key_table(classes, classes[recipe])}"]
    for name, heading in (("Optim", "[optim]"), ("Unfreeze", "[[unfreeze]]")):
        parts.append(f"## {heading}\n\n{key_table(classes, find(classes, module, name))}")
    seen = set()
    for where, name, table in calls:
        if table.split(".")[0] in TABLES and (name, table) not in seen:
            seen.add((name, table))
            source = find(classes, where, name)
            parts.append(f"## [{table}] of {where}\n\n{key_table(classes, source)}")
    return "\n\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write or check both pages."""
    pages: dict[Path, str] = {}
    for name, content in (("command-line", command_line), ("recipe-keys", recipe_keys)):
        path = DOCS / "reference" / f"{name}.md"
        pages[path] = replaced(path.read_text(encoding="utf-8"), name, content(), path.name)
    return write_pages(pages, "--check" in arguments, "scripts/reference.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
