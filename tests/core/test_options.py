"""One dataclass field is a flag, a TOML key, a keyword, a line of help and a piece of JSON schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner
from hy_core import UsageError, option, options


@dataclass(frozen=True)
class Every:
    """An option of each kind."""

    words: str = option(help="Some words.")
    count: int = option(3, help="How many.", minimum=1, maximum=9)
    scale: float = option(1.0, help="How strongly.")
    loud: bool = option(False, help="Loudly.")
    soft: bool = option(True, help="Softly.")
    image: Path | None = option(None, help="A picture.")
    mode: Literal["box", "mask"] = option("box", help="Which way.")
    images: list[Path] = option([], help="Pictures.")
    levels: tuple[float, ...] = option((0.5, 1.0), help="Levels.")
    point: tuple[int, int] | None = option(None, help="A point.")


def parsed(arguments: list[str], prefix: str = "dawn") -> object:
    """What a command line gives, through click and back into the dataclass."""
    found: list[object] = []

    @click.pass_context
    def callback(context: click.Context, **_: object) -> None:
        found.append(options.parse(prefix, Every, options.given(context, prefix, Every)))

    command = click.Command("test", params=options.click_options(prefix, Every), callback=callback)
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    if result.exception:
        raise result.exception
    return found[0]


def test_flags_fill_the_dataclass_and_the_rest_are_defaults():
    assert parsed(["--dawn-words", "hello"]) == Every(words="hello")


def test_every_kind_of_flag_arrives_in_its_type():
    line = "--dawn-words a --dawn-count 5 --dawn-scale 2 --dawn-loud --dawn-no-soft --dawn-image x.png"
    more = "--dawn-mode mask --dawn-images a.png --dawn-images b.png --dawn-point 3 4"
    last = "--dawn-levels 1 --dawn-levels 2.5"
    assert parsed([*line.split(), *more.split(), *last.split()]) == Every(
        words="a",
        count=5,
        scale=2.0,
        loud=True,
        soft=False,
        image=Path("x.png"),
        mode="mask",
        images=[Path("a.png"), Path("b.png")],
        levels=(1.0, 2.5),
        point=(3, 4),
    )


def test_underscores_are_hyphens_in_flags():
    assert parsed(["--night-sky-words", "a"], "night_sky") == Every(words="a")


def test_a_missing_required_option_is_one_line_that_names_the_flag():
    with pytest.raises(UsageError, match="^--dawn-words is required$") as caught:
        parsed([])
    assert caught.value.hint == "Some words."


def test_help_shows_what_is_required_and_the_defaults():
    command = click.Command("test", params=options.click_options("dawn", Every))
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--dawn-words TEXT Some words. [required]" in text
    assert "--dawn-soft / --dawn-no-soft Softly. [default: true]" in text
    assert "[default: 0.5 1.0]" in text
    assert "--dawn-mode [box|mask]" in text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("words", 3, "--dawn-words: 3 isn't text"),
        ("count", 2.5, "--dawn-count: 2.5 isn't a whole number at least 1 and at most 9"),
        ("count", True, "--dawn-count: True isn't a whole number"),
        ("count", 10, "--dawn-count: 10 isn't"),
        ("scale", float("nan"), "--dawn-scale: nan isn't a number"),
        ("scale", float("inf"), "--dawn-scale: inf isn't a number"),
        ("loud", "yes", "--dawn-loud: 'yes' isn't true or false"),
        ("image", "", "--dawn-image: '' isn't a path"),
        ("mode", "boxes", "--dawn-mode: 'boxes' isn't one of box, mask"),
        ("images", "a.png", "--dawn-images: 'a.png' isn't a list"),
        ("point", [1, 2, 3], r"--dawn-point: \[1, 2, 3\] isn't 2 values"),
        ("point", [1, "x"], "--dawn-point: 'x' isn't a whole number"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(name, value, message):
    with pytest.raises(UsageError, match=message):
        options.parse("dawn", Every, {"words": "a", name: value})


def test_a_value_from_a_file_is_called_by_where_it_stands():
    with pytest.raises(UsageError, match=r"^hy.toml: \[dawn\] count: 'x' isn't"):
        options.parse("dawn", Every, {"words": "a", "count": "x"}, {"count": "hy.toml: [dawn] count"})


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UsageError, match="^--dawn-wrods: no such option$") as caught:
        options.parse("dawn", Every, {"wrods": "a"})
    assert caught.value.hint == "did you mean words?"


def test_values_of_the_environment_are_read_from_text():
    by_name = {one.name: one for one in options.fields(Every)}
    read = {
        name: by_name[name].check(value, f"HY_DAWN_{name.upper()}", text=True)
        for name, value in {
            "count": "4",
            "scale": "0.5",
            "loud": "on",
            "levels": "1, 2",
            "images": "a,b",
        }.items()
    }
    assert read == {
        "count": 4,
        "scale": 0.5,
        "loud": True,
        "levels": (1.0, 2.0),
        "images": [Path("a"), Path("b")],
    }
    with pytest.raises(UsageError, match="HY_DAWN_COUNT: 'four' isn't a whole number"):
        by_name["count"].check("four", "HY_DAWN_COUNT", text=True)


def test_plain_values_go_through_a_file_and_back():
    made = Every(words="a", image=Path("x.png"), images=[Path("y.png")], point=(1, 2))
    held = options.plain(made)
    assert held["image"] == "x.png" and held["point"] == [1, 2]
    assert options.parse("dawn", Every, held) == made


def test_a_default_list_is_not_shared():
    first, second = Every(words="a"), Every(words="a")
    assert first.images == [] and first.images is not second.images


def test_the_schema_says_types_bounds_choices_and_what_is_required():
    found = options.schema(Every)
    assert found["required"] == ["words"] and found["additionalProperties"] is False
    expected = {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many.", "default": 3}
    assert found["properties"]["count"] == expected
    assert found["properties"]["mode"]["enum"] == ["box", "mask"]
    assert found["properties"]["image"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    point = found["properties"]["point"]["anyOf"][0]
    assert point["minItems"] == point["maxItems"] == 2 and len(point["prefixItems"]) == 2


def test_options_that_cannot_be_understood_are_refused_by_name():
    @dataclass(frozen=True)
    class Union:
        size: int | str = option(1, help="Either.")

    @dataclass(frozen=True)
    class Bare:
        size: int = 1

    @dataclass
    class Melting:
        size: int = option(1, help="Not frozen.")

    @dataclass(frozen=True)
    class Wrong:
        size: int = option("big", help="Not a number.")

    @dataclass(frozen=True)
    class Hidden:
        size: Missing = option(help="A type that is not imported.")  # noqa: F821

    @dataclass(frozen=True)
    class Void:
        size: int = option(None, help="No value, and not Optional.")

    for kind, message in (
        (Union, "option 'size' has the type"),
        (Bare, "option 'size' has no help"),
        (Melting, "isn't frozen"),
        (Wrong, "option 'size': the default: 'big' isn't a whole number"),
        (Hidden, "imported at run time"),
        (Void, "isn't Optional"),
        (int, "isn't a dataclass"),
    ):
        with pytest.raises(TypeError, match=message):
            options.fields(kind)


def test_required_fields_may_follow_others():
    @dataclass(frozen=True)
    class Ordered:
        scale: float = option(1.0, help="With a default.")
        words: str = option(help="Without one.")
        inner: int = field(default=0, init=False)

    assert [one.name for one in options.fields(Ordered)] == ["scale", "words"]
    assert options.parse("x", Ordered, {"words": "a"}) == Ordered(words="a")
