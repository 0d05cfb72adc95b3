"""The slot reader: a small encoder that labels each token of a prompt with what it says, and of which thing.

Input of a token: its character n-grams, and the tags that a lexicon gives it, so that relations are learnt apart from
words. Output: a value (such as colour "red", or none), whether it is said of the first and of the second thing, and
whether the word names something that can't be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_core.rewrite.words import MOST_TOKENS, Lexicon, fold, ngrams

THINGS = 2


@dataclass(frozen=True)
class ReaderConfig:
    """Sizes of the network, and its labels.

    `values` are the labels "attribute.value"; those of the attributes in `scene` belong to no thing, those in
    `identity` tell things apart. `tags` are the lexicon's.
    """

    values: tuple[str, ...]
    tags: tuple[str, ...]
    scene: tuple[str, ...] = ("background",)
    identity: tuple[str, ...] = ("colour", "shape")
    width: int = 128
    layers: int = 3
    heads: int = 4
    buckets: int = 8192

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> ReaderConfig:
        """Make a configuration of what `to_dict` returned."""
        lists = {
            name: tuple(table[name]) for name in ("values", "tags", "scene", "identity") if name in table
        }
        return cls(**{**table, **lists})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Rows:
    """B prompts of up to L tokens as index bags: `grams` and `tags` [N] with `starts` [B * L] each; `mask` [B, L]."""

    grams: Tensor
    gram_starts: Tensor
    tags: Tensor
    tag_starts: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Rows:
        """Return the rows on a device."""
        return Rows(*(getattr(self, one.name).to(device) for one in fields(self)))


@dataclass(frozen=True)
class Labels:
    """Logits, or targets: `value` [B, L, V + 1] (targets [B, L], V is none), `owner` [B, L, 2], `outside` [B, L]."""

    value: Tensor
    owner: Tensor
    outside: Tensor

    def to(self, device: torch.device | str) -> Labels:
        """Return the labels on a device."""
        return Labels(*(getattr(self, one.name).to(device) for one in fields(self)))


@dataclass
class Prompt:
    """The features of one prompt: for each token its n-grams and its tag indices (from 1)."""

    grams: list[list[int]] = field(default_factory=list)
    tags: list[list[int]] = field(default_factory=list)


@lru_cache(maxsize=50_000)
def _grams(word: str, buckets: int) -> list[int]:
    return ngrams(word, buckets)


def features(
    words: Sequence[str], lexicon: Lexicon, config: ReaderConfig, ignore: frozenset[str] = frozenset()
) -> Prompt:
    """Look up a prompt's tokens; phrases in `ignore` count as unknown."""
    folded = [fold(word) for word in words[:MOST_TOKENS]]
    made = Prompt([_grams(word, config.buckets) for word in folded], [[] for _ in folded])
    index = {tag: i for i, tag in enumerate(config.tags)}
    for match in lexicon.match(folded, ignore):
        for tag in match.tags:
            if (number := index.get(tag)) is not None:
                for at in range(match.start, match.end):
                    made.tags[at].append(1 + 2 * number + (at > match.start))
    return made


def collate(prompts: Sequence[Prompt]) -> Rows:
    """Pad prompts to one length, as index bags; index 0 is padding."""
    longest = max(1, *(len(one.grams) for one in prompts))
    bags: dict[str, list[int]] = {"grams": [], "gram_starts": [], "tags": [], "tag_starts": []}
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        mask[row, : len(prompt.grams)] = True
        for at in range(longest):
            there = at < len(prompt.grams)
            bags["gram_starts"].append(len(bags["grams"]))
            bags["grams"] += prompt.grams[at] if there else [0]
            bags["tag_starts"].append(len(bags["tags"]))
            bags["tags"] += (prompt.tags[at] if there else []) or [0]
    return Rows(**{name: torch.tensor(values) for name, values in bags.items()}, mask=mask)


class _Block(nn.Module):
    """Depthwise convolution over five tokens, attention, and a two-layer perceptron, each with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.near = nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map tokens x [B, L, width] with mask [B, L] to [B, L, width]."""
        batch, length, width = x.shape
        x = x + self.near((self.norms[0](x) * mask[..., None]).transpose(1, 2)).transpose(1, 2)
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norms[1](x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.norms[2](x))))
        return out


