"""Make pocket's text encoders: a tokenizer, a small language model and a small CLIP text model, in minutes on
a CPU.

They are what the official models have, only small, and they are run by the same classes: a Llama decoder
whose last two layers the DiT never sees, and a CLIP text tower whose pooled vector it does.

All of it is one subject: making the two encoders and their tokenizer, and measuring what they say.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.text import Template, Templates
from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hy_world.attributes import BACKGROUNDS
from hy_world.captions import caption
from hy_world.scene import sample_scene
from hy_world.text.wordings import (
    ATTRIBUTES,
    COLOUR_WORDS,
    PLACES,
    SHAPE_WORDS,
    THINGS,
    Wording,
    label,
    write,
)

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
# The end token stands where Llama's <|eot_id|> stands: its state has read the whole prompt.
TEMPLATE = Template(before="", after=END)
TEMPLATES = Templates(video=TEMPLATE, image=TEMPLATE, tokens=128)
VOCABULARY = 2000
SKIP = 2
LLM = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 5,  # three are read
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
CLIP = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,  # not 2, by which transformers knows old CLIP files with another end token
    "pad_token_id": 2,
}
# What is read out of one vector: each thing's attributes and the background, where 0 means "not said".
HEADS = [(f"{name}{i}", 1 + len(values)) for i in range(THINGS) for name, values in ATTRIBUTES.items()]
HEADS += [("background", 1 + len(BACKGROUNDS)), ("count", THINGS)]
# What one token states: 0 is nothing.
TAGS = {
    (name, value): i + 1
    for i, (name, value) in enumerate(
        (name, value)
        for name, values in (*ATTRIBUTES.items(), ("background", BACKGROUNDS))
        for value in values
    )
}


@dataclass(frozen=True)
class Report:
    """How many statements in 100 a linear probe reads right, by wording and attribute; the spread."""

    llm: dict[str, dict[str, float]]
    clip: dict[str, dict[str, float]]
    states_std: float
    pooled_std: float


def untrained() -> nn.ModuleDict:
    """Return both encoders, and the linear layers that training reads them with (these are not kept)."""
    read_out = {
        "norm": nn.LayerNorm(LLM["hidden_size"]),
        "llm": nn.Linear(LLM["hidden_size"], sum(size for _, size in HEADS)),
        "tags": nn.Linear(LLM["hidden_size"], 1 + len(TAGS)),
        "clip": nn.Linear(CLIP["hidden_size"], sum(size for _, size in HEADS)),
    }
    llm = LlamaModel(LlamaConfig(**cast(dict[str, Any], LLM)))
    clip = CLIPTextModel(CLIPTextConfig(**cast(dict[str, Any], CLIP)))
    return nn.ModuleDict({"llm": llm, "clip": clip, "read_out": nn.ModuleDict(read_out)})


def save(model: nn.ModuleDict, tokenizer: Tokenizer, out: Path, data: Batch) -> None:
    """Write `llm/` and `clip/` under `out`, ready for `TextEncoder.load(out)`; `data` sets their scale."""
    llm: Any = deepcopy(model["llm"])
    clip: Any = deepcopy(model["clip"])
    rescale(llm, clip, data)
    TEMPLATES.save(_save(out / "llm", llm, tokenizer, f"{BEGIN} $A") / "templates.json")
    _save(out / "clip", clip, tokenizer, f"{BEGIN} $A {END}")


def make_tokenizer(rng: np.random.Generator) -> Tokenizer:
    """Train a byte-level BPE on captions and on plain English (Python's own manual), so that any text has
    tokens.

    Lower case, one space between words: "A Red  Circle" and "a red circle" are the same prompt.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in (BEGIN, END, PAD)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    ours = [write(rng).text for _ in range(4000)] + [_world(rng).text for _ in range(2000)]
    words = [word for table in (COLOUR_WORDS, SHAPE_WORDS, PLACES) for row in table.values() for word in row]
    tokenizer.train_from_iterator([*ours, *words * 50, *english()], trainer)
    return tokenizer


def english() -> list[str]:
    """Return sentences of plain English: what the Python manual has in whole lines of words."""
    text = "\n".join(topics.topics.values()).replace("\n", " ")
    sentences = re.split(r"(?<=[.;:?!])\s+", text)
    plain = re.compile(r"[A-Za-z][A-Za-z ,'-]+[.;:?!]")
    return [
        sentence
        for s in sentences
        if plain.fullmatch(sentence := " ".join(s.split())) and len(sentence) < 120
    ]


def _world(rng: np.random.Generator, wording: str = "train") -> Wording:
    frames = 1 if rng.random() < 0.1 else 17
    scene = sample_scene(rng, "all", frames)
    return label(scene, caption(rng, scene, frames, wording))


@dataclass
class Batch:
    """Wordings as tokens, with what each says as a whole and token by token."""

    ids: Tensor  # [B, L], begin and end included, padded on the right
    last: Tensor  # [B], where the end token is
    labels: Tensor  # [B, heads]
    tags: Tensor  # [B, L], -1 where unknown
    known: Tensor  # [B], false for plain English, which says nothing of things

    @property
    def next(self) -> Tensor:
        """Return what a language model should say at each place, -100 where nothing is asked. [B, L-1]"""
        within = torch.arange(1, self.ids.shape[1]) <= self.last[:, None]
        return self.ids[:, 1:].masked_fill(~within, -100)


def draw(tokenizer: Tokenizer, rng: np.random.Generator, rows: int, prose: list[str] | None = None) -> Batch:
    """Draw wordings of our own and of the world; with `prose`, some plain English among them."""
    texts = []
    for _ in range(rows):
        draw = rng.random()
        if prose and draw < 0.12:
            texts.append(Wording(prose[rng.integers(len(prose))]))
        else:
            texts.append(write(rng) if draw < 0.62 else _world(rng))
    return _collate(tokenizer, texts)


def _collate(tokenizer: Tokenizer, wordings: list[Wording]) -> Batch:
    rows = tokenizer.encode_batch([wording.text for wording in wordings], add_special_tokens=False)
    longest = max(len(row.ids) for row in rows) + 2
    ids = torch.full((len(rows), longest), LLM["pad_token_id"])
    tags = torch.full((len(rows), longest), -1)
    labels = torch.zeros(len(rows), len(HEADS), dtype=torch.long)
    for i, (row, wording) in enumerate(zip(rows, wordings, strict=True)):
        ids[i, : len(row.ids) + 2] = torch.tensor([LLM["bos_token_id"], *row.ids, LLM["eos_token_id"]])
        if wording.marks:
            tags[i, 1 : 1 + len(row.ids)] = 0
            ends = {end: j for j, (_, end) in enumerate(row.offsets)}
            for end, name, value in wording.marks:
                tags[i, 1 + ends[end]] = TAGS[name, value]
        labels[i] = torch.tensor(_labels(wording))
    last = torch.tensor([len(row.ids) + 1 for row in rows])
    return Batch(ids, last, labels, tags, torch.tensor([bool(wording.said) for wording in wordings]))


def _labels(wording: Wording) -> list[int]:
    things = [*wording.said, {}, {}][:THINGS]
    row = [
        1 + values.index(thing[name]) if name in thing else 0
        for thing in things
        for name, values in ATTRIBUTES.items()
    ]
    background = 1 + BACKGROUNDS.index(wording.background) if wording.background else 0
    return [*row, background, max(len(wording.said) - 1, 0)]


def loss(model: nn.ModuleDict, data: Batch) -> Tensor:
    """Say the next word; tell from the last token, from each token and from CLIP's vector what is said.

    Returns a scalar tensor.
    """
    llm: Any = model["llm"]
    read_out: Any = model["read_out"]
    rows = torch.arange(len(data.ids))
    states = llm(input_ids=data.ids, use_cache=False, output_hidden_states=True)
    inner = read_out["norm"](states.hidden_states[-1 - SKIP])
    # Tied to the embedding; the head itself isn't kept.
    words = F.linear(states.last_hidden_state[:, :-1], llm.embed_tokens.weight)
    pooled = model["clip"](input_ids=data.ids).pooler_output
    return (
        F.cross_entropy(words.flatten(0, 1), data.next.flatten(), ignore_index=-100)
        + _read_loss(read_out["llm"](inner[rows, data.last]), data)
        + _read_loss(read_out["clip"](pooled), data)
        + F.cross_entropy(read_out["tags"](inner).flatten(0, 1), data.tags.flatten(), ignore_index=-1)
    )


def _read_loss(logits: Tensor, data: Batch) -> Tensor:
    parts = logits[data.known].split([size for _, size in HEADS], dim=-1)
    labels = data.labels[data.known].T
    losses = [F.cross_entropy(part, label) for part, label in zip(parts, labels, strict=True)]
    return torch.stack(losses).sum() / 4


@torch.no_grad()
def rescale(llm: LlamaModel, clip: CLIPTextModel, data: Batch) -> None:
    """Give what the DiT reads a spread of 1, by scaling weights.

    Everything that reads the language model's residual stream goes through an RMSNorm, so scaling all that
    writes to the stream changes nothing else. CLIP's vector is the output of its last norm.
    """
    states = llm(input_ids=data.ids, use_cache=False, output_hidden_states=True).hidden_states[-1 - SKIP]
    within = torch.arange(data.ids.shape[1]) <= data.last[:, None]
    within[:, 0] = False  # the begin token is cut off
    scale = 1 / states[within].std()
    llm.embed_tokens.weight *= scale
    for layer in cast(Any, llm.layers):
        layer.self_attn.o_proj.weight *= scale
        layer.mlp.down_proj.weight *= scale
    scale = 1 / clip(input_ids=data.ids).pooler_output.std()
    norm: Any = clip.final_layer_norm
    norm.weight *= scale
    norm.bias *= scale


def _save(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, order: str) -> Path:
    """Write a model and its tokenizer so that transformers 4.57 reads them as well as 5."""
    special = [(name, tokenizer.token_to_id(name)) for name in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=order, special_tokens=special)
    limit = model.config.max_position_embeddings
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD, model_max_length=limit
    ).save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8"))
    found |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}
    settings.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    model.half().save_pretrained(folder)
    if isinstance(model, CLIPTextModel):  # the tensors' names in the released files
        state = {
            f"text_model.{name.removeprefix('text_model.')}": t for name, t in model.state_dict().items()
        }
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def probe(folder: Path | str, seed: int = 0, rows: int = 1500) -> Report:
    """Fit linear probes on the encoders' outputs for training captions; score them on each wording of the
    world.

    The probe reads the end token's state and the pooled vector, each alone; it is a ridge regression on
    one-hot labels.
    """
    from hy_core.text import TextEncoder

    rng = np.random.default_rng(seed + 1)
    encoder = TextEncoder.load(folder, dtype=torch.float32)

    def encoded(wording: str, count: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        said = [_world(rng, wording) for _ in range(count)]
        out = encoder.encode([wording.text for wording in said])
        labels = torch.tensor([_labels(wording) for wording in said])
        return (
            {"llm": torch.stack([row[-1] for row in out.text]), "clip": out.pooled},
            labels,
            torch.cat(out.text),
        )

    fit, labels, states = encoded("train", 3 * rows)
    weights = {
        name: [_ridge(x, labels[:, i], size) for i, (_, size) in enumerate(HEADS)] for name, x in fit.items()
    }
    scores: dict[str, dict[str, dict[str, float]]] = {"llm": {}, "clip": {}}
    for wording in ("train", "heldout", "unseen"):
        seen, truth, _ = encoded(wording, rows)
        for name, x in seen.items():
            ones = F.pad(x, (0, 1), value=1.0)
            right = [
                ((ones @ w).argmax(-1) == truth[:, i]).float().mean().item() * 100
                for i, w in enumerate(weights[name])
            ]
            scores[name][wording] = {head: round(r, 1) for (head, _), r in zip(HEADS, right, strict=True)}
    return Report(scores["llm"], scores["clip"], states.std().item(), fit["clip"].std().item())


def _ridge(x: Tensor, labels: Tensor, size: int) -> Tensor:
    x = F.pad(x, (0, 1), value=1.0)
    gram = x.T @ x + 1e-2 * torch.eye(x.shape[1])
    return torch.linalg.solve(gram, x.T @ F.one_hot(labels, size).float())
