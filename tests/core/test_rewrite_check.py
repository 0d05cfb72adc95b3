"""The self-check of rewrites: slips are caught, true paraphrases pass."""

from __future__ import annotations

import pytest
from core.rewrite_pairs import PAIRS, planted
from hy_core.rewrite.check import check


@pytest.fixture(autouse=True)
def rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hy_core.rewrite.check.similarity", lambda one, other: None)


def test_at_least_98_percent_of_200_planted_slips_are_caught() -> None:
    slips = planted()
    assert len(slips) >= 200
    missed = [slip for slip in slips if not check(slip[0], slip[1])]
    assert len(missed) <= 0.02 * len(slips), missed


def test_no_true_rewrite_in_eight_languages_is_refused() -> None:
    refused = {(original, text): why for original, text in PAIRS if (why := check(original, text))}
    assert len(refused) <= 0.02 * len(PAIRS), refused


@pytest.mark.parametrize(
    ("original", "text", "what"),
    [
        ('a sign says "SALE 50"', "A sign in a shop window.", "quoted"),
        ("we see Anna in Paris", "A woman walks in a city.", "name"),
        ("a ball that stays still", "A ball rolls across the floor.", "not move"),
        ("a dog", "A dog that does not bark.", "negation was added"),
    ],
)
def test_what_was_lost_is_named(original: str, text: str, what: str) -> None:
    assert what in check(original, text)


def test_master_mode_may_add_colours_and_numbers_but_lose_none() -> None:
    assert not check("a red car", "A red car under two blue neon lamps at night, low angle.", "master")
    assert check("a red car", "A car under two blue neon lamps at night, low angle.", "master")
