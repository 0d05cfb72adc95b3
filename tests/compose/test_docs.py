"""The pages on plugins say what is true: hooks and methods with their signatures, the tutorial's code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from hy_core import Conditioner, hooks
from hy_core.conditioner import LIFECYCLE
from hy_core.plugins import HOOKS, Plugins

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "plugins"
PROSE = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in ROOT.glob("docs/**/*.md") if "api" not in path.parts),
    *sorted(ROOT.glob("packages/*/README.md")),
]


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def signature(function: object, name: str) -> str:
    """`on_step(request, step, steps, seconds)`, without types, as a plugin may write it."""
    known = [one for one in inspect.signature(function).parameters if one != "self"]
    return f"{name}({', '.join(known)})"


def test_every_hook_has_a_heading_with_its_exact_signature():
    expected = [signature(getattr(hooks, name), name) for name in HOOKS]
    expected += [signature(getattr(Conditioner, name), name) for name in LIFECYCLE]
    found = re.findall(r"^### `(.*)`$", page("hooks"), re.M)
    assert sorted(found) == sorted(expected)


def test_the_page_states_the_api_number():
    assert f"`hy_core.API` ({hooks.API})" in page("hooks")


def test_the_tutorial_shows_the_tested_code():
    text = (ROOT / "tests" / "plugins" / "hy_dawn.py").read_text(encoding="utf-8")
    shown = text.split("# -- start dawn --\n")[1].split("# -- end dawn --")[0]
    blocks = re.findall(r"```python\n(.*?)```", page("tutorial"), re.S)
    assert blocks[0].strip() == shown.strip()
    assert len(shown.strip().splitlines()) <= 50


def test_the_tutorials_code_works_as_it_is_shown(tmp_path, tiny):
    from hy_core import generate
    from hy_core.testing.contract import wake

    (tmp_path / "dawn.py").write_text(re.findall(r"```python\n(.*?)```", page("tutorial"), re.S)[0])
    dawn = Plugins([]).conditioners([str(tmp_path / "dawn.py")])["dawn"](curve="0.1,0.9")
    dawn.validate(tiny.request)
    plain = generate(tiny.request, model=tiny.model)
    steered = generate(tiny.request, [dawn], model=tiny.model)
    assert (plain.frames == steered.frames).all()  # untrained, it changes nothing
    wake(tiny.dit, dawn.name)
    assert (plain.frames != generate(tiny.request, [dawn], model=tiny.model).frames).any()


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_page_is_linked_from_the_index():
    linked = set()
    for index in (ROOT / "docs" / "index.md", PAGES / "index.md", ROOT / "docs" / "how-to" / "data.md"):
        links = re.findall(r"\]\(([\w./-]+\.md)", index.read_text(encoding="utf-8"))
        linked |= {(index.parent / link).resolve() for link in links}
    own = {ROOT / "docs" / "index.md", PAGES / "index.md"}
    by_section = {
        ROOT / "docs" / "reference" / f"{name}.md"
        for name in ("audio-model-folders", "data-stages", "signals", "world")
    }
    pages = {path for path in PROSE if path.is_relative_to(ROOT / "docs")}
    assert pages - linked - own - by_section == set()


def test_ports_page_names_every_port_and_every_call():
    from hy_core.condition import Condition
    from hy_core.testing.tiny import Tiny

    text = page("ports")
    from hy_core.dit import Port

    ports = {name for name, module in Tiny().dit.named_modules() if isinstance(module, Port)}
    assert {re.sub(r"\.\d+\.", "[i].", name) for name in ports} == set(
        re.findall(r"^\| `dit\.([\w\[\].]+)` \|", text, re.M)
    )
    for call in (
        "add_text",
        "set_text",
        "add_context",
        "fix_frames",
        "set_channel_condition",
        "set_adapter_inputs",
    ):
        assert f"`cond.{signature(getattr(Condition, call), call)}" in text.replace("=True", "").replace(
            '="clean"', ""
        ).replace("=None", "").replace("=0.0", ""), call


def test_testing_page_has_as_many_rules_as_the_contract():
    from hy_core.testing import contract

    rules = set(re.findall(r"(\d+)\. ", contract.check.__doc__))
    listed = re.findall(r"^(\d+)\. ", page("testing"), re.M)
    assert set(listed) == rules and len(rules) == 10


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_imported_in_the_pages_exist(path):
    import importlib

    ours = r"hy_(?:core|i2v|avatar|audio|data|train|world)\b[\w.]*"
    line = rf"^\s*from ({ours}) import ([\w, ]+?)(?:  #.*)?$"
    for module, imported in re.findall(line, path.read_text(encoding="utf-8"), re.M):
        found = importlib.import_module(module)
        for name in imported.split(","):
            if not hasattr(found, name.strip()):
                importlib.import_module(f"{module}.{name.strip()}")


def test_stations_of_the_architecture_page_are_in_the_code():
    import importlib

    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    ways = re.findall(r"```text\n(.*?)```", text, re.S)
    assert len(ways) == 3
    for way in ways:
        stations = re.findall(r"^ ?\d+  (hy_\w+)([.\w]*)", way, re.M)
        assert 3 < len(stations) <= 10
        for package, path in stations:
            found = importlib.import_module(package)
            for name in path.strip(".").split("."):
                if not hasattr(found, name):
                    importlib.import_module(f"{found.__name__}.{name}")
                found = getattr(found, name)


def test_the_tutorials_file_of_40_lines_works_as_it_is_shown(tmp_path, tiny, contract):
    """A plugin in one file, from the docs alone: it keeps the contract and fades from a clip."""
    import numpy as np
    from hy_core import generate, media

    blocks = re.findall(r"```python\n(.*?)```", page("tutorial"), re.S)
    (code,) = (block for block in blocks if "class Fade" in block)
    assert len(code.splitlines()) <= 41
    (tmp_path / "fade.py").write_text(code)
    white = media.write(tmp_path / "white.mp4", np.full((3, 32, 48, 3), 255, np.uint8), 8)
    fade = Plugins([]).conditioners([str(tmp_path / "fade.py")])["fade"]
    contract(fade, clip=white, frames=4)
    plain = generate(tiny.request, model=tiny.model).frames
    faded = generate(tiny.request, [fade(clip=white, frames=4)], model=tiny.model).frames
    assert faded[0].min() > 245 and (faded[4:] == plain[4:]).all() and (faded[3] != plain[3]).any()


def test_the_line_of_an_error_looks_as_it_is_shown():
    assert "Error: plugin 'dawn', finish (dawn.py:31): ZeroDivisionError: division by zero" in page("hooks")
