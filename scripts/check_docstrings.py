"""List public callables whose tensor arguments or results have no shape in the docstring.

A callable is public if neither its name nor that of its module, package or class begins with an underscore. It is
checked if a parameter or the result is annotated as a tensor or an array. Its docstring then states a shape: axes in
square brackets, such as `[B, C, F, H, W]`, or the words `scalar`, `same shape` or `any shape`. For `forward`,
`__call__` and `__init__` the docstring of the class counts too, for an overriding method that of the base class.

    python scripts/check_docstrings.py [PATH ...]

Prints one line per callable, `file:line: name`, and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARRAYS = {"Tensor", "ndarray", "NDArray"}
SHAPE = re.compile(r"(?<![\w\]])\[[A-Za-z0-9.*(][^\[\]]*\]|\bscalars?\b|\b(?:same|any|equal) shapes?\b")
BY_CLASS = {"forward", "__call__", "__init__"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_array(annotation: ast.expr | None) -> bool:
    """Whether an annotation names a tensor or an array, alone or inside of a container."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return any(
        (isinstance(node, ast.Name) and node.id in ARRAYS)
        or (isinstance(node, ast.Attribute) and node.attr in ARRAYS)
        for node in ast.walk(annotation)
    )


def takes_arrays(function: Function) -> bool:
    """Whether a parameter or the result of a function is a tensor or an array."""
    arguments = function.args
    parameters = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    annotations = [parameter.annotation for parameter in parameters if parameter is not None]
    return any(is_array(annotation) for annotation in [*annotations, function.returns])


def states_shape(text: str | None) -> bool:
    """Whether a docstring states a shape, by this script's rule."""
    return bool(text and SHAPE.search(text))


def is_public(name: str) -> bool:
    """Whether a name is part of the public interface; `__init__` and `__call__` are."""
    return not name.startswith("_") or name in BY_CLASS


def callables(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, Function]]:
    """All public functions of a module and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, Function) and is_public(node.name):
            yield None, node
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            for member in node.body:
                if isinstance(member, Function) and is_public(member.name):
                    yield node, member


def modules(paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    """All public modules under the paths, parsed."""
    for path in paths:
        for file in sorted(path.rglob("*.py") if path.is_dir() else [path]):
            parts = file.relative_to(ROOT).parts if file.is_relative_to(ROOT) else file.parts
            if all(is_public(part) or part == "__init__.py" for part in parts) and "template" not in parts:
                yield file, ast.parse(file.read_text(encoding="utf-8"))


def base_names(owner: ast.ClassDef) -> list[str]:
    """Names of the base classes, without their modules."""
    return [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in owner.bases]


def missing(paths: list[Path]) -> list[str]:
    """One line for each public callable with tensors and without a stated shape."""
    trees = list(modules(paths))
    workspace = [tree for _, tree in modules(sorted(ROOT.glob("packages/*/src")))]
    classes: dict[str, list[ast.ClassDef]] = {}
    for node in (node for tree in workspace for node in tree.body if isinstance(node, ast.ClassDef)):
        classes.setdefault(node.name, []).append(node)

    def texts_of(owner: ast.ClassDef, name: str, depth: int = 0) -> Iterator[str | None]:
        """Docstrings of a method and of those that it overrides."""
        for member in owner.body:
            if isinstance(member, Function) and member.name == name:
                yield ast.get_docstring(member)
        for base in base_names(owner) if depth < 8 else []:
            for known in classes.get(base, []):
                yield from texts_of(known, name, depth + 1)

    lines = []
    for file, tree in trees:
        for owner, function in callables(tree):
            if not takes_arrays(function):
                continue
            texts = [ast.get_docstring(function)]
            if owner is not None:
                texts += texts_of(owner, function.name)
                if function.name in BY_CLASS:
                    texts.append(ast.get_docstring(owner))
            if not any(states_shape(text) for text in texts):
                name = f"{owner.name}.{function.name}" if owner else function.name
                where = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
                lines.append(f"{where}:{function.lineno}: {name}")
    return lines


def main(arguments: list[str]) -> int:
    """Print what is missing in the packages, or in the paths given."""
    paths = [Path(argument).resolve() for argument in arguments] or sorted(ROOT.glob("packages/*/src"))
    lines = missing(paths)
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(lines)} public callables with tensors state no shape", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
