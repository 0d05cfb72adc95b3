"""The importer of "module:attribute": what it accepts, and one line for everything that fails."""

from __future__ import annotations

import pytest
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.imports import import_target, is_target


def test_an_attribute_and_an_attribute_of_an_attribute():
    import pathlib

    assert import_target("pathlib:Path") is pathlib.Path
    assert import_target("pathlib:Path.home") == pathlib.Path.home


@pytest.mark.parametrize(
    "text", ["", ":", "a:", ":b", "a:b:c", "a b:c", "a:b.", "a:b\n", "../x:y", "a\0:b", 3, None]
)
def test_another_form_is_refused_before_anything_is_imported(text):
    assert not is_target(text)
    with pytest.raises(UsageError, match="is not module:attribute"):
        import_target(text)


@pytest.mark.parametrize(
    "text, kind, says",
    [
        (
            "nowhere_at_all:thing",
            MissingError,
            "recipe.toml: scorer: can't import nowhere_at_all:thing: No module",
        ),
        (
            "math:nothing",
            UsageError,
            "recipe.toml: scorer: can't import math:nothing: module 'math' has no 'nothing'",
        ),
        (
            "raises:x",
            MissingError,
            "recipe.toml: scorer: can't import raises:x: ZeroDivisionError: two lines",
        ),
        ("leaves:x", MissingError, "recipe.toml: scorer: can't import leaves:x: SystemExit: 3"),
    ],
)
def test_what_fails_is_one_line_that_names_it(text, kind, says, tmp_path, monkeypatch):
    (tmp_path / "raises.py").write_text("raise ZeroDivisionError('two\\nlines')")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HyError) as caught:
        import_target(text, "recipe.toml: scorer")
    assert type(caught.value) is kind and caught.value.message.startswith(says)
    assert "\n" not in caught.value.message


def test_an_error_of_ours_in_the_module_passes(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text(
        "from hy_core import MissingError\nraise MissingError('no weights', 'get them')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingError, match="^no weights$"):
        import_target("ours:x")


def test_short_names_are_accepted_and_listed():
    assert import_target("tau", "constant", {"tau": "math:tau"}) > 6
    with pytest.raises(UsageError, match="^constant: 'pi' is not module:attribute$") as caught:
        import_target("pi", "constant", {"tau": "math:tau"})
    assert caught.value.hint == "use tau, or module:attribute"