class Reader(nn.Module):
    """Label the tokens of prompts; see `Labels`."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.grams = nn.EmbeddingBag(config.buckets, width, mode="mean", padding_idx=0)
        self.tags = nn.EmbeddingBag(1 + 2 * len(config.tags), width, mode="sum", padding_idx=0)
        self.places = nn.Embedding(MOST_TOKENS, width)
        for table in (self.tags, self.places):
            nn.init.normal_(table.weight, std=0.3)
        self.blocks = nn.ModuleList(_Block(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(config.values) + 1 + THINGS + 1)

    def forward(self, rows: Rows) -> Labels:
        """Return logits of rows of B prompts with L tokens: see `Labels`, [B, L, ...]."""
        batch, length = rows.mask.shape
        x = self.grams(rows.grams, rows.gram_starts) + self.tags(rows.tags, rows.tag_starts)
        x = x.view(batch, length, -1) + self.places.weight[:length]
        for block in self.blocks:
            x = block(x, rows.mask)
        out = self.head(self.norm(x))
        values = len(self.config.values) + 1
        return Labels(out[..., :values], out[..., values : values + THINGS], out[..., -1])


@dataclass
class Reading:
    """What a prompt says: values by attribute for each thing and the scene; words that can't be shown as they are.

    `outside` has (tokens, values): the word, and the value it is shown as ("" if it is left out). `sources` are the
    token indices by (thing, attribute).
    """

    things: list[dict[str, str]]
    scene: dict[str, str]
    outside: list[tuple[str, str]]
    sources: dict[tuple[int, str], int] = field(default_factory=dict)


def interpret(
    labels: Labels, row: int, words: Sequence[str], config: ReaderConfig, least: float = 0.4
) -> Reading:
    """Read the slots of one row of logits; a value needs a probability of `least`."""
    words = list(words[:MOST_TOKENS])
    count = len(words)
    value = labels.value[row, :count].float().softmax(-1)
    owner = labels.owner[row, :count].float().sigmoid()
    outside = labels.outside[row, :count].float().sigmoid()
    things: list[dict[str, str]] = [{} for _ in range(THINGS)]
    scene: dict[str, str] = {}
    sources: dict[tuple[int, str], int] = {}
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(config.values):
        groups.setdefault(name.partition(".")[0], []).append(index)
    for attribute, members in groups.items():
        for thing in (-1,) if attribute in config.scene else range(THINGS):
            if not count:
                continue
            scores = value[:, members] * (1 if thing < 0 else owner[:, thing, None])
            best = int(scores.argmax())
            if scores.flatten()[best] >= least:
                at, which = divmod(best, len(members))
                said = config.values[members[which]].partition(".")[2]
                (scene if thing < 0 else things[thing])[attribute] = said
                sources[thing, attribute] = at
    things = _settled(things, sources, config)
    return Reading(things, scene, _left_out(words, value, outside, config), sources)


def _settled(
    things: list[dict[str, str]], sources: Mapping[tuple[int, str], int], config: ReaderConfig
) -> list[dict[str, str]]:
    """Make one thing of two where nothing identifies the second, and where the two never say the same attribute."""
    first, second = things
    shared = [
        name for name in config.identity if name in second and sources.get((0, name)) == sources[1, name]
    ]
    own = {name: value for name, value in second.items() if name not in shared}
    is_second = any(name in own for name in config.identity)
    if first and second and (not is_second or not first.keys() & own.keys()):
        return [{**own, **first}]
    return [one for one in (first, own) if one]


def _left_out(
    words: Sequence[str], value: Tensor, outside: Tensor, config: ReaderConfig
) -> list[tuple[str, str]]:
    """Return runs of words that name what can't be shown; value [L, V + 1], outside [L]."""
    from hy_core.rewrite.words import join

    found: list[tuple[list[str], str]] = []
    previous = -2
    for at, word in enumerate(words):
        if outside[at] < 0.5 or not (word.isalnum() or "'" in word):
            continue
        best = int(value[at].argmax())
        shown = config.values[best] if best < len(config.values) else ""
        if previous == at - 1 and found and found[-1][1] == shown:
            found[-1][0].append(word)
        else:
            found.append(([word], shown))
        previous = at
    return [(join(run), shown) for run, shown in found]
