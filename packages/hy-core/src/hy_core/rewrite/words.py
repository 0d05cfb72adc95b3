"""Tokens of a prompt, and what a lexicon knows of them: the input of the slot reader.

A lexicon maps phrases to tags such as "colour.red". It is matched on lower-case tokens without accents, longest phrase
first; single words also match with one typing error.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’][^\W\d_{_CJK}]+)?|[^\w\s]")
MOST_TOKENS = 160
"""What the reader takes of a prompt; the rest is left out."""
# Traditional characters of words that lexicons have in simplified ones.
_SIMPLIFIED = str.maketrans(
    "紅黃綠藍圓塊盤個隻動轉縮變彈請畫給製視頻畫顏長飄飛滾邊從後裡裏櫃間陽無與這兩號環龍馬魚鳥貓車門窗樹葉線螢",
    "红黄绿蓝圆块盘个只动转缩变弹请画给制视频画颜长飘飞滚边从后里里柜间阳无与这两号环龙马鱼鸟猫车门窗树叶线荧",
)
_LONGEST_PHRASE = 10
_LONGEST_WORD = 24
_FUZZY = 4
"""Shortest word that matches with a typing error."""


def fold(text: str) -> str:
    """Return a text in lower case without accents, in simplified characters and Unicode's compatibility form."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    plain = unicodedata.normalize("NFC", "".join(one for one in plain if not unicodedata.combining(one)))
    return plain.translate(_SIMPLIFIED)


def tokens(text: str) -> list[str]:
    """Split a text into words, single CJK characters and punctuation marks, as they are written."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text))


def join(words: Iterable[str]) -> str:
    """Write tokens as a text: a space between them but beside CJK characters and before punctuation."""
    text = ""
    for word in words:
        glued = not text or re.match(rf"[{_CJK},.;:!?'’]", word) or re.match(rf"[{_CJK}]", text[-1])
        text += word if glued else f" {word}"
    return text


@dataclass(frozen=True)
class Match:
    """Tokens `start` to `end` are a phrase of the lexicon with these tags."""

    start: int
    end: int
    phrase: str
    tags: tuple[str, ...]


class Lexicon:
    """Phrases and their tags."""

    def __init__(self, phrases: Mapping[str, Sequence[str]]) -> None:
        self.phrases = {phrase: tuple(tags) for phrase, tags in phrases.items()}
        self.tags = sorted({tag for tags in self.phrases.values() for tag in tags})
        self._by_tokens = {tuple(map(fold, tokens(phrase))): phrase for phrase in self.phrases}
        self._near: dict[str, str] = {}
        self._clashes: set[str] = set()
        for words in self._by_tokens:
            if len(words) == 1 and len(words[0]) >= _FUZZY and words[0].isalpha() and words[0].isascii():
                for form in _deletions(words[0]):
                    if self._near.setdefault(form, words[0]) != words[0]:
                        self._clashes.add(form)
        self._found: dict[str, str] = {}
        self.words = {word for words in self._by_tokens for word in words}

    def near(self, word: str) -> str:
        """Return the word of the lexicon from which a folded word differs by one typing error, or the word itself."""
        if word in self.words or len(word) < _FUZZY or not word.isalpha() or not word.isascii():
            return word
        if word not in self._found:
            if len(self._found) > 20000:
                self._found.clear()
            self._found[word] = self._search(word)
        return self._found[word]

    def _search(self, word: str) -> str:
        candidates = {
            self._near[form]
            for form in (word, *_deletions(word))
            if form in self._near and (form == word or form not in self._clashes or len(form) > 5)
        }
        close = sorted(one for one in candidates if one_edit(word, one))
        return close[0] if len(close) == 1 or (close and close[0][:2] == word[:2]) else word

    def match(self, words: Sequence[str], ignore: Collection[str] = ()) -> list[Match]:
        """Find the phrases in folded tokens, longest first at each place; phrases in `ignore` are passed over."""
        words = [self.near(word) for word in words]
        found, at = [], 0
        while at < len(words):
            for end in range(min(at + _LONGEST_PHRASE, len(words)), at, -1):
                phrase = self._by_tokens.get(tuple(words[at:end]))
                if phrase is not None and phrase not in ignore:
                    found.append(Match(at, end, phrase, self.phrases[phrase]))
                    at = end - 1
                    break
            at += 1
        return found


def _deletions(word: str) -> list[str]:
    return [word, *(word[:i] + word[i + 1 :] for i in range(len(word)))]


def one_edit(one: str, other: str) -> bool:
    """Whether two words differ by one added, missing, changed or two swapped letters."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    if len(a) == len(b):
        return a[1:] == b[1:] or (len(a) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:])
    return a[1:] == b if len(a) > len(b) else a == b[1:]


def ngrams(word: str, buckets: int) -> list[int]:
    """Return hashed character n-grams (1 to 4, with word ends) of a folded word and the word itself, from 1."""
    bounded = f"<{word[:_LONGEST_WORD]}>"
    parts = [bounded]
    for size in (2, 3, 4):
        parts += [bounded[i : i + size] for i in range(len(bounded) - size + 1)]
    return [1 + zlib.crc32(part.encode()) % (buckets - 1) for part in parts[:48]]
